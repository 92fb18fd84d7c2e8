"""Stdio servers: how the child process is started, its messages and stderr, and the end of its whole process tree."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.process.command import SHELL_WAIT, StdioCommand, login_path
from mcp_manifold.backends.process.stderr_tail import LOG_RATE, TAIL_LINES, StderrTail, printable
from mcp_manifold.backends.process.stdio import EXIT_GRACE, STDIN_GRACE, StdioTransport, exit_reason, open_stdio
from mcp_manifold.errors import BackendError, BackendProtocolError, BackendUnavailable
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.peers import BOUND
from tests.peers.backend import ROOT, Script, StdioBackend, tool
from tests.unit.backends.linking import Heard, eventually, new_link, raw, within

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
NOTE = """note() { printf '{"jsonrpc":"2.0","method":"said","params":{"text":"%s"}}\\n' "$1"; }; """
BIG_ANSWER = (
    'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\'; head -c 5000000 /dev/zero | tr "\\0" x; echo \'"}}\'; '
)
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
        """The reason of the link's end."""
        reason: BackendError = await within(asyncio.shield(self.link.ended))
        return reason


@asynccontextmanager
async def started(
    *argv: str,
    limit: int = 1 << 26,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[Child]:
    heard = Heard()
    link, tail = new_link(heard), StderrTail("notes")
    command = StdioCommand(argv[0], argv[1:], env or ENV, cwd)
    transport = await open_stdio(link, command, tail=tail, limit=limit, clock=clock)
    link.attach(transport)
    try:
        yield Child(link, transport, tail, heard)
    finally:
        await closed(transport, clock)


def shell(script: str, *args: str, **options: Any) -> AbstractAsyncContextManager[Child]:
    return started("sh", "-c", NOTE + ANSWER + script, "sh", *args, **options)


async def failure(asked: "asyncio.Task[Payload]") -> BackendError:
    with pytest.raises(BackendError) as caught:
        await within(asked)
    return caught.value


# --- starting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "cwd", "message"),
    [
        ("no-such-command", None, "the command 'no-such-command' was not found on PATH: install it, or give its full"),
        ("echo hi; id", None, "the command 'echo hi; id' was not found on PATH"),
        ("sh", "/no/such/folder", "working directory '/no/such/folder' does not exist"),
        ("{broken}", None, "could not be started: "),
    ],
)
async def test_a_command_that_cannot_be_started_is_refused_with_the_reason(
    tmp_path: Path, command: str, cwd: str | None, message: str
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(BackendUnavailable) as caught:
        async with started(command.format(broken=broken), cwd=cwd):
            pass
    assert message in str(caught.value)


async def test_a_login_shell_that_hangs_times_out(tmp_path: Path) -> None:
    hanging, clock = tmp_path / "shell", FakeClock()
    hanging.write_text("#!/bin/sh\nexec sleep 100\n")
    hanging.chmod(0o755)
    asking = asyncio.ensure_future(login_path(str(hanging), ENV, clock=clock))
    await eventually(lambda: clock.pending)
    await clock.advance(SHELL_WAIT)
    assert await within(asking) == ""


async def test_a_child_runs_in_its_working_directory(tmp_path: Path) -> None:
    async with shell('note "$PWD"; cat >/dev/null', cwd=str(tmp_path)) as child:
        assert await child.said() == str(tmp_path)


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


async def test_an_answer_that_is_not_utf8_arrives_with_replacement_characters() -> None:
    bad = 'printf \'{"jsonrpc":"2.0","id":1,"result":{"x":"\\377"}}\\n\'; '
    async with shell(f"read -r a; {bad} read -r b; answer 2; cat >/dev/null") as child:
        assert bytes(await within(child.ask())).decode() == '{"x":"\N{REPLACEMENT CHARACTER}"}'
        await within(child.ask())


async def test_an_answer_over_the_limit_fails_its_own_call_only() -> None:
    async with shell(f"read -r a; read -r b; {BIG_ANSWER} answer 2; cat >/dev/null", limit=1 << 20) as child:
        first, second = child.ask(), child.ask()
        assert isinstance(await failure(first), BackendProtocolError)
        assert bytes(await within(second)) == b"{}"


# --- stderr ---------------------------------------------------------------------------------------------------------


def test_the_tail_of_stderr_is_bounded_and_has_no_control_characters() -> None:
    tail = StderrTail("notes")
    tail.fed(b"\x1b[31mred\x07 alert\r\n\xff\n\n   \n", 0.0)
    assert tail.lines() == ("[31mred  alert", "\N{REPLACEMENT CHARACTER}")
    tail.fed(b"x" * 100_000 + b"\n", 0.0)
    for number in range(1000):
        tail.fed(b"line %d\n" % number, 0.0)
    assert len(tail.lines()) == TAIL_LINES
    assert tail.summary() == "last line of stderr: line 999"


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


def test_an_exit_reason_names_the_signal() -> None:
    tail = StderrTail("notes")
    assert exit_reason(-9, tail) == "the server was killed by SIGKILL"
    assert exit_reason(-250, tail) == "the server exited with status -250"
    assert exit_reason(0, tail) == "the server exited with status 0"
    tail.fed(b"out of memory\n", 0.0)
    assert exit_reason(-9, tail) == "the server was killed by SIGKILL; last line of stderr: out of memory"


async def test_a_large_answer_just_before_the_exit_arrives() -> None:
    async with shell(f"read -r a; {BIG_ANSWER} echo bye >&2; exit 4") as child:
        assert len(bytes(await within(child.ask()))) == 5_000_008
        assert (await child.end()).message == "the server exited with status 4; last line of stderr: bye"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'KEY is not set' >&2; exit 3", "the server exited with status 3; last line of stderr: KEY is not set"),
        ("exec >&-; exec cat >/dev/null", "the server closed its stdout"),
        ("exec <&-; exec sleep 100", "the server closed its stdin"),
        ("kill -9 $$", "the server was killed by SIGKILL"),
    ],
    ids=["exit", "stdout closed", "stdin closed", "killed"],
)
async def test_the_end_of_a_server_ends_the_link_with_the_reason(script: str, reason: str) -> None:
    async with shell(script) as child:
        assert (await child.end()).message == reason
        assert isinstance(await failure(child.ask()), BackendUnavailable)


