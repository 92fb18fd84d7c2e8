"""The ordinary results of a scripted backend. Pure on the turn and the engine's current offers; sends nothing."""

import re
from typing import Final

from tests.peers import jsontext
from tests.peers.message import META, MODERN_VERSION, Refusal
from tests.peers.script import Offer, Script
from tests.peers.turn import Turn

LISTS: Final = (
    ("tools/list", "tools", "tools"),
    ("resources/list", "resources", "resources"),
    ("resources/templates/list", "templates", "resourceTemplates"),
    ("prompts/list", "prompts", "prompts"),
)
"""Method, which offers, and the result's member."""
_HOLE: Final = re.compile(r"\\\{[^{}]*\\\}")


def echoed(turn: Turn) -> bytes:
    """What an echoing tool, prompt or resource returns."""
    if turn.method == "prompts/get":
        said = jsontext.text(f"{turn.text_param('name')} {(turn.param('arguments') or b'{}').decode()}")
        return turn.result(b'"messages":[{"role":"user","content":{"type":"text","text":%b}}]' % said)
    if turn.method == "resources/read":
        uri = turn.param("uri") or b'""'
        hints = b"," + turn.conversation.engine.script.hints.encode() if turn.modern else b""
        return turn.result(b'"contents":[{"uri":%b,"text":%b}]%b' % (uri, uri, hints))
    said = turn.param("arguments", "text") or b'""'
    return turn.result(b'"content":[{"type":"text","text":%b}]' % said)


def capabilities(script: Script, version: str) -> bytes:
    """The script's capabilities, or those its offers need."""
    if script.capabilities:
        return script.capabilities.encode()
    parts = [b'"logging":{}'] + ([b'"completions":{}'] if version != "2024-11-05" else [])
    if script.tools:
        parts.append(b'"tools":{"listChanged":true}')
    if script.resources or script.templates:
        parts.append(b'"resources":{"subscribe":true,"listChanged":true}')
    if script.prompts:
        parts.append(b'"prompts":{"listChanged":true}')
    return b"{" + b",".join(parts) + b"}"


def _info(script: Script) -> bytes:
    return script.server_info.encode() or jsontext.text({"name": script.name, "version": "1.0"})


def _instructions(script: Script) -> bytes:
    said = b"" if script.instructions is None else b',"instructions":%b' % jsontext.text(script.instructions)
    return said + (b"," + script.initialize_members.encode() if script.initialize_members else b"")


def initialized(script: Script, version: str) -> bytes:
    """The result of `initialize`."""
    body = (jsontext.text(version), capabilities(script, version), _info(script), _instructions(script))
    return b'{"protocolVersion":%b,"capabilities":%b,"serverInfo":%b%b}' % body


def discovered(script: Script) -> bytes:
    """The result of `server/discover`."""
    body = (jsontext.text([MODERN_VERSION]), capabilities(script, MODERN_VERSION), script.hints.encode())
    head = b'{"resultType":"complete","supportedVersions":%b,"capabilities":%b,%b' % body
    return head + b',"_meta":{"%bserverInfo":%b}%b}' % (META.encode(), _info(script), _instructions(script))


def listed(turn: Turn, offers: list[Offer], name: str) -> bytes:
    """A list, whole.

    Raises:
        Refusal: -32602, there is no cursor that could have been given out.
    """
    if turn.param("cursor") is not None:
        raise Refusal(-32602, "Invalid cursor")
    entries = b",".join(offer.definition.encode("utf-8", "surrogateescape") for offer in offers)
    hints = turn.conversation.engine.script.hints.encode() if turn.modern else b""
    return turn.result(b'"%b":[%b]%b' % (name.encode(), entries, b"," + hints if hints else b""))


def matching(templates: dict[str, Offer], uri: str) -> Offer | None:
    """The first template a URI could have been made from."""
    for text, offer in templates.items():
        if re.fullmatch(_HOLE.sub(".+?", re.escape(text)), uri):
            return offer
    return None


def completed(turn: Turn) -> bytes:
    """A completion that shows what was asked: the value with -a and -b, and the ref itself."""
    so_far = turn.text_param("argument", "value")
    values = jsontext.text([so_far + "-a", so_far + "-b"])
    ref = turn.param("ref") or b"null"
    return turn.result(b'"completion":{"values":%b,"total":2,"hasMore":false,"x-ref":%b}' % (values, ref))
