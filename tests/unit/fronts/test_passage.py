"""The short way in: what a head agreed with, and an answer that is bulky, written as it is held."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp_manifold.fronts.http.shortcut import ClientContext, Passage

from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.server import BULKY, Head
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload, encode
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_CLIENT_INFO, META_VERSION
from tests.unit.core.house import unheard


class Kept:
    """A Reply that keeps what it was given."""

    def __init__(self) -> None:
        self.whole: list[bytes] = []
        self.pieces: list[Sequence[bytes | memoryview]] = []
        self.counted: list[bool] = []

    def respond(self, status: int, body: bytes) -> None:
        self.whole.append(body)

    def share(self, pieces: Sequence[bytes | memoryview], *, counts: bool = False) -> None:
        self.pieces.append(pieces)
        self.counted.append(counts)


def over(size: int, *, is_taken_back: bool = False) -> tuple[Kept, Payload, int]:
    reply, shortcut = Kept(), SimpleNamespace(tally=SimpleNamespace(bytes_out=0), landed=lambda passage: None)
    call = Call("tools/call", {}, Session("", ANONYMOUS, "", LATEST_HANDSHAKE), unheard)
    passage = Passage(cast("Any", shortcut), call, Payload(b"7"), None, cast("Any", reply))
    result = Payload(b'{"x":"%b"}' % (b"y" * size))
    if is_taken_back:
        call.cancel()
    passage.over(result, None)
    assert passage.done
    return reply, result, shortcut.tally.bytes_out


def test_a_bulky_result_is_not_copied_and_counts_until_it_is_read() -> None:
    reply, result, size = over(BULKY)
    (pieces,) = reply.pieces
    assert any(isinstance(piece, memoryview) and piece.obj is result for piece in pieces)
    assert b"".join(pieces) == b'{"jsonrpc":"2.0","id":7,"result":%b}' % bytes(result)
    assert size == sum(map(len, pieces))
    assert reply.counted == [True]
    assert not reply.whole


@pytest.mark.parametrize(("size", "is_taken_back"), [(10, False), (BULKY, True)])
def test_any_other_answer_is_one_piece(size: int, is_taken_back: bool) -> None:
    reply, _, written = over(size, is_taken_back=is_taken_back)
    (whole,) = reply.whole
    assert (b'"error"' in whole) == is_taken_back
    assert written == len(whole)
    assert not reply.pieces


def test_what_a_head_agreed_with_holds_for_the_same_method_name_and_meta_only() -> None:
    """All requests with one head share what was found of it: a body that differs is held to the head again."""
    meta = Payload(
        encode({META_VERSION: MODERN_VERSION, META_CLIENT_INFO: {"name": "x"}, META_CAPABILITIES: {"roots": {}}})
    )
    lines = [
        (b"mcp-protocol-version", MODERN_VERSION.encode()), (b"mcp-method", b"tools/call"), (b"mcp-name", b"a")
    ]  # fmt: skip
    head = Head(b"POST", b"/mcp", lines, "1.1", keeps_alive=True)
    params = {"name": Payload(b'"a"'), "_meta": meta}
    agreed = ClientContext("tools/call", params, head)
    assert agreed.holds("tools/call", dict(params))
    assert not agreed.holds("tools/list", params)
    assert not agreed.holds("tools/call", {**params, "name": Payload(b'"b"')})
    assert not agreed.holds("tools/call", {"name": params["name"], "_meta": Payload(b"{}")})
    with pytest.raises(RequestError):
        ClientContext("tools/list", params, head)
