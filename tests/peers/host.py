"""Acts that show or disturb the process a scripted backend lives in. Only meaningful in a child of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.peers import answers, jsontext
from tests.peers.script import Act
from tests.peers.turn import Turn


async def stderr(turn: Turn, act: Act) -> None:
    """`n` lines of `text` on stderr, blocking until somebody reads them; then an echo."""
    line = (act.text or "noise on stderr") + "\n"
    for _ in range(act.n):
        sys.stderr.write(line)
    sys.stderr.flush()
    await turn.reply(answers.echoed(turn))


async def env(turn: Turn, act: Act) -> None:
    """The environment, as JSON in the text and in `structuredContent`."""
    await _show(turn, dict(os.environ))


async def fds(turn: Turn, act: Act) -> None:
    """The open file descriptors and what they are, without those this listing itself needs."""
    listing = Path("/proc/self/fd")
    found = {name: os.readlink(listing / name) for name in os.listdir(listing) if (listing / name).is_symlink()}
    own = turn.conversation.engine.own_fds
    await _show(turn, {name: target for name, target in found.items() if int(name) not in own})


async def pid(turn: Turn, act: Act) -> None:
    """The process id, its parent and its process group."""
    await _show(turn, {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "cwd": os.getcwd()})


async def close_stdout(turn: Turn, act: Act) -> None:
    """Close stdout and live on without answering."""
    os.close(1)


async def spawn(turn: Turn, act: Act) -> None:
    """Start a process that outlives this one unless somebody ends it; `text` "inherit": it keeps our stdio open."""
    child = _start(inherit=act.text == "inherit")
    turn.conversation.engine.grandchildren.append(child)
    await _show(turn, {"pid": child.pid})


def _start(*, inherit: bool) -> "subprocess.Popen[bytes]":
    stream = None if inherit else subprocess.DEVNULL
    return subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)


async def _show(turn: Turn, thing: object) -> None:
    shown = jsontext.text(thing)
    members = b'"content":[{"type":"text","text":%b}],"structuredContent":%b' % (jsontext.text(shown.decode()), shown)
    await turn.reply(turn.result(members))
