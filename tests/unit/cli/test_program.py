"""The program as a process, with real servers."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "mcp_manifold"]
BOUND = 30


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one server that works and one that does not."""
    convert = {"command": sys.executable, "args": [str(ROOT / "examples" / "convert.py")]}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"convert": convert, "gone": {"command": "no-such-program"}}}))
    return path


class Program:
    """A running program. It is killed at the end of the test."""

    def __init__(self, *args: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*PROGRAM, *args], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, message: dict[str, object]) -> str:
        """The line that answers a message."""
        self.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.stdin.flush()
        return self.stdout.readline()

    def initialize(self) -> str:
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
        return self.send({"id": 1, "method": "initialize", "params": params})


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Starts programs."""
    programs: list[Program] = []

    def started(*args: str) -> Program:
        programs.append(Program(*args))
        return programs[-1]

    yield started
    for program in programs:
        program.process.kill()
        program.process.communicate(timeout=BOUND)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *args], capture_output=True, text=True, timeout=BOUND, check=False)


@pytest.mark.parametrize(("option", "more"), [("--help", set()), ("--version", {"asyncio", "rich"})])
def test_help_and_version_import_nothing_heavy(option: str, more: set[str]) -> None:
    code = (
        "import sys; from mcp_manifold.cli import cli\n"
        f"try: cli(['{option}'])\n"
        "except SystemExit: pass\n"
        "heavy = {'mcp', 'pydantic', 'anyio', 'msgspec', 'starlette', 'uvicorn', 'uvloop', 'httpx2'}\n"
        f"heavy |= set({sorted(more)})\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_check_and_call_reach_real_servers(config: Path) -> None:
    result = run("check", "--live", "--json", "-c", str(config))
    convert, gone = json.loads(result.stdout)["servers"]
    assert (result.returncode, convert["state"], gone["state"] == "ready") == (1, "ready", False)
    assert convert["tools"] > 0
    assert "no-such-program" in gone["error"]
    called = run("call", "convert__list_units", "-c", str(config), "--json")
    assert called.returncode == 0
    assert json.loads(called.stdout)["content"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_in_order_on_a_signal(config: Path, start: Callable[..., Program], number: signal.Signals) -> None:
    program = start("serve", "-c", str(config), "--port", "0")
    for line in program.stdout:
        if line.startswith("convert: ready"):
            break
    program.process.send_signal(number)
    assert program.process.wait(BOUND) == 0


def test_stdio_writes_only_messages_to_stdout_and_ends_with_stdin(config: Path, start: Callable[..., Program]) -> None:
    program = start("stdio", "-c", str(config))
    assert json.loads(program.initialize())["id"] == 1
    rest, log = program.process.communicate(timeout=BOUND)
    assert (program.process.returncode, rest) == (0, "")
    assert "no-such-program" in log


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_stdio_that_is_terminated_leaves_no_server_behind(config: Path, start: Callable[..., Program]) -> None:
    program = start("stdio", "-c", str(config))
    program.initialize()
    assert "convert__list_units" in program.send({"id": 2, "method": "tools/list"})
    servers = psutil.Process(program.process.pid).children(recursive=True)
    assert servers
    program.process.terminate()
    assert program.process.wait(BOUND) == 0
    _, alive = psutil.wait_procs(servers, timeout=BOUND)
    assert alive == []


def test_a_closed_pipe_is_not_an_error(start: Callable[..., Program]) -> None:
    program = start("schema")
    program.stdout.close()
    assert program.process.stderr is not None
    assert program.process.stderr.read() == ""


def test_status_watches_an_unreachable_instance_until_interrupted(start: Callable[..., Program]) -> None:
    program = start("status", "--url", "http://127.0.0.1:9", "--watch", "--json")
    assert "cannot reach" in json.loads(program.stdout.readline())["error"]
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(BOUND) == 130
