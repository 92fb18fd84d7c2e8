"""Every example server as a program: it ends with its input or an interrupt, and writes only messages to stdout."""

import signal
from pathlib import Path

import pytest

from tests.examples.running import INITIALIZE, process_of, receive, send
from tests.peers import BOUND

SERVERS = {"notes": "serving the notes in ", "convert": "units, over stdio", "slow-jobs": ""}
"""By name: what the server logs."""


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_a_server_ends_in_order(name: str, number: signal.Signals | None, tmp_path: Path) -> None:
    arguments = ["--dir", str(tmp_path)] if name == "notes" else []
    with process_of(f"{name.replace('-', '_')}.py", *arguments) as process:
        send(process, INITIALIZE)
        greeting = receive(process)["result"]
        assert greeting["serverInfo"]["name"] == name
        assert name != "notes" or greeting["capabilities"]["resources"] == {"subscribe": True, "listChanged": True}
        if number is not None:
            process.send_signal(number)
            process.wait(timeout=BOUND)  # with its input open
        rest, logged = process.communicate(timeout=BOUND)
    assert (process.returncode, rest) == (0 if number is None else -number, "")
    assert SERVERS[name] in logged
    assert "Traceback" not in logged
