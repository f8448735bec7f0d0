"""Images are built once; containers run in a network of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compose.engine import Engine, Store, skip_unless_possible
from tests.compose.images import build_stand_ins
from tests.compose.stack import Stack
from tests.support.namespaces import private_network


@pytest.fixture(scope="package")
def built() -> Iterator[Stack]:
    """All images, and an engine; nothing runs yet. They are built outside of the private network, where packages can be
    fetched."""
    skip_unless_possible()
    with Store() as store:
        with Engine(store, bridged=False) as builder:
            stack = Stack(builder, build_stand_ins(builder))
            stack.build()
        with private_network(), Engine(store, bridged=True) as engine:
            stack.engine = engine
            yield stack
