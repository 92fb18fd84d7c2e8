"""Ready-made scripts, by name. Values only."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tests.peers.script import Act, Script, prompt, resource, template, tool


def echo() -> Script:
    """One tool that echoes."""
    return Script(name="echo", tools=(tool("echo"),))


def everything() -> Script:
    """A tool for most acts, two resources, a template and two prompts."""
    strange = ("garbage", "invalid_utf8", "wrong_id", "duplicate", "string_id", "float_id", "null_result", "no_result")
    plain = ("echo", "mirror", "hang", "late", "die", "cut", "stderr", "env", "fds", "pid", "error", "ask", "insist")
    return Script(
        name="everything",
        instructions="Use echo to hear yourself.",
        tools=(
            *(tool(name, Act(name)) for name in (*plain, *strange)),
            tool("progress", Act("progress", n=3)),
            tool("log", Act("log", n=2)),
            tool("big", Act("big", n=1_000_000)),
        ),
        resources=(resource("file:///notes.txt"), resource("https://example.test/a%20b?q=1")),
        templates=(template("db://{table}/{row}"),),
        prompts=(prompt("greet", arguments=[{"name": "who", "required": True}]), prompt("plain")),
    )


def silent_discover() -> Script:
    """As mcp 1.2.0 servers: no answer to `server/discover`, dead on the next message."""
    return Script(name="old", era="handshake", versions=("2024-11-05",), silent_discover=True, tools=(tool("echo"),))


def locking() -> Script:
    """As SDK 2.3 stdio servers: both eras, but only the first one spoken."""
    return Script(name="locking", lock_era=True, tools=(tool("echo"),))


def stubborn() -> Script:
    """Ends neither with stdin nor on SIGTERM."""
    return Script(name="stubborn", ignore_eof=True, ignore_sigterm=True, tools=(tool("echo"), tool("pid", Act("pid"))))


def stuck() -> Script:
    """Never answers `initialize` nor `server/discover` (until the gate `start` opens)."""
    start = Act("hang", text="start", then=Act("default"))
    return Script(name="stuck", on={"initialize": start, "server/discover": start}, tools=(tool("echo"),))


SCRIPTS: Final[Mapping[str, Callable[[], Script]]] = MappingProxyType(
    {make.__name__: make for make in (echo, everything, silent_discover, locking, stubborn, stuck)}
)


def named(name: str) -> Script:
    """The script of that name.

    Raises:
        KeyError: there is none.
    """
    return SCRIPTS[name]()
