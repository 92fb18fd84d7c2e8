"""Fixtures every test may use."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The project runs on asyncio (its hot path is asyncio's); trio is not a target."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that are started leave their notes in a directory of the tests', not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
