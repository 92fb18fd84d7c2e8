"""The program as a process: its imports, real servers, closed pipes and interrupts."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.processes import ROOT, stop

PROGRAM = [sys.executable, "-m", "mcp_manifold"]
BOUND = 30


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *args], capture_output=True, text=True, timeout=BOUND, check=False)


@contextmanager
def started(*args: str) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([*PROGRAM, *args], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        stop(process, grace=0)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    code = (
        "import sys; from mcp_manifold.cli import cli\n"
        f"try: cli(['{option}'])\n"
        "except SystemExit: pass\n"
        "heavy = {'mcp', 'pydantic', 'anyio', 'msgspec', 'starlette', 'uvicorn', 'uvloop', 'httpx2'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_check_and_call_reach_real_servers(tmp_path: Path) -> None:
    arguments = ["-m", "tests.peers.stdio_main", "--script", "echo"]
    real = {"command": sys.executable, "args": arguments, "cwd": str(ROOT)}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"real": real, "gone": {"command": "no-such-program"}}}))
    result = run("check", "--live", "--json", "-c", str(config))
    there, gone = json.loads(result.stdout)["servers"]
    assert (result.returncode, there["state"], there["tools"], gone["state"] == "ready") == (1, "ready", 1, False)
    assert "no-such-program" in gone["error"]
    called = run("call", "real__echo", "--arg", "text=hello", "-c", str(config), "--json")
    assert (called.returncode, json.loads(called.stdout)["content"][0]["text"]) == (0, "hello")


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("stdio",)])
def test_a_server_ends_in_order_on_a_signal_or_with_its_input(arguments: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    config.write_text('{"mcpServers": {"gone": {"command": "no-such-program"}}}')
    with started(*arguments, "-c", str(config)) as program:
        if arguments[0] == "serve":
            assert program.stdout is not None
            assert any(line.startswith("gone: not reachable") for line in program.stdout)
            program.send_signal(signal.SIGTERM)
            program.wait(BOUND)
        said, log = program.communicate(timeout=BOUND)
    assert (program.returncode, said, "no-such-program" in log) == (0, "", True)


def test_a_closed_pipe_is_not_an_error() -> None:
    with started("schema") as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""


def test_status_watches_an_unreachable_instance_until_interrupted() -> None:
    with started("status", "--url", "http://127.0.0.1:9", "--watch", "--json") as program:
        assert program.stdout is not None
        assert "cannot reach" in json.loads(program.stdout.readline())["error"]
        program.send_signal(signal.SIGINT)
        assert program.wait(BOUND) == 130
