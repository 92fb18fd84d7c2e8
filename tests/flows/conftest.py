"""Asserted after every test here: the product logged no error."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_fault_of_our_own(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An error in the log is a fault of the product: what others do wrong is a warning at most."""
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    errors = [each for each in records if each.levelno >= logging.ERROR and each.name.startswith("mcp_manifold")]
    assert not [(each.name, each.getMessage(), str(each.exc_info)) for each in errors]
