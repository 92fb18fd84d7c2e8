"""A server as a child process: started without a shell or our secrets, believed nothing, ended to its last member."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.process.command import SHELL_WAIT, StdioCommand, login_path
from mcp_manifold.backends.process.stderr_tail import LOG_RATE, TAIL_LINES, StderrTail, printable
from mcp_manifold.backends.process.stdio import EXIT_GRACE, STDIN_GRACE, StdioTransport, exit_reason, open_stdio
from mcp_manifold.errors import BackendError, BackendLost, BackendProtocolError, BackendUnavailable
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.peers.backend import ROOT, Script, StdioBackend, tool
from tests.unit.backends.linking import Heard, eventually, new_link, raw, within

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
NOTE = """note() { printf '{"jsonrpc":"2.0","method":"said","params":{"text":"%s"}}\\n' "$1"; }; """
ANSWER = """answer() { printf '{"jsonrpc":"2.0","id":%s,"result":{}}\\n' "$1"; }; """


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Processes and pipes are the loop's own business: both loops that are served on have to get them right."""
    return "asyncio", {"use_uvloop": request.param}


class Child:
    """A started shell script, its link and what it said."""

    def __init__(self, link: Link, transport: StdioTransport, tail: StderrTail, heard: Heard) -> None:
        self.link = link
        self.transport = transport
        self.tail = tail
        self.heard = heard

    def __repr__(self) -> str:
        return f"<Child {self.transport!r}>"

    async def said(self) -> str:
        found: str = msgspec.json.decode(await self.heard.first("said"))["text"]
        return found

    def ask(self, **params: object) -> "asyncio.Task[Payload]":
        return asyncio.ensure_future(self.link.request("x", raw(**params), timeout=30))

    async def end(self) -> BackendError:
        """The reason of the link's end, which must be near."""
        reason: BackendError = await within(asyncio.shield(self.link.ended), 3)
        return reason


@asynccontextmanager
async def started(
    *argv: str, limit: int = 1 << 26, env: dict[str, str] | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Child]:
    heard = Heard()
    link, tail = new_link(heard), StderrTail("notes")
    transport = await open_stdio(link, StdioCommand(argv[0], argv[1:], env or ENV), tail=tail, limit=limit, clock=clock)
    link.attach(transport)
    try:
        yield Child(link, transport, tail, heard)
    finally:
        await closed(transport, clock)


def shell(
    script: str, *args: str, limit: int = 1 << 26, clock: FakeClock | None = None
) -> AbstractAsyncContextManager[Child]:
    return started("sh", "-c", NOTE + ANSWER + script, "sh", *args, limit=limit, clock=clock)


async def failure(asked: "asyncio.Task[Payload]") -> BackendError:
    with pytest.raises(BackendError) as caught:
        await within(asked)
    return caught.value


# --- starting ----------------------------------------------------------------------------------------------------


async def refusal(command: StdioCommand) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        await open_stdio(new_link(), command, tail=StderrTail("notes"), limit=1000)
    return str(caught.value)


async def test_a_missing_command_is_told_with_what_to_do() -> None:
    told = await refusal(StdioCommand("no-such-command-here", (), ENV))
    assert told == (
        "notes: the command 'no-such-command-here' was not found on PATH: install it, or give its full path"
    )


async def test_a_missing_working_directory_is_told_as_such() -> None:
    told = await refusal(StdioCommand("sh", (), ENV, "/no/such/folder"))
    assert told == "notes: working directory '/no/such/folder' does not exist"


async def test_a_login_shell_that_hangs_is_given_up(tmp_path: Path) -> None:
    hanging, clock = tmp_path / "shell", FakeClock()
    hanging.write_text("#!/bin/sh\nexec sleep 100\n")
    hanging.chmod(0o755)
    asking = asyncio.ensure_future(login_path(str(hanging), ENV, clock=clock))
    await eventually(lambda: clock.pending)
    await clock.advance(SHELL_WAIT)
    assert await within(asking) == ""


