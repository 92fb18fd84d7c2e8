"""The stderr of a server that fails: the lines that tell why are shown, once, by every command and to the client."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from mcp_manifold import Manifold
from mcp_manifold.backends.process.stderr_tail import StderrTail
from mcp_manifold.errors import BackendUnavailable
from tests.peers import BOUND

pytestmark = pytest.mark.anyio

NPM = """npm error code E404
npm error 404 Not Found - GET https://registry.npmjs.org/no-such - Not found
npm error 404
npm error 404  'no-such@*' is not in this registry.
npm error 404
npm error 404 Note that you can also install from a
npm error 404 tarball, folder, http url, or git folder.
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-12-01T15_00_00_000Z-debug-0.log
"""
OFFLINE = """npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error network request to https://registry.npmjs.org/x failed, reason: getaddrinfo ENOTFOUND registry.npmjs.org
npm error network This is a problem related to network connectivity.
npm error network In most cases you are behind a proxy or have bad network settings.
npm error network
npm error network If you are behind a proxy, please make sure that the
npm error network 'proxy' config is set properly.  See: 'npm help config'
npm notice New major version of npm available!
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log
"""
NODE = """node:internal/modules/cjs/loader:1148
  throw err;
  ^

Error: Cannot find module '/srv/index.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1145:15)
    at node:internal/main/run_main_module:30:49 {
  requireStack: []
}

Node.js v20.11.0
"""
PYTHON = """Traceback (most recent call last):
  File "/srv/server.py", line 1, in <module>
    import absent
ModuleNotFoundError: No module named 'absent'
"""
UVX = """  \N{MULTIPLICATION SIGN} No solution found when resolving tool dependencies:
  Because no-such was not found in the package registry and you require no-such, we can conclude that your
      requirements are unsatisfiable.
"""
UV_TLS = """error: Failed to fetch: `https://pypi.org/simple/x/`
  Caused by: error sending request for url (https://pypi.org/simple/x/)
  Caused by: invalid peer certificate: UnknownIssuer
"""
DOCKER = """docker: Error response from daemon: pull access denied for no/such, repository does not exist.

Run 'docker run --help' for more information
"""
SAID = {
    "npm": (NPM, "404 Not Found - GET https://registry.npmjs.org/no-such", "npm_config_registry"),
    "npm offline": (OFFLINE, "getaddrinfo ENOTFOUND registry.npmjs.org", "HTTPS_PROXY"),
    "node": (NODE, "Error: Cannot find module '/srv/index.js'", ""),
    "python": (PYTHON, "ModuleNotFoundError: No module named 'absent'", ""),
    "uvx": (UVX, "no-such was not found in the package registry", "UV_INDEX"),
    "uv and TLS": (UV_TLS, "invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
    "docker": (DOCKER, "Error response from daemon: pull access denied", ""),
    "plain": ("starting\nAPI_KEY is not set\n", "last line of stderr: API_KEY is not set", ""),
    "usage": ("usage: x [-h]\nx: error: the following arguments are required: FILE\n", "required: FILE", ""),
    "chatter only": ("Node.js v20.11.0\n", "Node.js v20.11.0", ""),
}


@pytest.mark.parametrize("what", SAID)
def test_the_lines_that_tell_why_are_chosen_and_hint_at_what_is_missing(what: str) -> None:
    written, words, hint = SAID[what]
    tail = StderrTail("notes")
    tail.fed(written.encode(), 0.0)
    assert words in tail.summary()
    assert hint in tail.summary()
    assert bool(hint) == ("where mcp-manifold is started" in tail.summary())
    assert tail.summary().count(" | ") <= 1
    assert "complete log" not in tail.summary() + "".join(tail.lines())


def test_a_long_line_is_cut_and_the_lines_of_another_process_are_forgotten_and_not_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tail = StderrTail("notes")
    with caplog.at_level("INFO"):
        for _ in range(3):
            tail.began()
            assert tail.lines() == ()
            tail.fed(b"error: " + b"x" * 4000 + b"\n", 0.0)
    assert len(tail.summary()) < 400
    assert len(caplog.records) == 1


def configuration(directory: Path, written: str) -> Path:
    (directory / "said").write_text(written)
    server = {"command": "sh", "args": ["-c", f"cat '{directory / 'said'}' >&2; exit 1"]}
    (directory / "mcp.json").write_text(json.dumps({"mcpServers": {"bad": server}, "manifold": {"remember": False}}))
    return directory / "mcp.json"


@pytest.mark.parametrize(
    "command",
    [["list"], ["check", "--live"], ["call", "bad__any"], ["read", "x://y"], ["prompt", "bad__any"]],
    ids=lambda command: command[0],
)
async def test_every_command_shows_them_once(command: list[str], tmp_path: Path) -> None:
    config = configuration(tmp_path, NPM)
    args = [sys.executable, "-m", "mcp_manifold", *command, "-c", str(config)]
    child = await asyncio.create_subprocess_exec(*args, stdout=-1, stderr=-2)
    async with asyncio.timeout(BOUND):
        out, _ = await child.communicate()
    assert out.count(b"404 Not Found - GET") == 1, out.decode()
    assert b"A complete log" not in out


async def test_the_client_is_told_what_a_server_said_that_does_not_greet() -> None:
    said = "open https://login.test/device to sign in"
    server = {"command": "sh", "args": ["-c", f"echo '{said}' >&2; sleep 100"], "timeout": "2s"}
    async with Manifold.from_config({"mcpServers": {"slow": server}, "manifold": {"remember": False}}) as manifold:
        with pytest.raises(BackendUnavailable, match=said):
            await manifold.call_tool("slow__any")


async def test_a_last_line_without_an_end_counts() -> None:
    server = {"command": "sh", "args": ["-c", "printf 'KEY is not set' >&2; exit 3"]}
    async with Manifold.from_config({"mcpServers": {"bad": server}, "manifold": {"remember": False}}) as manifold:
        with pytest.raises(BackendUnavailable, match="status 3; last line of stderr: KEY is not set"):
            await manifold.call_tool("bad__any")
