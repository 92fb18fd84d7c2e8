"""Invariants of link sharing, whatever is known of a backend."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.link.isolation import SHARED, BackendTraits, link_key_of
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload, encode

CAPABILITIES = ("roots", "sampling", "elicitation")
asked = st.frozensets(st.sampled_from(CAPABILITIES))
isolations = st.sampled_from(["auto", "shared", "client"])
keys = st.text("0123456789abcdef", min_size=1, max_size=4)
knowledge = st.builds(
    BackendTraits,
    st.sampled_from(["stdio", "http", "sse", ""]),
    st.sampled_from(["handshake", "modern"]),
    asked,
    st.booleans(),
)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """A client of either era."""
    modern = draw(st.booleans())
    declared = Payload(encode({name: {} for name in sorted(draw(asked))}))
    principal = draw(keys)
    version = MODERN_VERSION if modern else LATEST_HANDSHAKE
    key = "" if modern else "s" + draw(keys)
    return Session(key, Principal(principal, principal), "", version, capabilities=declared)


@given(sessions(), sessions(), isolations, knowledge)
def test_two_principals_share_a_link_only_if_it_is_shared_by_all(one, other, isolation, known) -> None:  # type: ignore[no-untyped-def]  # drawn
    first, second = link_key_of(one, isolation, known), link_key_of(other, isolation, known)
    if first.key == second.key and first != SHARED and first.only is None:
        assert one is other or one.key == other.key
        assert one.key or one.principal == other.principal


@given(sessions(), isolations, knowledge)
def test_a_client_that_supports_requests_gets_a_link_that_can_send_them(session, isolation, known) -> None:  # type: ignore[no-untyped-def]  # drawn
    place = link_key_of(session, isolation, known)
    if place.only is not None:
        assert isolation == "auto"
        assert place.only == session.wants
        assert not session.wants & known.asks


@given(sessions(), isolations, knowledge)
def test_only_a_clients_own_link_has_its_capabilities(session, isolation, known) -> None:  # type: ignore[no-untyped-def]  # drawn
    place = link_key_of(session, isolation, known)
    assert not (place.exclusive and place.exact)
    if place.exact:
        assert place.key == session.key
    if isolation == "shared":
        assert place == SHARED
    if isolation == "client" and (session.key or session.era == "modern"):
        assert place.key
