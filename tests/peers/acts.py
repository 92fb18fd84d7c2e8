"""The named behaviours of a scripted backend. Knows turns and channels, no transport.

An act receives the turn and its own description. It may leave the turn unanswered.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from tests.peers import answers, interaction, jsontext, message, tasks
from tests.peers.script import Act, Behaviour
from tests.peers.turn import Turn

_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


async def perform(turn: Turn, behaviour: Behaviour) -> None:
    """Let a behaviour deal with a turn."""
    if isinstance(behaviour, Act):
        await ACTS[behaviour.do](turn, behaviour)
    else:
        await behaviour(turn)


async def _then(turn: Turn, act: Act) -> None:
    await perform(turn, act.then or Act())


async def echo(turn: Turn, act: Act) -> None:
    """Answer: a tool returns its `text` argument byte for byte, a prompt and a resource their name."""
    await turn.reply(answers.echoed(turn))


async def default(turn: Turn, act: Act) -> None:
    """The ordinary answer to the method."""
    await turn.conversation.ordinary(turn)


async def raw(turn: Turn, act: Act) -> None:
    """The result is `text`, verbatim (slots filled)."""
    await turn.reply(turn.fill(act.text))


async def error(turn: Turn, act: Act) -> None:
    """The error object is `text`, verbatim."""
    await turn.fail(turn.fill(act.text or '{"code":-32603,"message":"as scripted"}'))


async def messages(turn: Turn, act: Act) -> None:
    """Every line of `text` is one message, verbatim with its slots filled; nothing else is sent."""
    for line in turn.fill(act.text).split(b"\n"):
        await turn.channel.send(line, final=b'"method"' not in line)


async def silent(turn: Turn, act: Act) -> None:
    """No answer, ever."""


async def mirror(turn: Turn, act: Act) -> None:
    """Return the params as they arrived (`structuredContent.params`), and over HTTP the headers."""
    headers = jsontext.text([list(pair) for pair in turn.headers])
    body = b'{"params":%b,"headers":%b}' % (turn.message.params or b"null", headers)
    await turn.reply(turn.result(b'"content":[],"structuredContent":%b' % body))


# --- before the reply ------------------------------------------------------------------------------------------


async def progress(turn: Turn, act: Act) -> None:
    """`n` progress notifications with integers and unknown members, if a token was given; then the reply."""
    token = turn.param("_meta", "progressToken")
    for step in range(1, act.n + 1) if token else ():
        fields = b'"progressToken":%b,"progress":%d,"total":%d' % (token or b"", step, act.n)
        unknown = b'"message":"step %d","x-unknown":{"big":123456789012345678901234,"nil":null}' % step
        await turn.notify("notifications/progress", b"{%b,%b}" % (fields, unknown))
    await _then(turn, act)


async def log(turn: Turn, act: Act) -> None:
    """`n` log messages of level `text` (info), as far as the client's level allows; then the reply."""
    level = act.text or "info"
    for step in range(1, act.n + 1) if _is_wanted(turn, level) else ():
        fields = b'"level":%b,"logger":"fake","data":{"step":%d,"nil":null}' % (jsontext.text(level), step)
        await turn.notify("notifications/message", b'{%b,"x-unknown":1.50}' % fields)
    await _then(turn, act)


def _is_wanted(turn: Turn, level: str) -> bool:
    if turn.modern:
        asked = jsontext.value(turn.meta("logLevel"))
        return asked is not None and _LEVELS.index(level) >= _LEVELS.index(str(asked))
    return _LEVELS.index(level) >= _LEVELS.index(turn.conversation.level)


async def notify(turn: Turn, act: Act) -> None:
    """Every line of `text` is a notification sent on the request's own channel; then the reply."""
    for line in turn.fill(act.text).split(b"\n"):
        await turn.channel.send(line)
    await _then(turn, act)


async def announce(turn: Turn, act: Act) -> None:
    """Announce every line of `text`, a method and its params, to watchers and subscribers; then the reply."""
    for line in act.text.split("\n"):
        method, _, params = line.partition(" ")
        await turn.conversation.engine.announce(method, params or None)
    await _then(turn, act)


# --- no reply, or late -------------------------------------------------------------------------------------------


async def hang(turn: Turn, act: Act) -> None:
    """Wait for the gate named `text`; then the reply, unless the request is cancelled first."""
    if await turn.held(act.text):
        await _then(turn, act)


async def late(turn: Turn, act: Act) -> None:
    """Reply when the gate named `text` opens, even to a cancelled request."""
    await turn.conversation.engine.gate(act.text).wait()
    turn.cancelled.clear()
    await _then(turn, act)


