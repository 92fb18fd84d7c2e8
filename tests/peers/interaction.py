"""Acts that need the client: real requests in the handshake era, `input_required` rounds in the modern one.

`text` of an act is one request `{"method": ..., "params": ...}` or a list of rounds, each one request or a list of
requests that are asked together. The result's `structuredContent.answers` holds what came back, raw and in order.
"""

import asyncio
from typing import Final

from tests.peers import jsontext
from tests.peers.message import Message, Refusal
from tests.peers.script import Act
from tests.peers.turn import Turn

_NEEDS: Final = (("sampling/createMessage", "sampling"), ("elicitation/create", "elicitation"), ("roots/list", "roots"))
_ROOTS: Final = '{"method":"roots/list","params":{}}'

Asked = tuple[str, bytes]


async def ask(turn: Turn, act: Act) -> None:
    """Ask, if the client declared that it can answer (else -32021 in the modern era, an `isError` result before)."""
    rounds = _rounds(act)
    for need, params in (asked for each in rounds for asked in each):
        capability = dict(_NEEDS).get(need)
        if capability and jsontext.member(turn.conversation.capabilities_of(turn), capability) is None:
            await _incapable(turn, capability)
            return
        del params
    await _go(turn, rounds)


async def insist(turn: Turn, act: Act) -> None:
    """Ask whether or not the client declared anything."""
    await _go(turn, _rounds(act))


async def _incapable(turn: Turn, capability: str) -> None:
    if turn.modern:
        wanted: dict[str, dict[str, dict[str, str]]] = {"requiredCapabilities": {capability: {}}}
        raise Refusal(-32021, "Missing required client capability", wanted)
    await turn.reply(b'{"content":[{"type":"text","text":"the client lacks %b"}],"isError":true}' % capability.encode())


async def _go(turn: Turn, rounds: list[list[Asked]]) -> None:
    if turn.modern:
        await _modern(turn, rounds)
        return
    got: list[bytes] = []
    for each in rounds:
        replies = await asyncio.gather(*(turn.ask(method, params) for method, params in each))
        got.extend(_body(reply) for reply in replies)
    await _finish(turn, got)


def _body(reply: Message) -> bytes:
    return reply.result if reply.result is not None else b'{"error":%b}' % (reply.error or b"null")


async def _modern(turn: Turn, rounds: list[list[Asked]]) -> None:
    states = turn.conversation.engine.states
    state = turn.param("requestState")
    if state is None:
        await _require(turn, rounds, 0, ())
        return
    known = states.get(str(jsontext.value(state)))
    if known is None:
        raise Refusal(-32602, "Invalid params: unknown requestState")
    number, got = known
    responses = turn.param("inputResponses")
    fresh = [jsontext.member(responses, _key(number, at)) for at in range(len(rounds[number]))]
    if None in fresh:
        raise Refusal(-32602, "Invalid params: an input response is missing")
    got = (*got, *(each for each in fresh if each is not None))
    if number + 1 < len(rounds):
        await _require(turn, rounds, number + 1, got)
    else:
        await _finish(turn, list(got))


async def _require(turn: Turn, rounds: list[list[Asked]], number: int, got: tuple[bytes, ...]) -> None:
    states = turn.conversation.engine.states
    # odd characters on purpose: the state has to come back exactly
    state = f'état/+= \u2028"{len(states)}" of round {number}'
    states[state] = (number, got)
    wanted = b",".join(
        b'"%b":{"method":%b,"params":%b}' % (_key(number, at).encode(), jsontext.text(method), params)
        for at, (method, params) in enumerate(rounds[number])
    )
    shown = jsontext.text(state)
    await turn.reply(b'{"resultType":"input_required","inputRequests":{%b},"requestState":%b}' % (wanted, shown))


def _key(number: int, at: int) -> str:
    return f"ask-{number}-{at}"


async def _finish(turn: Turn, got: list[bytes]) -> None:
    listed = b"[" + b",".join(got) + b"]"
    await turn.reply(turn.result(b'"content":[],"structuredContent":{"answers":%b}' % listed))


def _rounds(act: Act) -> list[list[Asked]]:
    source = (act.text or _ROOTS).encode("utf-8", "surrogateescape")
    if source.lstrip()[:1] == b"{":
        return [[_asked(source)]]
    each = jsontext.elements(source)
    return [[_asked(one) for one in jsontext.elements(x)] if x[:1] == b"[" else [_asked(x)] for x in each]


def _asked(source: bytes) -> Asked:
    return str(jsontext.value(jsontext.member(source, "method"))), jsontext.member(source, "params") or b"{}"
