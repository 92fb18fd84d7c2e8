"""The payloads and behaviours of the conformance server: what its tools, resources and prompts answer."""

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.peers.backend import Offer, Turn
from tests.peers.http_wire import event
from tests.peers.jsontext import member, text, value
from tests.peers.message import Refusal, response

Json = dict[str, Any]
Handler = Callable[[Turn], Awaitable[None]]
SECRET: Final = secrets.token_bytes(16)
HINTS: Final = '"ttlMs":1000,"cacheScope":"private"'
JOB_SECONDS: Final = 0.5


def words(said: str) -> Json:
    """A text block."""
    return {"type": "text", "text": said}


def embedded(uri: str, mime_type: str, said: str) -> Json:
    """A block with a resource in it."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": said}}


def form(**properties: Json) -> Json:
    """An object schema in which every property is required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""One red pixel."""
IMAGE: Final = {"type": "image", "data": PNG, "mimeType": "image/png"}
WAV: Final = "UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA=="  # eight silent samples
AUDIO: Final = {"type": "audio", "data": WAV, "mimeType": "audio/wav"}
STRING: Final = {"type": "string"}
SCHEMAS: Final[Json] = json.loads(Path(__file__).with_name("schemas.json").read_text())
"""The schemas of the forms, and of the tools that take arguments. All their keywords must survive a listing."""


def ask(message: str, schema: Json) -> Json:
    """A form to fill in."""
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sampling(said: str) -> Json:
    """A question for a model."""
    params = {"messages": [{"role": "user", "content": words(said)}], "maxTokens": 100}
    return {"method": "sampling/createMessage", "params": params}


NAME: Final = ask("What is your name?", form(name=STRING))
COLOUR: Final = ask("What is your favourite colour?", form(color=STRING))
CONFIRM: Final = ask("Please confirm", form(ok={"type": "boolean"}))
ROOTS: Final = {"method": "roots/list", "params": {}}
ALL: Final = {"user_name": NAME, "greeting": sampling("Write a greeting"), "client_roots": ROOTS}
NEEDS: Final = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def members(**found: object) -> bytes:
    """Members of a result, without braces."""
    return text(found)[1:-1]


def content(*blocks: Json, **more: object) -> Handler:
    """A tool whose result has these blocks."""

    async def handler(turn: Turn) -> None:
        await turn.reply(turn.result(members(content=blocks, **more)))

    return handler


def contents(uri: str = "", **found: str) -> Handler:
    """A resource; one from a template shows the id in its URI."""

    async def handler(turn: Turn) -> None:
        asked = turn.text_param("uri")
        read = {"uri": asked, **found}
        if number := re.fullmatch(r"test://template/([^/]+)/data", asked):
            read["text"] = json.dumps({"id": number[1], "templateTest": True, "data": f"Data for ID: {number[1]}"})
        hints = b"," + HINTS.encode() if turn.modern else b""
        await turn.reply(turn.result(members(contents=[read]) + hints))

    return handler


def messages(make: Callable[[Json], list[Json]]) -> Handler:
    """A prompt whose blocks are made of its arguments."""

    async def handler(turn: Turn) -> None:
        blocks = make(value(turn.param("arguments")) or {})
        said = [{"role": "user", "content": block} for block in blocks]
        await turn.reply(turn.result(members(messages=said)))

    return handler


def asking(asked: Callable[[Json], Json], show: Callable[[Json], str]) -> Handler:
    """A handshake tool: it asks while the call is open, and shows what came back."""

    async def handler(turn: Turn) -> None:
        wanted = asked(value(turn.param("arguments")) or {})
        reply = await turn.ask(wanted["method"], text(wanted["params"]))
        await turn.reply(turn.result(members(content=[words(show(value(reply.result) or {}))])))

    return handler


def requiring(*rounds: Json, result: bytes = b"") -> Handler:
    """A 2026-07-28 item: it answers once the responses of all rounds came, each round under a sealed state."""
    result = result or members(content=[words("All answers came, state-ok")])

    async def handler(turn: Turn) -> None:
        state, got = turn.text_param("requestState"), value(turn.param("inputResponses")) or {}
        number = rounds_done(state)
        wanted = rounds[number]
        if all(isinstance(got.get(key), dict) for key in wanted):
            number += 1
        if number == len(rounds):
            await turn.reply(turn.result(result))
            return
        required = {"resultType": "input_required", "inputRequests": rounds[number], "requestState": sealed(number)}
        await turn.reply(text(required))

    return handler


def sealed(number: int) -> str:
    """The state of a call that waits for this round."""
    return f"{number}.{hmac.new(SECRET, b'%d' % number, hashlib.sha256).hexdigest()}"


def rounds_done(state: str) -> int:
    """The round that a state is of. Raises Refusal: the state is not one of ours."""
    number = state.partition(".")[0]
    if state and not (number.isdigit() and hmac.compare_digest(state.encode(), sealed(int(number)).encode())):
        raise Refusal(-32602, "Invalid params: unknown requestState")
    return int(number or 0)


def declared(turn: Turn, *path: str) -> bool:
    """Whether the client declared this capability for the request."""
    return member(turn.conversation.capabilities_of(turn), *path) is not None


async def within_capabilities(turn: Turn) -> None:
    """Requires only what the client declared."""
    able = {key: asked for key, asked in ALL.items() if declared(turn, NEEDS[asked["method"]])}
    await requiring(able)(turn)


async def needs_sampling(turn: Turn) -> None:
    """Refuses clients without sampling."""
    if not declared(turn, "sampling"):
        raise Refusal(-32021, "This tool needs sampling", {"requiredCapabilities": {"sampling": {}}})
    await content(words("The client can sample"))(turn)


class Reconnection:
    """A tool that closes its stream and answers on the one that the client opens next."""

    def __init__(self) -> None:
        self._answers: set[asyncio.Task[None]] = set()

    async def __call__(self, turn: Turn) -> None:
        channel: Any = turn.channel
        turn.conversation.standing_opened.clear()
        await channel.write(b"retry: 200\r\n" + event(b"", id_="closed"))
        await channel.finish()
        self._answers.add(later := asyncio.create_task(self._answer(turn)))
        later.add_done_callback(self._answers.discard)

    async def _answer(self, turn: Turn) -> None:
        await turn.conversation.standing_opened.wait()
        result = turn.result(members(content=[words("Sent after the stream was closed and resumed")]))
        await turn.conversation.emit(response(turn.message.id or b"null", result))


def toggling(kind: str, extra: Offer) -> Handler:
    """Lists one item more, or no longer."""

    async def handler(turn: Turn) -> None:
        engine = turn.conversation.engine
        offers = {**engine.offers[kind], extra.key(): extra}
        if extra.key() in engine.offers[kind]:
            del offers[extra.key()]
        await engine.set_offers(kind, tuple(offers.values()))
        await content(words(f"The list of {kind} has changed"))(turn)

    return handler
