"""Tasks of a scripted backend, as 2025-11-25 has them and as the 2026-07-28 extension has them. Knows no transport.

The ids are the same small ones in every backend, on purpose: nothing keeps servers from choosing alike.
"""

from dataclasses import dataclass, field
from typing import Final

from tests.peers import answers, jsontext
from tests.peers.message import META, Refusal
from tests.peers.script import Act
from tests.peers.turn import Turn

EXTENSION: Final = META + "tasks"
CAPABILITIES: Final = '{"tools":{},"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}}'
"""A handshake server's that has tasks."""
MODERN_CAPABILITIES: Final = f'{{"tools":{{}},"extensions":{{"{EXTENSION}":{{}}}}}}'
_TIMES: Final = b'"createdAt":"2026-01-01T00:00:00Z","lastUpdatedAt":"2026-01-01T00:00:00Z"'
_RELATED: Final = b'"_meta":{"io.modelcontextprotocol/related-task":{"taskId":%b}}'


@dataclass(slots=True)
class ScriptedTask:
    """One task: it is done when the gate of its name opens."""

    id: bytes
    act: Act
    result: bytes
    is_cancelled: bool = False
    updates: list[bytes] = field(default_factory=list)


async def task(turn: Turn, act: Act) -> None:
    """Run as a task where the client wants that, done when the gate `text` opens; else the reply at once."""
    if not _is_wanted(turn):
        await turn.reply(answers.echoed(turn))
        return
    tasks = turn.conversation.engine.tasks
    made = tasks[f"task-{len(tasks) + 1}"] = ScriptedTask(
        jsontext.text(f"task-{len(tasks) + 1}"), act, answers.echoed(turn)
    )
    if turn.modern:
        await turn.reply(b'{"resultType":"task",%b}' % _shown(turn, made))
    else:
        await turn.reply(b'{"task":{%b},"_meta":{"x":1.50}}' % _shown(turn, made))


async def asking_task(turn: Turn, act: Act) -> None:
    """The same, but `tasks/result` asks the client `text` before it answers."""
    await task(turn, act)


def _is_wanted(turn: Turn) -> bool:
    return _is_declared(turn) if turn.modern else turn.param("task") is not None


def _is_declared(turn: Turn) -> bool:
    return jsontext.member(turn.meta("clientCapabilities"), "extensions", EXTENSION) is not None


def require_declared(turn: Turn) -> None:
    """A request about tasks is refused unless it declares the extension (SEP-2663)."""
    if not _is_declared(turn):
        raise Refusal(-32021, "Missing required client capability")


def _shown(turn: Turn, made: ScriptedTask) -> bytes:
    words = (b'"ttlMs":60000,"pollIntervalMs":100' if turn.modern else b'"ttl":60000', _status(turn, made))
    return b'"taskId":%b,"status":"%b",%b,%b,"x-unknown":null' % (made.id, words[1], _TIMES, words[0])


def _is_done(turn: Turn, made: ScriptedTask) -> bool:
    return made.act.do == "asking_task" or turn.conversation.engine.gate(made.act.text).is_set()


def _status(turn: Turn, made: ScriptedTask) -> bytes:
    return b"cancelled" if made.is_cancelled else b"completed" if _is_done(turn, made) else b"working"


async def answered(turn: Turn) -> None:
    """Answer a method of the family.

    Raises:
        Refusal: -32602, there is no such task; -32601, the era has no such method.
    """
    methods = {"get": get, "cancel": cancel, "update": update} if turn.modern else {
        "get": get, "cancel": cancel, "result": result, "list": listed,
    }  # fmt: skip
    method = methods.get(turn.method.removeprefix("tasks/"))
    if method is None:
        raise Refusal(-32601, "Method not found", {"method": turn.method})
    await method(turn)


def _named(turn: Turn) -> ScriptedTask:
    found = turn.conversation.engine.tasks.get(turn.text_param("taskId"))
    if found is None:
        raise Refusal(-32602, "Unknown task")
    return found


async def get(turn: Turn) -> None:
    """`tasks/get`."""
    made = _named(turn)
    more = b',"result":%b' % made.result if turn.modern and _status(turn, made) == b"completed" else b""
    await turn.reply(turn.result(_shown(turn, made) + more))


async def cancel(turn: Turn) -> None:
    """`tasks/cancel`."""
    made = _named(turn)
    made.is_cancelled = True
    await turn.reply(turn.result(b"") if turn.modern else b"{%b}" % _shown(turn, made))


async def update(turn: Turn) -> None:
    """`tasks/update`: whatever comes lets the task go on."""
    made = _named(turn)
    made.updates.append(turn.param("inputResponses") or b"{}")
    turn.conversation.engine.release(made.act.text)
    await turn.reply(turn.result(b""))


async def result(turn: Turn) -> None:
    """`tasks/result`: waits for the end of the task, or asks what it has to ask."""
    made = _named(turn)
    related = _RELATED % made.id
    if made.act.do == "asking_task":
        params = b'{"mode":"form","message":"sure?","requestedSchema":{},%b}' % related
        reply = await turn.ask("elicitation/create", params)
        body = b'"content":[],"structuredContent":{"got":%b},%b' % (reply.raw, related)
        await turn.reply(b"{%b}" % body)
    elif await turn.held(made.act.text):
        await turn.reply(jsontext.with_members(made.result, related))


async def listed(turn: Turn) -> None:
    """`tasks/list`, one task on a page."""
    tasks = list(turn.conversation.engine.tasks.values())
    at = int(turn.text_param("cursor") or 0)
    page = tasks[at : at + 1]
    more = b',"nextCursor":"%d"' % (at + 1) if at + 1 < len(tasks) else b""
    await turn.reply(b'{"tasks":[%b]%b}' % (b",".join(b"{%b}" % _shown(turn, each) for each in page), more))
