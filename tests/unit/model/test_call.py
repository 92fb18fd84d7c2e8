"""Sessions and calls: what a session holds of its client, and how a call is shown."""

from mcp_manifold.wire import HANDSHAKE_VERSIONS, MODERN_VERSION, Payload
from tests.unit.stages.calls import make_call


def test_the_era_of_a_session_follows_its_protocol_revision() -> None:
    session = make_call(version=MODERN_VERSION).session
    assert session.era == "modern"
    for version in HANDSHAKE_VERSIONS:
        session.speak(version)
        assert (session.version, session.era) == (version, "handshake")


def test_a_session_adopts_client_info_capabilities_and_log_level() -> None:
    session = make_call().session
    assert (bytes(session.client_info), bytes(session.capabilities), session.wants) == (b"{}", b"{}", frozenset())
    session.introduce(Payload(b'{"name":"c"}'), Payload(b'{"sampling":{},"roots":{},"extensions":{}}'))
    session.hear("debug")
    assert (bytes(session.client_info), session.log_level) == (b'{"name":"c"}', "debug")
    assert session.wants == {"sampling", "roots"}


def test_only_a_modern_backend_gets_all_capabilities_of_a_modern_client() -> None:
    session = make_call(version=MODERN_VERSION).session
    session.introduce(Payload(b"{}"), Payload(b'{"sampling":{},"unknown":{}}'))
    assert session.relayable("modern") is session.capabilities
    reduced = session.relayable("handshake")
    assert (bytes(reduced), session.relayable("handshake")) == (b'{"sampling":{}}', reduced)


def test_a_call_shows_its_method_state_and_backend() -> None:
    call = make_call()
    shown = [repr(call)]
    call.backend, call.is_cancelled = "notes", True
    shown.append(repr(call))
    call.is_done = True
    assert shown == ["<Call tools/call in flight>", "<Call tools/call cancelled at notes>"]
    assert repr(call) == "<Call tools/call done at notes>"
