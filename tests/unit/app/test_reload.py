"""The Reloader: requested reloads, changed files, half-written files."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcp_manifold.app.reload import RETRY_AFTER, Reloader
from mcp_manifold.config import READ_TIMEOUT, ManifoldSettings, Reloaded, Settings, load_dict, stamps
from mcp_manifold.errors import ConfigError
from tests.fakes.clock import FakeClock, settled

pytestmark = pytest.mark.anyio
BOUND = 15.0  # seconds any test waits for anything


@dataclass
class Scene:
    """A Reloader with fake settings: each read takes the next of `answers`, and the last one again and again."""

    config: Settings
    answers: list[Settings | Exception | None] = field(default_factory=list)  # None for a read that never ends
    applied: "asyncio.Queue[Settings]" = field(default_factory=asyncio.Queue)
    outcomes: list[Reloaded] = field(default_factory=list)  # the outcomes passed to the callback of `on_reload`
    failures: int = 0  # how many times settings cannot be put in force because of a defect
    reads: int = 0
    clock: FakeClock = field(default_factory=FakeClock)

    def begin_read(self) -> "Future[Settings]":
        self.reads += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        future: Future[Settings] = Future()
        future.set_running_or_notify_cancel()
        if isinstance(found, Exception):
            future.set_exception(found)
        elif found is not None:
            future.set_result(found)
        return future

    def apply(self, settings: Settings) -> Reloaded:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("ours")
        self.applied.put_nowait(settings)
        self.config = settings
        return Reloaded(unchanged=("a",))

    def reloader(self) -> Reloader:
        seen, file = stamps(self.config.files), Path("mcp.json")
        made = Reloader(lambda: self.config, self.apply, self.begin_read, file=file, seen=seen, clock=self.clock)
        made.on_reload(self.outcomes.append)
        return made

    async def next(self) -> Settings:
        return await asyncio.wait_for(self.applied.get(), BOUND)


@asynccontextmanager
async def following(scene: Scene) -> AsyncIterator[Reloader]:
    made = scene.reloader()
    async with made.following():
        yield made


async def requested(made: Reloader, retrying: FakeClock | None = None) -> Reloaded:
    """The outcome of a requested reload; with a clock, of one that reads an invalid file twice."""
    outcome: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
    made.request(outcome.set_result)
    async with asyncio.timeout(BOUND):
        if retrying is not None:
            while not retrying.pending:  # the files are compared in a thread
                await settled()
            assert not outcome.done()
            await retrying.advance(RETRY_AFTER)
        return await outcome


def of_file(file: Path, **manifold: Any) -> Settings:
    return Settings(manifold=ManifoldSettings(**manifold), files=(str(file),))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    return path


async def test_an_invalid_file_is_read_a_second_time_before_it_is_an_error(file: Path) -> None:
    broken = load_dict({"mcpServers": {"a": {"command": "${NOWHERE}"}}}, environ={})
    made = Scene(of_file(file), [ConfigError("half"), of_file(file)])
    async with following(made) as it:
        assert (await requested(it, made.clock)).error == ""
        made.answers = [ConfigError("half"), ConfigError("still half"), broken, of_file(file)]
        assert (await requested(it, made.clock)).error == "still half"
        assert (await requested(it, made.clock)).error == "", "a server that breaks counts as an invalid file"
        assert (made.reads, made.config.broken) == (6, ())


async def test_an_internal_error_does_not_end_reloading(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Scene(of_file(file), [of_file(file)], failures=1)
    async with following(made) as it:
        assert (await requested(it)).error == "internal error: RuntimeError"
        assert (await requested(it)).error == ""
    assert "reload failed" in caplog.text


async def test_an_error_is_logged_once_and_shown_in_the_health(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Scene(of_file(file), [ConfigError("no port"), ConfigError("no port"), of_file(file)])
    it = made.reloader()
    for _ in range(2):
        with pytest.raises(ConfigError, match="no port"):
            await it.reload()
    assert it.health == {"configuration": {"error": "no port"}}
    assert caplog.text.count("no port") == 1
    assert await it.reload() == it.last == Reloaded(unchanged=("a",))
    await settled()
    assert ([outcome.error for outcome in made.outcomes], it.health) == (["no port", "no port", ""], {})


async def test_reading_is_given_up_after_a_time_and_at_most_one_read_runs(file: Path) -> None:
    made = Scene(of_file(file), [None])
    it = made.reloader()
    for _ in range(2):
        reloading = asyncio.ensure_future(it.reload())
        await made.clock.advance(READ_TIMEOUT)
        with pytest.raises(ConfigError, match=r"mcp\.json"):
            await reloading
    assert made.reads == 1


async def test_a_request_without_a_followed_file_is_refused(file: Path) -> None:
    made = Scene(of_file(file), [of_file(file)]).reloader()
    assert "nothing to reload" in (await requested(made)).error
    without_file = Reloader(lambda: of_file(file), Scene(of_file(file)).apply)
    async with without_file.following():
        assert "nothing to reload" in (await requested(without_file)).error
        with pytest.raises(ConfigError, match="did not come from a file"):
            await without_file.reload()


def change(file: Path, how: str) -> None:
    directory = file.parent
    match how:
        case "written":
            file.write_text("{} ")
        case "replaced":
            (directory / "new").write_text("{} ")
            (directory / "new").replace(file)
        case "link":
            (directory / "..new").symlink_to("v2")
            (directory / "..new").replace(directory / "..data")
        case "removed and back":
            file.rename(directory / "mcp.json~")
            file.write_text("{} ")
        case "beside":
            (directory / ".env").write_text("A=1")


@pytest.fixture
def linked(file: Path) -> Path:
    """As a mounted ConfigMap: the file is a link through a link to a directory, and the latter link is replaced."""
    directory = file.parent
    for version in ("v1", "v2"):
        (directory / version).mkdir()
        (directory / version / "mcp.json").write_text(version)
    (directory / "..data").symlink_to("v1")
    (directory / "linked.json").symlink_to("..data/mcp.json")
    return directory / "linked.json"


@pytest.mark.parametrize("how", ["written", "replaced", "link", "removed and back", "beside"])
async def test_a_change_is_noticed_however_it_is_made(file: Path, linked: Path, how: str) -> None:
    path = linked if how == "link" else file
    config = Settings(files=(str(path), str(path.parent / ".env")))
    made = Scene(config, [config])
    async with following(made) as it:
        await requested(it)  # by now it watches
        await made.next()
        change(path, how)
        assert await made.next() is config


@pytest.mark.parametrize("watch", [True, False])
async def test_changes_to_other_files_or_of_unwatched_ones_are_ignored(file: Path, watch: bool) -> None:
    made = Scene(of_file(file, watch=watch), [of_file(file, watch=watch)])
    async with following(made) as it:
        await requested(it)
        (file.parent / "other.json").write_text("x")
        os.utime(file.parent)
        if not watch:
            change(file, "written")
        await requested(it)
    assert made.reads == 2


async def test_earlier_changes_and_files_added_to_the_configuration_are_noticed(file: Path) -> None:
    (file.parent / "sub").mkdir()
    more = Settings(files=(str(file), str(file.parent / "sub" / "a.env")))
    made = Scene(of_file(file), [more])
    it = made.reloader()
    change(file, "written")
    async with it.following():
        assert await made.next() is more
        await requested(it)
        await made.next()
        (file.parent / "sub" / "a.env").write_text("A=1")
        await made.next()
