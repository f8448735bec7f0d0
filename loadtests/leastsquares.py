"""Fit of costs that cannot be negative. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Factors ``x ≥ 0`` for which the sum of squares of ``row · x / value - 1`` is least: relative errors, so that a
    small value counts as much as a large one. Values must be above 0. ValueError with fewer rows than factors.

    Tries every set of factors that are not 0: right for the handful that a model has.
    """
    scaled = [[part / value for part in row] for row, value in zip(rows, values, strict=True)]
    count = len(rows[0])
    if len(rows) < count:
        raise ValueError(f"{len(rows)} measurements cannot give {count} constants")
    best, least = [0.0] * count, float(len(rows))
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            found = _solve([[row[column] for column in chosen] for row in scaled])
            if found is None or min(found) < 0:
                continue
            factors = [0.0] * count
            for column, factor in zip(chosen, found, strict=True):
                factors[column] = factor
            error = sum((sum(a * x for a, x in zip(row, factors, strict=True)) - 1) ** 2 for row in scaled)
            if error < least:
                best, least = factors, error
    return best


def _solve(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """The normal equations for right sides of 1, by elimination with pivots; None if they have no one solution."""
    count = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(count)] + [sum(row[i] for row in rows)]
        for i in range(count)
    ]
    for column in range(count):
        pivot = max(range(column, count), key=lambda line: abs(matrix[line][column]))
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        if abs(matrix[column][column]) < 1e-12:
            return None
        for line in range(count):
            if line != column:
                share = matrix[line][column] / matrix[column][column]
                matrix[line] = [a - share * b for a, b in zip(matrix[line], matrix[column], strict=True)]
    return [matrix[line][count] / matrix[line][line] for line in range(count)]