async def test_a_server_that_ends_with_its_stdin_gets_no_signal(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "script",
    [
        'trap "" TERM; sleep 100 & note "$!"; while :; do wait; done',
        '(trap "" TERM; sleep 100) </dev/null & note "$!"; cat >/dev/null',
    ],
    ids=["server", "grandchild"],
)
async def test_r26_a_process_that_ignores_sigterm_gets_sigkill(script: str) -> None:
    clock = FakeClock()
    async with shell(script, clock=clock) as child:
        ended = ending_of(int(await child.said()))
    await eventually(lambda: not psutil.pid_exists(child.transport.pid))
    await within(ended)


async def test_r26_grandchildren_of_a_crashed_server_go_too() -> None:
    clock = FakeClock()
    async with shell('sleep 100 </dev/null & note "$!"; read -r line; exit 1', clock=clock) as child:
        ended = ending_of(int(await child.said()))
        child.link.notify("crash")
        await eventually(lambda: clock.pending)  # the grandchild keeps the pipes open
        await clock.advance(EXIT_GRACE)
        assert (await child.end()).message == "the server exited with status 1"
    await within(ended)


async def test_closing_fails_requests_in_flight_and_leaves_no_zombie() -> None:
    async with shell("exec cat >/dev/null") as child:
        asked = child.ask()
        await asyncio.sleep(0)
    assert "the connection was closed" in str(await failure(asked))
    pid = child.transport.pid
    assert pid not in {process.pid for process in psutil.Process().children(recursive=True)}


async def closed(transport: StdioTransport, clock: FakeClock | None) -> None:
    """Close it; a clock of the test's own moves on for as long as that takes."""
    closing = asyncio.ensure_future(transport.aclose())
    async with asyncio.timeout(BOUND):
        while clock is not None and not closing.done():
            await clock.advance(0.1)
        await closing


def ending_of(pid: int) -> "asyncio.Future[None]":
    """Done when the process has ended, even if it is not our child."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    handle = os.pidfd_open(pid)

    def seen() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        ended.set_result(None)

    loop.add_reader(handle, seen)
    return ended
