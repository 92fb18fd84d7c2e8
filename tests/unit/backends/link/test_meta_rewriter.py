"""The `_meta` that a link sends: the same whether it was remembered or computed."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold import wire
from mcp_manifold.backends.link.meta_rewriter import MAX_REMEMBERED, MAX_TEXT, MetaRewriter
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import EMPTY, MODERN_VERSION, Payload, encode, modern_stamp
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_VERSION
from tests.unit.backends.linking import Caller, FakeReply, raw

OURS = modern_stamp(Payload(b'{"name":"ours"}'), Payload(b'{"roots":{}}'))


def modern_call(capabilities: bytes = b"{}", *, level: str = "", **meta: object) -> Call:
    """A call of a 2026-07-28 client, whose `_meta` repeats what its session holds."""
    told = {META_VERSION: MODERN_VERSION, META_CAPABILITIES: Payload(capabilities), **meta}
    session = Session("", ANONYMOUS, "", MODERN_VERSION, EMPTY, Payload(capabilities), log_level=level)
    if level:
        told[META_LOG_LEVEL] = level
    return Call("tools/call", raw(name="t", _meta=told), session, FakeReply())


def sent(link: MetaRewriter, call: Call, number: int = 1) -> bytes:
    params, _ = link.rewrite(call.params, number, call)
    assert params is not None
    return params


def rewriter(*, is_modern: bool) -> MetaRewriter:
    made = MetaRewriter()
    made.adopt(OURS if is_modern else None)
    return made


metas = st.dictionaries(
    st.sampled_from(["progressToken", "traceparent", META_CLIENT_INFO, "other"]),
    st.text(max_size=5) | st.integers(0, 9),
)


@given(metas, st.booleans(), st.sampled_from([b"{}", b'{"sampling":{}}']), st.sampled_from(["", "debug"]))
def test_a_remembered_text_is_what_would_be_computed(
    meta: dict[str, object], is_modern: bool, capabilities: bytes, level: str
) -> None:
    call = modern_call(capabilities, level=level, **meta)
    worn = rewriter(is_modern=is_modern)
    sent(worn, call, 1)
    assert sent(worn, call, 2) == sent(rewriter(is_modern=is_modern), call, 2)


def test_a_progress_token_is_replaced_each_time_and_returned() -> None:
    link, call = rewriter(is_modern=True), modern_call(progressToken="mine")
    for number in (1, 2):
        params, token = link.rewrite(call.params, number, call)
        assert params is not None
        assert b'"progressToken":%d' % number in params
        assert bytes(token or b"") == b'"mine"'


def test_clients_with_different_capabilities_are_kept_apart() -> None:
    link = rewriter(is_modern=True)
    for capabilities in (b'{"sampling":{}}', b"{}", b'{"sampling":{}}'):
        assert b'"%b":%b' % (META_CAPABILITIES.encode(), capabilities) in sent(link, modern_call(capabilities))


def test_the_capabilities_of_handshake_sessions_are_not_remembered_by_text() -> None:
    """Two clients of the handshake era send the same `_meta`, and have different capabilities."""
    link, other = rewriter(is_modern=True), Caller()
    other.session.capabilities = Payload(b'{"sampling":{}}')
    plain, able = Caller().call(name="t", _meta={"a": 1}), other.call(name="t", _meta={"a": 1})
    assert b"sampling" not in sent(link, plain)
    assert b"sampling" in sent(link, able)


def test_another_stamp_forgets_the_remembered_texts() -> None:
    link, call = rewriter(is_modern=True), modern_call()
    sent(link, call)
    link.adopt(modern_stamp(Payload(b'{"name":"new"}'), EMPTY))
    assert b'"new"' in sent(link, call)


def test_the_number_and_size_of_remembered_texts_is_bounded() -> None:
    link = rewriter(is_modern=True)
    for number in range(MAX_REMEMBERED * 3):
        sent(link, modern_call(other=number))
    assert f"remembered={MAX_REMEMBERED}>" in repr(link)
    link = rewriter(is_modern=True)
    sent(link, modern_call(other="x" * MAX_TEXT))
    assert "remembered=0>" in repr(link)


def test_a_request_of_our_own_carries_our_stamp() -> None:
    params, token = rewriter(is_modern=True).rewrite({}, 1, None)
    assert params == encode({"_meta": wire.hop_meta({}, token=1, stamp=OURS)})
    assert token is None
    assert rewriter(is_modern=False).rewrite({}, 1, None) == (None, None)