async def test_a_file_that_is_no_program_is_told_as_such(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    assert "could not be started: " in await refusal(StdioCommand(str(broken), (), ENV))


async def test_it_runs_in_its_working_directory(tmp_path: Path) -> None:
    heard = Heard()
    link = new_link(heard)
    command = StdioCommand("sh", ("-c", NOTE + 'note "$PWD"; cat >/dev/null'), ENV, str(tmp_path))
    transport = await open_stdio(link, command, tail=StderrTail("notes"), limit=1000)
    assert msgspec.json.decode(await heard.first("said"))["text"] == str(tmp_path)
    await transport.aclose()


async def test_s37_its_environment_is_what_it_was_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SECRET", "hush")
    async with started("env", env={"PATH": ENV["PATH"], "MINE": "1"}) as child:
        await child.end()
    async with shell('note "$(env | cut -d= -f1 | sort | tr "\\n" " ")"; cat >/dev/null') as child:
        assert set((await child.said()).split()) <= {"PATH", "PYTHONPATH", "PWD", "OLDPWD", "SHLVL", "_"}


async def test_s38_it_inherits_no_descriptor_but_its_three() -> None:
    ours = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(ours, True)
    try:
        async with shell('note "$(ls /proc/self/fd | tr "\\n" " ")"; cat >/dev/null') as child:
            found = {int(number) for number in (await child.said()).split()}
    finally:
        os.close(ours)
    assert ours not in found
    assert found == {0, 1, 2, 3}  # the last is the folder that is being listed


async def test_s39_arguments_never_meet_a_shell() -> None:
    nasty = "$(id); `id` && * | ~ #"
    async with shell('note "$1"; cat >/dev/null', nasty) as child:
        assert await child.said() == nasty


async def test_s39_a_command_line_is_not_a_command() -> None:
    assert "was not found on PATH" in await refusal(StdioCommand("echo hi; id", (), ENV))


async def test_nothing_of_a_command_that_may_be_secret_is_in_its_repr() -> None:
    assert repr(StdioCommand("npx", ("--token", "hush"), {"KEY": "hush"})) == "<StdioCommand npx args=2>"


# --- messages -------------------------------------------------------------------------------------------------------


async def test_a_request_is_one_line_and_so_is_its_answer() -> None:
    async with shell("read -r line; answer 1; cat >/dev/null") as child:
        assert bytes(await within(child.ask())) == b"{}"


async def test_line_breaks_inside_a_message_do_not_end_it() -> None:
    quiet = Script(require_initialize=False, tools=(tool("echo"),))
    async with StdioBackend(quiet) as backend, started(*backend.argv) as child:
        broken = Payload(b'{\n"text":\r\n"x"\r}')
        params = {"name": Payload(b'"echo"'), "arguments": broken}
        result = await within(child.link.request("tools/call", params, timeout=30))
        assert b'"text":"x"' in bytes(result)
        assert [item.method for item in backend.requests] == ["tools/call"]
        assert backend.recorder.of("garbage") == []


def test_a_message_is_always_one_line() -> None:
    assert wire.one_line(b'{\r\n"a":\n1}') == b'{  "a": 1}'
    assert wire.one_line(b"{}") == b"{}"


async def test_garbage_and_banners_on_stdout_hurt_nobody() -> None:
    noise = "echo Starting server...; printf '\\377\\376\\n\\n[]\\n'; "
    async with shell(noise + "read -r line; echo '{\"id\":7'; answer 1; cat >/dev/null") as child:
        await within(child.ask())
        assert not child.link.ended.done()


async def test_an_answer_that_is_not_utf8_fails_its_own_call() -> None:
    bad = 'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\\377"}}\\n\'; '
    async with shell(f"read -r a; {bad} read -r b; answer 2; cat >/dev/null") as child:
        assert "not valid UTF-8" in str(await failure(child.ask()))
        await within(child.ask())


async def test_an_answer_over_the_limit_costs_only_its_caller() -> None:
    big = 'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\'; head -c 5000000 /dev/zero | tr "\\0" x; echo \'"}}\'; '
    async with shell(f"read -r a; read -r b; {big} answer 2; cat >/dev/null", limit=1 << 20) as child:
        first, second = child.ask(), child.ask()
        assert isinstance(await failure(first), BackendProtocolError)
        assert bytes(await within(second)) == b"{}"


async def test_an_answer_below_the_limit_arrives_however_large() -> None:
    big = 'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\'; head -c 5000000 /dev/zero | tr "\\0" x; echo \'"}}\'; '
    async with shell(f"read -r a; {big} cat >/dev/null") as child:
        assert len(bytes(await within(child.ask()))) == 5_000_008


async def test_a_server_that_does_not_read_costs_no_memory_without_end() -> None:
    async with shell("exec sleep 100") as child:
        child.link.write_limit = 100_000
        asked = [child.ask(text="x" * 100_000) for _ in range(10)]
        assert "does not read its stdin" in str(await failure(asked[-1]))
        assert not child.link.ended.done()
        child.link.lost(BackendLost("notes", "over"))
        await asyncio.gather(*asked, return_exceptions=True)


# --- stderr ---------------------------------------------------------------------------------------------------------


async def test_r13_a_flood_of_stderr_blocks_nothing() -> None:
    flood = "head -c 3000000 /dev/zero | tr '\\0' e >&2; yes flood | head -n 100000 >&2; "
    async with shell(flood + "read -r line; answer 1; cat >/dev/null") as child:
        await within(child.ask())
        assert len(child.tail.lines()) <= TAIL_LINES


def test_the_tail_of_stderr_is_bounded_and_has_no_control_characters() -> None:
    tail = StderrTail("notes")
    tail.fed(b"\x1b[31mred\x07 alert\r\n\xff\n\n   \n", 0.0)
    assert tail.lines() == ("[31mred  alert", "\N{REPLACEMENT CHARACTER}")
    tail.fed(b"x" * 100_000 + b"\n", 0.0)
    for number in range(1000):
        tail.fed(b"line %d\n" % number, 0.0)
    assert len(tail.lines()) == TAIL_LINES
    assert tail.last() == "line 999"


def test_logging_of_stderr_has_a_rate(caplog: pytest.LogCaptureFixture) -> None:
    tail = StderrTail("notes")
    with caplog.at_level("INFO"):
        tail.fed(b"flood\n" * 1000, 5.0)
        assert len(caplog.records) == LOG_RATE
        tail.fed(b"calm\n", 6.0)
    suppressed = caplog.records[-2]
    assert (suppressed.getMessage(), suppressed.__dict__["lines"]) == ("stderr lines not shown", 1000 - LOG_RATE)
    assert caplog.records[-1].getMessage() == "stderr: calm"


def test_only_what_prints_is_kept() -> None:
    assert printable("\x1b]0;title\x07ok\u202e \u2028") == "]0;title ok"


# --- the end --------------------------------------------------------------------------------------------------------


async def test_the_reason_of_an_end_is_its_status_and_its_last_line_of_stderr() -> None:
    async with shell("echo 'KEY is not set' >&2; exit 3") as child:
        assert (await child.end()).message == "the server exited with status 3; last line of stderr: KEY is not set"


def test_a_signal_is_told_by_its_name() -> None:
    tail = StderrTail("notes")
    assert exit_reason(-9, tail) == "the server was killed by SIGKILL"
    assert exit_reason(-250, tail) == "the server exited with status -250"
    assert exit_reason(0, tail) == "the server exited with status 0"
    tail.fed(b"out of memory\n", 0.0)
    assert exit_reason(-9, tail) == "the server was killed by SIGKILL; last line of stderr: out of memory"


async def test_r1_a_killed_server_fails_every_call_in_flight_with_the_reason() -> None:
    async with shell("exec cat >/dev/null") as child:
        asked = [child.ask() for _ in range(20)]
        await asyncio.sleep(0)
        os.kill(child.transport.pid, signal.SIGKILL)
        for each in asked:
            failed = await failure(each)
            assert isinstance(failed, BackendLost)
            assert "killed by SIGKILL" in str(failed)
        assert isinstance(await failure(child.ask()), BackendUnavailable)


async def test_an_answer_given_just_before_the_exit_still_counts() -> None:
    big = 'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\'; head -c 1000000 /dev/zero | tr "\\0" x; echo \'"}}\'; '
    async with shell(f"read -r a; {big} echo bye >&2; exit 4") as child:
        assert len(bytes(await within(child.ask()))) == 1_000_008
        assert (await child.end()).message == "the server exited with status 4; last line of stderr: bye"


async def test_a_server_that_closes_its_stdout_is_lost_though_it_lives() -> None:
    async with shell("exec >&-; exec cat >/dev/null") as child:
        assert "closed its stdout" in str(await child.end())


async def test_an_exit_is_noticed_though_a_grandchild_holds_stdout() -> None:
    async with shell("sleep 100 </dev/null & exit 5") as child:
        assert "exited with status 5" in str(await child.end())


async def test_a_well_behaved_server_leaves_when_its_stdin_ends(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with shell('trap "echo term > $1" TERM; note ready; cat >/dev/null; echo eof > "$1"', str(told)) as child:
        await child.said()
    assert told.read_text() == "eof\n"
    assert not psutil.pid_exists(child.transport.pid)


async def test_a_server_that_ignores_the_end_of_stdin_gets_sigterm(tmp_path: Path) -> None:
    clock, told = FakeClock(), tmp_path / "told"
    async with shell(
        'trap "echo term > $1; exit 0" TERM; note ready; sleep 100 & wait', str(told), clock=clock
    ) as child:
        await child.said()
        closing = asyncio.ensure_future(child.transport.aclose())
        await clock.advance(STDIN_GRACE)
        await eventually(told.exists)
    await within(closing)
    assert told.read_text() == "term\n"


async def test_a_server_that_ignores_sigterm_gets_sigkill() -> None:
    clock = FakeClock()
    async with shell('trap "" TERM; sleep 100 & note "$!"; while :; do wait; done', clock=clock) as child:
        ended = ending_of(int(await child.said()))
    await eventually(lambda: not psutil.pid_exists(child.transport.pid))
    await within(ended)


async def test_r26_grandchildren_go_with_their_server() -> None:
    clock = FakeClock()
    async with shell('(trap "" TERM; sleep 100) </dev/null & note "$!"; cat >/dev/null', clock=clock) as child:
        ended = ending_of(int(await child.said()))
    await within(ended)


async def test_r26_grandchildren_of_a_crashed_server_go_too() -> None:
    clock = FakeClock()
    async with shell('sleep 100 </dev/null & note "$!"; read -r line; exit 1', clock=clock) as child:
        ended = ending_of(int(await child.said()))
        child.link.notify("crash")
        await eventually(lambda: clock.pending)  # the grandchild keeps the pipes open
        await clock.advance(EXIT_GRACE)
        await child.end()
    await within(ended)


async def test_closing_fails_what_is_in_flight_and_leaves_no_zombie() -> None:
    async with shell("exec cat >/dev/null") as child:
        asked = child.ask()
        await asyncio.sleep(0)
    assert "the connection was closed" in str(await failure(asked))
    pid = child.transport.pid
    assert pid not in {process.pid for process in psutil.Process().children(recursive=True)}


async def closed(transport: StdioTransport, clock: FakeClock | None) -> None:
    """Close it; a clock of the test's own moves on for as long as that takes."""
    closing = asyncio.ensure_future(transport.aclose())
    async with asyncio.timeout(10):
        while clock is not None and not closing.done():
            await clock.advance(0.1)
        await closing


def ending_of(pid: int) -> "asyncio.Future[None]":
    """Done when that process has ended, whoever its parent is."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    handle = os.pidfd_open(pid)

    def seen() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        ended.set_result(None)

    loop.add_reader(handle, seen)
    return ended
