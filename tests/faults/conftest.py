"""Asserted after every test here: the product and its libraries logged no error."""

import gc
import logging
from collections.abc import Iterator

import pytest

WATCHED = ("mcp_manifold", "asyncio", "uvicorn")


@pytest.fixture(autouse=True)
def no_fault_of_our_own(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """I3. An error in the log is a fault of the product: what others do wrong is a warning at most."""
    yield
    gc.collect()  # an exception that was never retrieved is logged when its task is collected
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.get_records("teardown")]
    found = [each for each in records if each.name.partition(".")[0] in WATCHED]
    errors = [each for each in found if each.levelno >= logging.ERROR or each.exc_info]
    assert not [(each.name, each.getMessage(), str(each.exc_info)) for each in errors]
