"""Servers that send requests to their clients, and clients that answer them: payloads, scripts, recorders."""

from collections.abc import Callable
from typing import Any, Final

from tests.contract.stand import EVERY_WAY, KINDS, LATEST, OLDEST, WAYS, script_of
from tests.peers import jsontext
from tests.peers.backend import Act, Script, prompt, resource, tool
from tests.peers.clients import MODERN_VERSION, Answer, Reply

SESSIONS: Final = tuple(way for way in WAYS if way.version in (OLDEST, LATEST))
LATEST_WAYS: Final = tuple(way for way in WAYS if way.version != OLDEST)
ELICITED: Final = tuple(way for way in EVERY_WAY if way.version in ("2025-06-18", LATEST, MODERN_VERSION))
"""The ways of clients that can be asked for input: no earlier revision has elicitation."""
BOTH_MODES: Final = '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}}'

SAMPLE: Final = (
    '{"messages":[{"role":"user","content":{"type":"text","text":"gr\\u00fc\u00dfe"}}],"maxTokens":1e2,'
    '"metadata":{"nil":null,"big":123456789012345678901234},"includeContext":"none","x-n":1.50}'
)
TOOLED: Final = '{"messages":[],"maxTokens":5,"tools":[{"name":"t","inputSchema":{"type":"object"}}],"toolChoice":{}}'
ONE_BLOCK: Final = (
    '{"model":"m","role":"assistant","stopReason":"odd","content":{"type":"text","text":"\u00fc"},"x":1.50}'
)
BLOCKS: Final = (
    '{"model":"m","role":"assistant","content":[ {"type":"tool_use","id":"1","name":"t","input":{}} ],"n":1e2}'
)
FORM: Final = (
    '{"mode":"form","message":"Which \\u00fc?","requestedSchema":{"type":"object","properties":'
    '{"a":{"type":"number","default":1.50}},"x-n":null}}'
)
ACCEPTED: Final = '{"action":"accept","content":{"a":1.50,"big":123456789012345678901234}}'
ROOTS: Final = '{"roots":[ {"uri":"file:///caf\u00e9%20x","x":null} ]}'
URL: Final = '{"mode":"url","message":"Please sign in","url":"https://id.example.test/a?b=c","elicitationId":"e/1"}'
STRANGE: Final = '{"n":1.50,"deep":{"nil":null}}'


def one(method: str, params: str) -> str:
    """One server request, as an act's text has it."""
    return f'{{"method":"{method}","params":{params}}}'


def asking(server: str) -> Script:
    """A server of that kind that sends every kind of server request."""
    url = URL if "26" not in server else URL.replace(',"elicitationId":"e/1"', "")
    form, sample = one("elicitation/create", FORM), one("sampling/createMessage", SAMPLE)
    roots = one("roots/list", "{}")
    texts = {
        "sample": sample,
        "tooled": one("sampling/createMessage", TOOLED),
        "elicit": form,
        "url": one("elicitation/create", url),
        "roots": roots,
        "rounds": f"[{form},{sample},{roots},{form}]",
        "several": f"[[{form},{sample},{roots},{form}]]",
        "strange": one("vendor/ask", STRANGE),
    }
    return script_of(
        server,
        tools=(
            tool("echo"),
            *(tool(name, Act("ask", text)) for name, text in texts.items()),
            *(tool(f"insist_{name}", Act("insist", text)) for name, text in texts.items()),
            tool("hang", Act("hang")),
        ),
        resources=(resource(f"ask://{server}", Act("ask", form)),),
        prompts=(prompt("elicit", Act("ask", form), arguments=[{"name": "who"}]),),
        on={"completion/complete": Act("insist", form)},
    )


def scripts(*servers: str) -> dict[str, Script]:
    return {server: asking(server) for server in servers or KINDS}


class ResultCallback:
    """What a client was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.said = {"sampling/createMessage": ONE_BLOCK, "elicitation/create": ACCEPTED, "roots/list": ROOTS}
        self.said |= {"vendor/ask": STRANGE}
        self.answers: dict[str, Answer] = {method: self._answering(method) for method in self.said}

    def __repr__(self) -> str:
        return f"<ResultCallback {len(self.asked)} questions>"

    def _answering(self, method: str) -> Callable[[bytes], str]:
        def answer(params: bytes) -> str:
            self.asked.append((method, params))
            return self.said[method]

        return answer

    def take(self) -> list[tuple[str, bytes]]:
        """What was asked since this was last called."""
        asked, self.asked = self.asked, []
        return asked


def answers(reply: Reply) -> list[bytes]:
    """What came back to the server, raw and in the order in which it asked."""
    assert reply.result is not None, reply
    return jsontext.elements(reply.slice("structuredContent", "answers") or b"[]")


def members(params: bytes) -> dict[str, bytes]:
    return dict(jsontext.walk(params))


class Pondering:
    """Holds a client's answers back until `decide`, as a person does who thinks it over."""

    def __init__(self, client: Any) -> None:
        self._send = client._respond
        self._kept: list[bytes] = []
        client._respond = self._keep

    def __repr__(self) -> str:
        return f"<Pondering {len(self._kept)} answers>"

    async def _keep(self, response: bytes) -> None:
        self._kept.append(response)

    async def decide(self) -> None:
        """Send what was kept."""
        kept, self._kept = self._kept, []
        for response in kept:
            await self._send(response)
