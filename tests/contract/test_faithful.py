"""Payloads byte for byte, in both directions: every front, every kind of backend, merged and alone.

What may differ is named here: names and URIs of entries, the hop's own members of `_meta`, and on the way to a modern
client `resultType`, `ttlMs`, `cacheScope` and our `serverInfo`. On the way from a modern backend to a handshake client
those go, and with them a `structuredContent` that is no object, which handshake revisions do not know.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import ERAS, KINDS, LATEST, OLDEST, Stand, standing
from tests.peers import faithful, jsontext
from tests.peers.backend import Script
from tests.peers.clients import MODERN_VERSION, Client
from tests.peers.message import META
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

STAMPS = ("resultType", "ttlMs", "cacheScope")
HOP = ("protocolVersion", "clientInfo", "clientCapabilities", "serverInfo", "logLevel")
CELLS = (
    *((Way(front, LATEST), "") for front in ("stdio", "http", "sse")),
    *((Way(front, MODERN_VERSION), "") for front in ("stdio", "http")),
    *((Way("http", LATEST), kind) for kind in KINDS),
    *((Way("http", MODERN_VERSION), kind) for kind in ("web", "web26")),
    *((Way("sse", OLDEST), kind) for kind in ("stream", "web26")),
    (Way("stdio", LATEST), "pipe"),
    (Way("stdio", MODERN_VERSION), "pipe26"),
)
"""A way and a scope: the merged endpoint, or one backend's own."""

every_cell = pytest.mark.parametrize(("way", "scope"), CELLS, ids=str)

Members = list[tuple[str, bytes]]


def scripts(scope: str) -> dict[str, Script]:
    """The odd payloads, from every kind of backend or from the scope's alone."""
    kinds = (scope,) if scope else KINDS
    return {kind: replace(faithful.script(), era=ERAS[kind], name=kind) for kind in kinds}


def public(scope: str, kind: str, name: str) -> str:
    """What a tool or prompt is called in this scope."""
    return name if scope else f"{kind}__{name}"


def told(stand: Stand, scope: str, kind: str, uri: str) -> str:
    """What a URI is called in this scope: all backends list the same ones, and the first keeps them."""
    return uri if scope or kind == next(iter(stand.backends)) else f"{kind}+{uri}"


def arrived(raw: bytes | None) -> Members:
    """The members of a result without what this hop put on it."""
    assert raw is not None
    return _without(raw, STAMPS)


def sent(text: str, *, kind: str, way: Way) -> Members:
    """The members of a result as they have to arrive."""
    members = _without(text.encode(), ())
    if ERAS[kind] == "modern" and way.version != MODERN_VERSION:
        return [(key, raw) for key, raw in members if key != "structuredContent" or raw[:1] == b"{"]
    return members


def _without(raw: bytes, stamps: Sequence[str]) -> Members:
    """All members but the stamps and the hop's own of `_meta`, each as written, in the order they were written."""
    found: Members = []
    for key, value in jsontext.walk(raw):
        if key == "_meta" and value[:1] == b"{":
            inner = [(name, each) for name, each in jsontext.walk(value) if name.removeprefix(META) not in HOP]
            found += [(f"_meta/{name}", each) for name, each in inner]
        elif key not in stamps:
            found.append((key, value))
    return found


def squeezed(raw: bytes) -> bytes:
    """JSON text without the white space between its tokens: what holds a URI that is renamed is written anew."""
    out, quoted, at = bytearray(), False, 0
    while at < len(raw):
        char = raw[at : at + 1]
        if quoted and char == b"\\":
            out += raw[at : at + 2]
            at += 2
            continue
        quoted ^= char == b'"'
        if quoted or char not in (b" ", b"\t", b"\n", b"\r"):
            out += char
        at += 1
    return bytes(out)


def renamed(members: Members, uris: dict[str, str]) -> Members:
    """The members with URIs exchanged, without white space where that made a difference."""
    found: Members = []
    for key, value in members:
        changed = value
        for native, name in uris.items():
            changed = changed.replace(b'"uri":' + jsontext.text(native), b'"uri":' + jsontext.text(name))
        found.append((key, value if changed == value else squeezed(changed)))
    return found


@shows("faithful-results", "faithful-errors", "faithful-lists", "faithful-reads")
@every_cell
async def test_what_backends_send_arrives_as_it_was_sent(way: Way, scope: str) -> None:
    async with standing(scripts(scope)) as stand, stand.client(way, scope=scope, process=not scope) as client:
        for kind in stand.backends:
            await _results(stand, client, kind, way, scope)
            await _reads(stand, client, kind, way, scope)
        await _definitions(stand, client, scope)


