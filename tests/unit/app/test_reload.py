"""Reloading: differences between configurations, changed files, half-written files, running instances."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_manifold.config.instances import Announced, running

from mcp_manifold.app.reload import RETRY_AFTER, Reloader
from mcp_manifold.config import (
    LimitSettings,
    ManifoldSettings,
    Reloaded,
    ServerSettings,
    Settings,
    directories,
    load,
    load_dict,
    outcome,
    plan,
    stamps,
)
from mcp_manifold.config.compare import LIVE, PRESENTATION, TREATMENT, Plan
from mcp_manifold.errors import ConfigError
from tests.fakes.clock import FakeClock, settled

BOUND = 15.0
"""Seconds any test waits for anything."""


# --- what differs (pure) --------------------------------------------------------------------------------------------


def settings(servers: dict[str, Any] | None = None, **manifold: Any) -> Settings:
    return load_dict({"mcpServers": servers or {}, "manifold": manifold}, environ={})


def names(found: Plan) -> dict[str, tuple[str, ...]]:
    """The servers of a plan by what becomes of them; what is empty is left out."""
    groups = ("added", "removed", "renewed", "adjusted", "unchanged")
    return {group: getattr(found, group) for group in groups if getattr(found, group)}


A = {"command": "a"}
CONNECTION = {
    "command": "other",
    "args": ["x"],
    "env": {"A": "1"},
    "cwd": "/tmp",
    "env_file": None,
    "connect_timeout": "1s",
    "sse_read_timeout": "1s",
    "isolation": "client",
    "era": "modern",
}
SHOWN = {
    "prefix": "p",
    "tools": {"allow": ["x"]},
    "prompts": {"block": ["x"]},
    "resources": {"block": ["x"]},
    "overrides": {"tools": {"t": {"name": "u"}}},
    "uris": "prefix",
}

TREATED = {
    "start": "lazy",
    "idle_timeout": "1m",
    "keep_alive": True,
    "breaker": {"failures": 2},
    "timeout": "1s",
    "max_timeout": 0,
    "initialize_timeout": "1s",
    "list_timeout": "1s",
    "max_concurrency": 1,
    "max_queue": 0,
    "retry": "never",
}


def test_the_same_configuration_changes_nothing() -> None:
    made = {"a": {**A, **SHOWN}, "b": {"url": "http://b/mcp", "headers": {"K": "v"}}}
    found = plan(settings(made, port=1), settings(made, port=1))
    assert names(found) == {"unchanged": ("a", "b")}
    assert (found.keys, found.fixed, found.settings) == ((), (), settings(made, port=1))


def test_servers_come_and_go() -> None:
    found = plan(settings({"a": A, "b": A}), settings({"c": A, "b": A, "d": A}))
    assert names(found) == {"added": ("c", "d"), "removed": ("a",), "unchanged": ("b",)}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, value in CONNECTION.items() if value is not None])
def test_changed_connection_settings_renew_the_server(key: str, value: object) -> None:
    found = plan(settings({"a": A}), settings({"a": {**A, key: value}}))
    assert names(found) == {"renewed": ("a",)}
    assert found.changed == ("a",)


@pytest.mark.parametrize("change", [{"url": "http://b/mcp"}, {"transport": "sse"}, {"headers": {"K": "w"}}])
def test_a_changed_url_transport_or_header_renews_the_server(change: dict[str, Any]) -> None:
    web = {"url": "http://a/mcp", "headers": {"K": "v"}}
    assert names(plan(settings({"a": web}), settings({"a": {**web, **change}}))) == {"renewed": ("a",)}


@pytest.mark.parametrize(("key", "value"), [*SHOWN.items(), *TREATED.items()])
def test_changed_presentation_or_treatment_only_adjusts_the_server(key: str, value: object) -> None:
    found = plan(settings({"a": A}), settings({"a": {**A, key: value}}))
    assert names(found) == {"adjusted": ("a",)}
    assert found.changed == ("a",)


def test_changing_both_renews_the_server() -> None:
    assert names(plan(settings({"a": A}), settings({"a": {**A, **SHOWN, "args": ["x"]}}))) == {"renewed": ("a",)}


def test_keys_in_no_group_renew_the_server() -> None:
    assert set(ServerSettings.model_fields) >= PRESENTATION
    assert set(SHOWN) <= PRESENTATION
    assert set(TREATED) == TREATMENT
    assert not {*CONNECTION, "url", "transport", "headers"} & (PRESENTATION | TREATMENT)


def test_a_disabled_server_counts_as_absent() -> None:
    on, off = settings({"a": A}), settings({"a": {**A, "disabled": True}})
    assert names(plan(on, off)) == {"removed": ("a",)}
    assert names(plan(off, on)) == {"added": ("a",)}
    assert names(plan(off, off)) == {}


def test_a_server_that_breaks_is_removed_and_named() -> None:
    old, new = settings({"a": A, "b": A}), settings({"a": {"command": "${NOWHERE}"}, "b": A})
    found = plan(old, new)
    assert names(found) == {"removed": ("a",), "unchanged": ("b",)}
    assert outcome(found, old).problems == ('server "a" cannot be used: the variable "NOWHERE" is not set',)
    assert outcome(plan(new, new), new).problems == ()


def test_settings_that_need_a_restart_stay_and_are_reported() -> None:
    old = settings(port=1, host="127.0.0.1", name="x", instructions="old")
    new = settings(port=2, host="::1", basePath="/b", name="y", instructions="new")
    found = plan(old, new)
    assert found.fixed == ("name", "host", "port", "basePath")
    assert found.keys == ("instructions",)
    assert found.settings.manifold == old.manifold.model_copy(update={"instructions": "new"})
    assert outcome(found, old).problems == tuple(
        f'"{key}" changed, which takes a restart to hold' for key in found.fixed
    )


def test_live_settings_are_settings() -> None:
    assert set(ManifoldSettings.model_fields) >= LIVE
    assert not {"host", "port", "base_path", "name"} & LIVE


def test_an_outcome_reads_as_a_sentence() -> None:
    assert str(Reloaded()) == "reloaded: nothing changed"
    assert str(Reloaded(added=("a", "b"), keys=("tokens",))) == "reloaded: added a, b; set tokens"
    assert str(Reloaded(error="f:1:2: why")) == "not reloaded, the old configuration stays: f:1:2: why"


_NAMES = st.sampled_from("abcde")
_SERVERS = st.dictionaries(
    _NAMES,
    st.fixed_dictionaries(
        {"command": st.sampled_from(["x", "y"])},
        optional={"disabled": st.booleans(), "prefix": st.sampled_from(["p", "q"])},
    ),
)


@given(_SERVERS, _SERVERS)
def test_every_server_has_one_fate(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = plan(settings(old), settings(new))
    fates = [name for group in names(found).values() for name in group]
    active = {name for each in (old, new) for name, entry in each.items() if not entry.get("disabled")}
    assert sorted(fates) == sorted(active)
    assert found.settings == settings(new)
    assert set(found.changed) == {*found.renewed, *found.adjusted}


# --- whether files changed ------------------------------------------------------------------------------------------


def test_stamps_recognise_every_kind_of_change(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    look: Callable[[], Any] = lambda: stamps([str(file)])  # noqa: E731 - said once
    seen = [look()]
    file.write_text("{}")
    seen.append(look())
    assert look() == seen[-1]
    file.write_text("{ }")
    seen.append(look())
    (tmp_path / "new").write_text("{ }")
    (tmp_path / "new").replace(file)
    seen.append(look())
    file.unlink()
    file.symlink_to(file)
    seen.append(look())
    assert [seen.index(each) for each in seen] == [0, 1, 2, 3, 0]


def test_directories_include_those_of_symlinks(tmp_path: Path) -> None:
    for name in ("conf", "v1"):
        (tmp_path / name).mkdir()
    (tmp_path / "v1" / "mcp.json").write_text("{}")
    (tmp_path / "conf" / "..data").symlink_to(tmp_path / "v1")
    (tmp_path / "conf" / "mcp.json").symlink_to("..data/mcp.json")
    found = directories([str(tmp_path / "conf" / "mcp.json"), str(tmp_path / "gone" / ".env")])
    assert found == {str(tmp_path / "conf"), str(tmp_path / "conf" / "..data")}


def test_settings_name_every_file_they_were_read_from(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(
        """{"mcpServers": {
            "a": {"command": "x", "envFile": "${DIR:-sub}/a.env"},
            "b": {"url": "http://b", "headers": {"K": "${file:key}"}},
            "c": {"command": "x", "envFile": "${NOWHERE}"}
        }}"""
    )
    found = [str(Path(each).relative_to(tmp_path)) for each in load(file, environ={}).files]
    assert found == ["mcp.json", ".env", "key", "sub/a.env"]


# --- when it is done ------------------------------------------------------------------------------------------------


@dataclass
class FakeManifold:
    """Settings to reload: the files read as `answers` say, one after the other, and then as the last."""

    config: Settings
    answers: list[Settings | Exception] = field(default_factory=list)
    applied: "asyncio.Queue[Settings]" = field(default_factory=asyncio.Queue)
    reads: int = 0
    clock: FakeClock = field(default_factory=FakeClock)

    def read(self) -> Settings:
        self.reads += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    def apply(self, settings: Settings) -> Reloaded:
        self.applied.put_nowait(settings)
        self.config = settings
        return Reloaded(unchanged=("a",))

    def reloader(self) -> Reloader:
        return Reloader(lambda: self.config, self.apply, self.read, stamps(self.config.files), clock=self.clock)

    async def next(self) -> Settings:
        return await asyncio.wait_for(self.applied.get(), BOUND)


@asynccontextmanager
async def following(manifold: FakeManifold) -> AsyncIterator[Reloader]:
    made = manifold.reloader()
    async with made.following():
        yield made


async def asked(made: Reloader, retrying: FakeClock | None = None) -> Reloaded:
    """The outcome of a requested reload; with a clock, of one that reads an invalid file twice."""
    told: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
    made.request(told.set_result)
    async with asyncio.timeout(BOUND):
        if retrying is not None:
            while not retrying.pending:  # the file is read in a thread
                await settled()
            assert not told.done()
            await retrying.advance(RETRY_AFTER)
        return await told


def of_file(file: Path, **manifold: Any) -> Settings:
    return Settings(manifold=ManifoldSettings(**manifold), files=(str(file),))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    return path


@pytest.mark.anyio
async def test_a_request_is_answered_even_if_nothing_changed(file: Path) -> None:
    made = FakeManifold(of_file(file), [of_file(file)])
    async with following(made) as it:
        assert await asked(it) == Reloaded(unchanged=("a",))
        assert await asked(it) == Reloaded(unchanged=("a",))
    assert made.applied.qsize() == 2


@pytest.mark.anyio
async def test_an_invalid_file_is_read_a_second_time_before_it_is_an_error(file: Path) -> None:
    made = FakeManifold(of_file(file), [ConfigError("half"), of_file(file)])
    async with following(made) as it:
        assert (await asked(it, made.clock)).error == ""
        made.answers = [ConfigError("half"), ConfigError("still half"), of_file(file)]
        assert (await asked(it, made.clock)).error == "still half"
        assert (await asked(it)).error == ""


@pytest.mark.anyio
async def test_a_server_that_breaks_is_read_a_second_time_as_well(file: Path) -> None:
    broken = load_dict({"mcpServers": {"a": {"command": "${NOWHERE}"}}}, environ={})
    made = FakeManifold(of_file(file), [broken, of_file(file)])
    async with following(made) as it:
        assert (await asked(it, made.clock)).error == ""
        assert (made.reads, made.config.broken) == (2, ())


@pytest.mark.anyio
async def test_an_internal_error_does_not_end_reloading(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeManifold):
        def apply(self, settings: Settings) -> Reloaded:
            if self.reads > 1:
                return super().apply(settings)
            raise RuntimeError("ours")

    made = Failing(of_file(file), [of_file(file)])
    async with following(made) as it:
        assert (await asked(it)).error == "internal error: RuntimeError"
        assert (await asked(it)).error == ""
    assert "reload failed" in caplog.text


@pytest.mark.anyio
async def test_a_request_without_a_followed_file_is_refused(file: Path) -> None:
    made = FakeManifold(of_file(file), [of_file(file)]).reloader()
    assert "nothing to reload" in (await asked(made)).error
    without_file = Reloader(lambda: of_file(file), FakeManifold(of_file(file)).apply)
    async with without_file.following():
        assert "nothing to reload" in (await asked(without_file)).error
        with pytest.raises(ConfigError, match="did not come from a file"):
            await without_file.reload()


def versions(directory: Path) -> None:
    """As a mounted ConfigMap: the file is a link through a link to a directory, and that one is replaced."""
    for each in ("v1", "v2"):
        (directory / each).mkdir()
        (directory / each / "mcp.json").write_text(each)
    (directory / "..data").symlink_to("v1")


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
    versions(file.parent)
    path = file.parent / "linked.json"
    path.symlink_to("..data/mcp.json")
    return path


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["written", "replaced", "link", "removed and back", "beside"])
async def test_a_change_is_noticed_however_it_is_made(file: Path, linked: Path, how: str) -> None:
    path = linked if how == "link" else file
    config = Settings(files=(str(path), str(path.parent / ".env")))
    made = FakeManifold(config, [config])
    async with following(made) as it:
        await asked(it)  # by now it watches
        await made.next()
        change(path, how)
        assert await made.next() is config


@pytest.mark.anyio
async def test_changes_to_other_files_are_ignored(file: Path) -> None:
    made = FakeManifold(of_file(file), [of_file(file)])
    async with following(made) as it:
        await asked(it)
        (file.parent / "other.json").write_text("x")
        os.utime(file.parent)
        await asked(it)
    assert made.reads == 2


@pytest.mark.anyio
async def test_a_change_before_following_began_is_noticed(file: Path) -> None:
    config = of_file(file)
    made = FakeManifold(config, [config])
    it = made.reloader()
    change(file, "written")
    async with it.following():
        assert await made.next() is config


@pytest.mark.anyio
async def test_without_watching_only_requests_reload(file: Path) -> None:
    made = FakeManifold(of_file(file, watch=False), [of_file(file, watch=False)])
    async with following(made) as it:
        await asked(it)
        change(file, "written")
        await asked(it)
    assert made.reads == 2


@pytest.mark.anyio
async def test_files_added_to_the_configuration_are_watched(file: Path) -> None:
    (file.parent / "sub").mkdir()
    more = Settings(files=(str(file), str(file.parent / "sub" / "a.env")))
    made = FakeManifold(of_file(file), [more])
    async with following(made) as it:
        await asked(it)
        await made.next()
        (file.parent / "sub" / "a.env").write_text("A=1")
        await made.next()


@pytest.mark.anyio
async def test_stopping_leaves_no_task(file: Path) -> None:
    before = asyncio.all_tasks()
    async with following(FakeManifold(of_file(file), [of_file(file)])) as it:
        await asked(it)
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before


# --- finding each other ---------------------------------------------------------------------------------------------


def test_an_instance_is_found_while_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    with Announced(file, notes) as note:
        (found,) = running(file, notes)
        assert (found.pid, found.is_alive, found.told()) == (os.getpid(), True, (0, {}))
        monkeypatch.chdir(tmp_path)
        assert running(Path("mcp.json"), notes) == (found,)
        assert running(tmp_path / "other.json", notes) == ()
        note.tell(3, {"error": "why"})
        assert found.told() == (3, {"error": "why"})
        assert {each.stat().st_mode & 0o777 for each in notes.iterdir()} == {0o600}
        assert notes.stat().st_mode & 0o777 == 0o700
    assert (running(file, notes), found.is_alive, list(notes.iterdir())) == ((), False, [])


def test_the_note_of_a_killed_instance_is_removed(file: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from mcp_manifold.config.instances import Announced\n"
        "Announced(*map(pathlib.Path, sys.argv[1:])).open(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "notes")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "notes").glob("*.json"))) == 1
    assert running(file, tmp_path / "notes") == ()
    assert list((tmp_path / "notes").iterdir()) == []


def test_an_unsafe_notes_directory_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "notes").symlink_to(tmp_path / "there")
    with pytest.raises(PermissionError):
        Announced(file, tmp_path / "notes").open()


def test_limits_are_live_as_a_whole() -> None:
    found = plan(settings(), settings(limits={"maxBody": 1}))
    assert (found.keys, found.settings.manifold.limits) == (("limits",), LimitSettings(max_body=1))
