"""Fixtures every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The project runs on asyncio (its hot path is asyncio's); trio is not a target."""
    return "asyncio"
