"""The program as a process, with real servers."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture
def started(config: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end with the test, whatever happens."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=BOUND)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *args], capture_output=True, text=True, timeout=BOUND, check=False)


def start(*args: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*PROGRAM, *args], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


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


def test_check_live_reports_working_and_missing_servers(config: Path) -> None:
    result = run("check", "--live", "--json", "-c", str(config))
    convert, gone = json.loads(result.stdout)["servers"]
    assert (result.returncode, convert["state"], gone["state"] == "ready") == (1, "ready", False)
    assert convert["tools"] > 0
    assert "no-such-program" in gone["error"]


def test_call_reaches_a_real_tool(config: Path) -> None:
    result = run("call", "convert__list_units", "-c", str(config), "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["content"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_in_order_on_a_signal(
    config: Path, started: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = start("serve", "-c", str(config), "--port", "0")
    started.append(process)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("convert: ready"):
            break
    process.send_signal(number)
    assert process.wait(BOUND) == 0


def greet(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdin is not None
    assert process.stdout is not None
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}) + "\n")
    process.stdin.flush()
    answer: dict[str, object] = json.loads(process.stdout.readline())
    return answer


def test_stdio_speaks_only_the_protocol_on_stdout_and_ends_with_stdin(
    config: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = start("stdio", "-c", str(config))
    started.append(process)
    assert greet(process)["id"] == 1
    rest, log = process.communicate(timeout=BOUND)
    assert (process.returncode, rest) == (0, "")
    assert "no-such-program" in log


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_stdio_that_is_terminated_leaves_no_server_behind(config: Path, started: list[subprocess.Popen[str]]) -> None:
    process = start("stdio", "-c", str(config))
    started.append(process)
    greet(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write('{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}\n')
    process.stdin.flush()
    assert "convert__list_units" in process.stdout.readline()
    servers = psutil.Process(process.pid).children(recursive=True)
    assert servers
    process.terminate()
    assert process.wait(BOUND) == 0
    _, alive = psutil.wait_procs(servers, timeout=BOUND)
    assert alive == []


def test_a_closed_pipe_is_not_an_error(config: Path, started: list[subprocess.Popen[str]]) -> None:
    process = start("schema")
    started.append(process)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""


def test_status_watches_an_unreachable_instance_until_interrupted(
    started: list[subprocess.Popen[str]],
) -> None:
    process = start("status", "--url", "http://127.0.0.1:9", "--watch", "--json")
    started.append(process)
    assert process.stdout is not None
    assert "cannot reach" in json.loads(process.stdout.readline())["error"]
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND) == 130
