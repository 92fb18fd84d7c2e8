"""No free file descriptor during the start: a message, never a traceback."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from mcp_manifold.cli.exits import is_out_of_files
from tests.peers import BOUND

pytestmark = pytest.mark.anyio

LIMITED = "import resource, os, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)); "
RUN = f"{LIMITED}os.execv(sys.executable, [sys.executable, '-m', 'mcp_manifold', *sys.argv[2:]])"


@pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors of Linux")
@pytest.mark.parametrize("command", [["list"], ["serve", "--port", "0"]], ids=lambda it: it[0])
@pytest.mark.parametrize("files", [10, 13, 16, 19])
async def test_too_few_descriptors_are_told_of_in_words(files: int, command: list[str], tmp_path: Path) -> None:
    servers = {"pipe": {"command": "cat"}, "web": {"url": "http://127.0.0.1:9/mcp"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers, "manifold": {"remember": False}}))
    args = [sys.executable, "-c", RUN, str(files), *command, "-c", str(tmp_path / "mcp.json")]
    wait = [] if command[0] == "serve" else ["--wait", "1"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it opens files
    child = await asyncio.create_subprocess_exec(*args, *wait, stdout=-1, stderr=-2, env=environ)
    assert child.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(BOUND):
            while line := await child.stdout.readline():
                said += line
                if command[0] == "serve" and b"too many open files" in line.lower():
                    child.terminate()
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    assert b"Traceback" not in said, said.decode()
    assert b"too many open files" in said.lower(), said.decode()


def test_the_error_is_found_behind_others() -> None:
    behind = RuntimeError("this event loop is already running")
    assert not is_out_of_files(behind)
    behind.__context__ = OSError(24, "Too many open files")
    assert is_out_of_files(behind)
    assert is_out_of_files(ExceptionGroup("x", [behind]))
    assert not is_out_of_files(OSError(2, "No such file"))
