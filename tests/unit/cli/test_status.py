"""`mcp-manifold status` against HTTP servers: requests, output and exit codes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from mcp_manifold.cli import cli
from mcp_manifold.cli.instances import Report, drawn
from mcp_manifold.core.status import ServerStatus, described

NOTES = described(
    ServerStatus("notes", "ready", "stdio", "handshake", tools=2, moved="2026-01-31T11:00:01.250Z", latency=0.0021)
)
SLOW = described(ServerStatus("slow", "degraded", "http", "modern", tools=1, last_error="no answer to 3 probes"))
GONE = described(ServerStatus("gone", "backing off", "http", last_error="refused \x1b[2J", next_try=1.54))
OFF = described(ServerStatus("off", "disabled"))


@dataclass
class Instance:
    """An HTTP server that gives the same answer to every request, and records the requests."""

    code: int = 200
    body: bytes = b""
    location: str = ""
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    @classmethod
    def of(cls, *servers: Any, **more: Any) -> "Instance":
        return cls(body=json.dumps({"servers": servers}).encode(), **more)

    def run(self, *args: str, text: str = "") -> Result:
        with self.listening():
            return CliRunner().invoke(cli, ["status", "--url", self.url, *args], input=text)

    @contextmanager
    def listening(self) -> Iterator[None]:
        instance = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                instance.asked.append((self.path, self.headers["authorization"]))
                self.send_response(instance.code)
                self.send_header("content-length", str(len(instance.body)))
                if instance.location:
                    self.send_header("location", instance.location)
                self.end_headers()
                self.wfile.write(instance.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def test_healthy_servers_are_a_table_and_exit_code_0() -> None:
    result = Instance.of(NOTES, OFF).run()
    assert (result.exit_code, result.stdout) == (
        0,
        "server  state     since                     latency  transport          tools\n"
        "notes   ready     2026-01-31T11:00:01.250Z  2.1 ms   stdio (handshake)  2\n"
        "off     disabled                                                        0\n",
    )
    assert (Instance.of().run().exit_code, Instance.of().run().stdout) == (0, "")


@pytest.mark.parametrize("server", [SLOW, GONE])
def test_an_unhealthy_server_is_exit_code_1_with_its_error(server: dict[str, object]) -> None:
    result = Instance.of(NOTES, server).run()
    assert (result.exit_code, result.stdout.splitlines()[-1].split()[0]) == (1, f"{server['name']}:")


def test_text_from_an_instance_cannot_drive_the_terminal() -> None:
    result = Instance.of(GONE, {**NOTES, "name": "a\x1bb", "tools": "\x07", "since": ["\x1b"]}).run()
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert result.stdout.splitlines()[-1] == "gone: refused \\x1b[2J; next attempt in 1.5 s"


def test_json_is_the_response_of_the_instance() -> None:
    result = Instance.of(NOTES, GONE).run("--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"servers": [NOTES, GONE]})


def test_the_status_page_is_requested_with_the_token() -> None:
    instance = Instance.of(NOTES)
    with instance.listening():
        runner = CliRunner()
        assert runner.invoke(cli, ["status", "--url", f"{instance.url}/tools/"]).exit_code == 0
        assert runner.invoke(cli, ["status", "--url", instance.url, "--token", "t0ken"]).exit_code == 0
        assert runner.invoke(cli, ["status", "--url", instance.url, "--token", "-"], input="t1\n").exit_code == 0
    asked = [("/health/servers", f"Bearer {token}") for token in ("t0ken", "t1")]
    assert instance.asked == [("/tools/health/servers", None), *asked]


@pytest.mark.parametrize(
    ("instance", "args", "reason"),
    [
        (Instance(code=401), (), "requires a token; pass one with --token"),
        (Instance(code=401), ("--token", "hunter2"), "refused the token"),
        (Instance(code=404, body=b"{}"), (), "is not a page of mcp-manifold"),
        *(
            (Instance(body=body), (), "is not a page of mcp-manifold")
            for body in (b"<html>", b"[]", b'{"servers":{}}', b'{"servers":[1]}', b"[" * 100_000)
        ),
    ],
    ids=range(8),
)
def test_an_invalid_response_exits_with_1(instance: Instance, args: tuple[str, ...], reason: str) -> None:
    result = instance.run(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert reason in result.stderr
    assert "hunter2" not in result.stderr


def test_a_redirect_or_a_proxy_of_the_environment_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Instance.of(NOTES)
    with other.listening():
        redirected = Instance(code=302, location=f"{other.url}/health/servers").run("--token", "hunter2")
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        direct = Instance.of(NOTES).run("--token", "hunter2")
    assert (redirected.exit_code, direct.exit_code, other.asked) == (1, 0, [])


def test_an_unreachable_instance_is_an_error_with_exit_code_1() -> None:
    instance = Instance()
    with instance.listening():
        pass
    result = CliRunner().invoke(cli, ["status", "--url", instance.url])
    assert result.exit_code == 1
    assert f"cannot reach {instance.url}/health/servers" in result.stderr
    assert "is `mcp-manifold serve` running there?" in result.stderr


@pytest.mark.parametrize(
    "args", [("--url", "ftp://a"), ("--url", "http://u:p@a"), ("--url", "http://["), ("--token", "a b")]
)
def test_an_invalid_url_or_token_is_exit_code_2(args: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, ["status", *args]).exit_code == 2


@pytest.mark.parametrize(
    ("report", "shown"),
    [
        (Report((NOTES, GONE)), ("\x1b[32mready", "\x1b[31mbacking off", "refused \\x1b[2J")),
        (Report(problem="cannot reach it \x1b"), ("cannot reach it \\x1b",)),
    ],
)
def test_a_terminal_gets_a_coloured_table_or_the_problem(report: Report, shown: tuple[str, ...]) -> None:
    console = Console(force_terminal=True, width=120, color_system="truecolor")
    with console.capture() as capture:
        console.print(drawn(report))
    for text in shown:
        assert text in capture.get()
