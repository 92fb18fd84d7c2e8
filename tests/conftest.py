"""Fixtures every test may use, and how property tests run."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "project", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("searching", parent=settings.get_profile("project"), max_examples=1000, derandomize=False)
settings.load_profile("project")
"""The same examples every time, and no deadlines, because a busy machine is no finding. Looking for new ones:
`scripts/test tests/properties --hypothesis-profile searching`."""


@pytest.fixture
def anyio_backend() -> str:
    """The project runs on asyncio (its hot path is asyncio's); trio is not a target."""
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs in the process of the tests configures logging; the next test finds it as it was."""
    root, ours = logging.getLogger(), logging.getLogger("mcp_manifold")
    before = [*root.handlers], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that are started leave their notes in a directory of the tests', not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