async def _results(stand: Stand, client: Client, kind: str, way: Way, scope: str) -> None:
    linked = "file:///notes%20a.txt"
    uris = {linked: told(stand, scope, kind, linked)}
    for name, text in faithful.RESULTS.items():
        reply = await client.call(public(scope, kind, name))
        expected = renamed(sent(text, kind=kind, way=way), uris)
        assert _same(arrived(reply.result), expected), (kind, name, reply)
        if way.version != MODERN_VERSION and ERAS[kind] == "handshake" and uris[linked] == linked:
            assert reply.result == text.encode(), (kind, name)
    for name, text in faithful.ERRORS.items():
        assert (await client.call(public(scope, kind, name))).error == text.encode(), (kind, name)


def _same(got: Members, expected: Members) -> bool:
    """Whether these are the same members in the same order, but that `_meta` may stand elsewhere."""

    def apart(members: Members) -> tuple[Members, Members]:
        meta = [each for each in members if each[0].startswith("_meta/")]
        return meta, [each for each in members if each not in meta]

    return apart(got) == apart(expected)


async def _definitions(stand: Stand, client: Client, scope: str) -> None:
    for method, member, key, texts in (
        ("tools/list", "tools", "name", faithful.TOOLS),
        ("prompts/list", "prompts", "name", faithful.PROMPTS),
        ("resources/list", "resources", "uri", faithful.RESOURCES),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", faithful.TEMPLATES),
    ):
        listed = (await client.request(method)).entries(member)
        by_key = {jsontext.value(jsontext.member(raw, key)): raw for raw in listed}
        for kind in stand.backends:
            for text in texts:
                native = jsontext.value(jsontext.member(text.encode(), key))
                name = public(scope, kind, native) if key == "name" else told(stand, scope, kind, native)
                assert _members_but_names(by_key[name]) == _members_but_names(text.encode()), (kind, text)


def _members_but_names(raw: bytes) -> Members:
    return [(key, b"" if key in ("name", "uri", "uriTemplate") else value) for key, value in jsontext.walk(raw)]


async def _reads(stand: Stand, client: Client, kind: str, way: Way, scope: str) -> None:
    uris = {uri: told(stand, scope, kind, uri) for uri in faithful.READS}
    for uri, text in faithful.READS.items():
        reply = await client.request("resources/read", {"uri": uris[uri]})
        expected = renamed(sent(text, kind=kind, way=way), uris)
        assert _same(arrived(reply.result), expected), (kind, uri, reply)
    for name, text in faithful.PROMPT_RESULTS.items():
        reply = await client.request("prompts/get", {"name": public(scope, kind, name)})
        assert _same(arrived(reply.result), sent(text, kind=kind, way=way)), (kind, name, reply)


@shows("faithful-params")
@every_cell
async def test_params_reach_the_backend_as_they_were_sent(way: Way, scope: str) -> None:
    extras = b'"x-unknown":{"a":null,"n":1.50},"_meta":{ "vendor.example/x" : [1e999 , null],"traceparent":"00-ab"}'
    async with standing(scripts(scope)) as stand, stand.client(way, scope=scope, process=not scope) as client:
        for kind in stand.backends:
            for arguments in faithful.ARGUMENTS:
                name = public(scope, kind, "mirror").encode()
                asked = b'{"name":"%b","arguments":%b,%b}'
                await client.request("tools/call", asked % (name, arguments.encode(), extras))
                params = stand[kind].calls("tools/call")[-1].params
                assert _without(params, ()) == _without(asked % (b"mirror", arguments.encode(), extras), ()), arguments
            uri = next(iter(faithful.READS))
            where = told(stand, scope, kind, uri)
            await client.request("resources/read", b'{"x":1.50,"uri":"%b"}' % where.encode())
            params = stand[kind].calls("resources/read")[-1].params
            assert _without(params, ()) == [("x", b"1.50"), ("uri", b'"%b"' % uri.encode())]
            prompt = public(scope, kind, "odd_prompt").encode()
            await client.request("prompts/get", b'{"arguments":{ "a" : "\\u00fc\\/" },"name":"%b"}' % prompt)
            params = stand[kind].calls("prompts/get")[-1].params
            assert _without(params, ()) == [("arguments", b'{ "a" : "\\u00fc\\/" }'), ("name", b'"odd_prompt"')]
