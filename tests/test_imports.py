"""Who may import whom (docs/design.md). Read from the source with ``ast``; nothing is imported for it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("broker", "server")

PURE = [
    *("broker.base", "broker.envelope", "broker.options", "broker.redis.keys", "broker.redis.errors", "broker.stats"),
    *("server.closing", "server.events", "server.frames", "server.jsontext", "server.origin", "server.payload"),
    *("server.policies", "server.protocol", "server.quantities", "server.redact", "server.registry", "server.sync"),
    *("server.handshake", "server.limits", "server.refusal", "server.typists"),
]
"""The bottom: no I/O, no clock, no logging. A module whose docstring says "Pure." is held to it as well."""
PURE_MAY_USE = {
    *("__future__", "abc", "binascii", "bisect", "collections", "collections.abc", "copy", "dataclasses", "enum"),
    *("fnmatch", "functools", "hashlib", "itertools", "json", "math", "operator", "re", "string", "struct", "typing"),
    *("base64", "http", "ipaddress", "urllib.parse", "msgpack", "orjson", "websockets.speedups", "websockets.frames"),
}
PURE_EXCEPTIONS = {
    "broker.base": {"asyncio"},  # the type of a Future
    "broker.redis.address": {"ssl", "redis.asyncio.connection"},  # says itself: but for certificate files
}
COMPOSITION_ROOTS = {"server.app", "server.console", "server.settings"}
"""Who may choose a broker (``broker_from_url``, ``BrokerOptions``). All others know its interface and its numbers."""
BROKER_INTERFACE = {"broker.base", "broker.follower", "broker.stats"}


class Import(NamedTuple):
    module: str
    types_only: bool
    """Inside ``if TYPE_CHECKING``: no arrow at run time."""


def sources(folder: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in path.parts)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for folder in OURS for path in sources(folder)}


def imports_of(path: Path) -> list[Import]:
    """Wherever they stand. ``from server import frames`` is an import of ``server.frames``."""
    found: list[Import] = []

    def walk(node: ast.AST, types_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, types_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(Import(full if full in MODULES else node.module, types_only))
        inner = types_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            walk(child, inner)

    walk(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def imported(path: Path, *, types_too: bool = True) -> set[str]:
    return {each.module for each in imports_of(path) if types_too or not each.types_only}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def says_it_is_pure(path: Path) -> bool:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " Pure." in " " + docstring or " Pure, " in docstring


def test_the_walk_finds_what_it_should() -> None:
    assert {"broker.base", "server.hub", "server.fastlane", "server.sync"} <= MODULES.keys()
    assert "server.app" in imported(MODULES["server.cli.serving"]), "imports inside functions count"
    assert "server.frames" in imported(MODULES["server.connection"]), "from server import frames"
    assert says_it_is_pure(MODULES["server.quantities"]) and not says_it_is_pure(MODULES["server.hub"])


@pytest.mark.parametrize("module", [name for name in MODULES if is_within(name, "broker")])
def test_the_broker_knows_nothing_of_the_node(module: str) -> None:
    foreign = ("server", "starlette", "uvicorn", "websockets", "prometheus_client", "pydantic", "typer")
    assert not [name for name in imported(MODULES[module]) if name.startswith(foreign)]


def test_the_interface_of_the_broker_needs_only_the_standard_library_and_the_plain_numbers() -> None:
    names = imported(MODULES["broker.base"]) | imported(MODULES["broker.stats"])
    used = {name.partition(".")[0] for name in names if not name.startswith("broker.stats")}
    assert used <= sys.stdlib_module_names


@pytest.mark.parametrize("module", sorted({*PURE, *(name for name, path in MODULES.items() if says_it_is_pure(path))}))
def test_pure_modules_have_no_io_no_clock_and_no_logging(module: str) -> None:
    pure = {*PURE, *(name for name, path in MODULES.items() if says_it_is_pure(path))}
    allowed = PURE_MAY_USE | pure | PURE_EXCEPTIONS.get(module, set())
    assert imported(MODULES[module], types_too=False) <= allowed


@pytest.mark.parametrize("module", [name for name in MODULES if is_within(name, "server")])
def test_the_node_knows_only_the_interface_of_the_broker(module: str) -> None:
    allowed = BROKER_INTERFACE | ({"broker"} if module in COMPOSITION_ROOTS else set())
    assert {name for name in imported(MODULES[module]) if is_within(name, "broker")} <= allowed


def test_only_the_check_before_the_start_talks_to_redis_itself() -> None:
    users = {name for name, path in MODULES.items() if any(is_within(used, "redis") for used in imported(path))}
    assert {name for name in users if is_within(name, "server")} <= {"server.preflight"}


def test_only_the_fast_lane_touches_the_insides_of_uvicorn() -> None:
    """server/serve.py may use what uvicorn offers to everybody: ``import uvicorn``."""
    for name, path in MODULES.items():
        inside = {used for used in imported(path) if used.startswith("uvicorn.")}
        assert not inside or name == "server.uvicorn_http", (name, inside)
        assert "uvicorn" not in imported(path) or name == "server.serve", name


@pytest.mark.parametrize("package", OURS)
def test_arrows_point_downward_only(package: str) -> None:
    """Seen from any module, no chain of imports leads back to it."""
    arrows = {
        name: {used for used in imported(path, types_too=False) if used in MODULES and used != package}
        for name, path in MODULES.items()
        if is_within(name, package)
    }
    done: set[str] = set()

    def follow(name: str, chain: list[str]) -> None:
        assert name not in chain, "a circle: " + " -> ".join([*chain, name])
        if name in done:
            return
        for used in sorted(arrows.get(name, ())):
            follow(used, [*chain, name])
        done.add(name)

    for name in arrows:
        follow(name, [])


def test_the_hub_and_what_is_below_do_not_know_what_is_above() -> None:
    above = {"server.app", "server.endpoints", "server.serve", "server.cli", "server.console", "server.preflight"}
    above |= {"server.application", "server.admission", "server.fastlane", "server.uvicorn_http"}
    below = {"server.hub", "server.requests", "server.rooms", "server.connection", "server.registry", "server.metrics"}
    below |= {"server.cluster", "server.upkeep", "server.feed", "server.presence", "server.receipts"}
    for name in below:
        used = imported(MODULES[name])
        assert not used & above and not any(is_within(each, "server.handlers") for each in used), name


@pytest.mark.parametrize("folder", ["deploy", "loadtests", "clients"])
def test_what_stands_beside_the_node_imports_neither_package(folder: str) -> None:
    for path in sources(folder):
        used = {name.partition(".")[0] for name in imported(path)}
        assert not used & {*OURS, "roomcast"}, path