async def slow(turn: Turn, act: Act) -> None:
    """Reply after the seconds given in the argument `seconds` (1), unless the request is given up first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(jsontext.value(turn.param("arguments", "seconds")) or 1):
            await turn.cancelled.wait()
    await _then(turn, act)


async def die(turn: Turn, act: Act) -> None:
    """End the process with code `n`, or reset the connection, without an answer."""
    turn.channel.drop(act.n)


async def cut(turn: Turn, act: Act) -> None:
    """Write `text` (the beginning of a message) below the framing, then die."""
    await turn.channel.write(turn.fill(act.text or '{"jsonrpc":"2.0","id":$ID,"resu'))
    turn.channel.drop(act.n)


# --- strange bytes -------------------------------------------------------------------------------------------------


async def garbage(turn: Turn, act: Act) -> None:
    """`text` (by default a line that is not JSON) is written as it is, with a line end; then the reply."""
    await turn.channel.write(turn.fill(act.text or "this is not JSON") + b"\n")
    await _then(turn, act)


async def invalid_utf8(turn: Turn, act: Act) -> None:
    """A line that is not UTF-8; then the reply."""
    await turn.channel.write(b'{"jsonrpc":"2.0","method":"notifications/\xff\xfe"}\n')
    await _then(turn, act)


async def endless(turn: Turn, act: Act) -> None:
    """`n` bytes before there is a line end; then the reply."""
    await turn.channel.write(b"x" * act.n + b"\n")
    await _then(turn, act)


async def big(turn: Turn, act: Act) -> None:
    """A text of `n` bytes."""
    await turn.reply(turn.result(b'"content":[{"type":"text","text":"%b"}]' % (b"x" * act.n)))


def _reply_as(template: str) -> Callable[[Turn, Act], Awaitable[None]]:
    async def odd(turn: Turn, act: Act) -> None:
        await messages(turn, Act(text=template.replace("$RESULT", answers.echoed(turn).decode())))

    return odd


wrong_id = _reply_as('{"jsonrpc":"2.0","id":987654321,"result":$RESULT}\n{"jsonrpc":"2.0","id":$ID,"result":$RESULT}')
duplicate = _reply_as(
    '{"jsonrpc":"2.0","id":$ID,"result":$RESULT}\n'
    '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"the second reply"}]}}'
)
string_id = _reply_as('{"jsonrpc":"2.0","id":"$ID","result":$RESULT}')
float_id = _reply_as('{"jsonrpc":"2.0","id":$ID.0,"result":$RESULT}')
null_result = _reply_as('{"jsonrpc":"2.0","id":$ID,"result":null}')
list_result = _reply_as('{"jsonrpc":"2.0","id":$ID,"result":[]}')
no_result = _reply_as('{"jsonrpc":"2.0","id":$ID}')
null_id = _reply_as('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}')


# --- the process, which must be a child of its own --------------------------------------------------------------------


async def stderr(turn: Turn, act: Act) -> None:
    """`n` lines of `text` on stderr, blocking until somebody reads them; then an echo."""
    line = (act.text or "noise on stderr") + "\n"
    for _ in range(act.n):
        sys.stderr.write(line)
    sys.stderr.flush()
    await turn.reply(answers.echoed(turn))


async def pid(turn: Turn, act: Act) -> None:
    """The process id, its parent and its process group."""
    await _show(turn, {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "cwd": os.getcwd()})


async def close_stdout(turn: Turn, act: Act) -> None:
    """Close stdout and live on without answering."""
    os.close(1)


async def spawn(turn: Turn, act: Act) -> None:
    """Start a process that outlives this one unless somebody ends it."""
    child = _start()
    turn.conversation.engine.grandchildren.append(child)
    await _show(turn, {"pid": child.pid})


def _start() -> "subprocess.Popen[bytes]":
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(["sleep", "300"], stdin=nowhere, stdout=nowhere, stderr=nowhere)


async def env(turn: Turn, act: Act) -> None:
    """The environment, as JSON in the text and in `structuredContent`."""
    await _show(turn, dict(os.environ))


async def _show(turn: Turn, thing: object) -> None:
    shown = jsontext.text(thing)
    members = b'"content":[{"type":"text","text":%b}],"structuredContent":%b' % (jsontext.text(shown.decode()), shown)
    await turn.reply(turn.result(members))


async def refuse(turn: Turn, act: Act) -> None:
    """Answer -32601, as if the method did not exist."""
    raise message.Refusal(-32601, "Method not found", {"method": turn.method})


ACTS: Final[Mapping[str, Callable[[Turn, Act], Awaitable[None]]]] = MappingProxyType(
    {
        **{
            act.__name__: act
            for act in (
                echo, default, raw, error, messages, silent, mirror, progress, log, notify, announce, hang, late,
                slow, die, cut, garbage, invalid_utf8, endless, big, refuse, interaction.ask, interaction.insist,
                stderr, env, pid, spawn, close_stdout, tasks.task, tasks.asking_task,
            )
        },
        "wrong_id": wrong_id,
        "duplicate": duplicate,
        "string_id": string_id,
        "float_id": float_id,
        "null_result": null_result,
        "list_result": list_result,
        "no_result": no_result,
        "null_id": null_id,
    }
)  # fmt: skip
