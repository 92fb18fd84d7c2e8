"""What a program that is up and running tells the garbage collector."""

import gc
from collections.abc import Iterator

import pytest

from mcp_manifold.cli.running import YOUNG, settle_memory


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_is_there_for_good_is_not_looked_at_again() -> None:
    settle_memory()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] == YOUNG
