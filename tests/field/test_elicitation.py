"""Clients that declare elicitation in the ways that clients do."""

from typing import Any

import pytest

from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import EMPTY, Payload, encode, refusal

DECLARED: list[tuple[Any, bool, bool]] = [
    ({}, True, False),
    ({"form": {}}, True, False),
    ({"Form": None}, True, False),
    ({"applyDefaults": True}, True, False),
    ({"form": {}, "url": {}}, True, True),
    ({"url": {}}, False, True),
]


@pytest.mark.parametrize(("declared", "forms", "urls"), DECLARED, ids=str)
def test_a_client_is_asked_in_the_modes_that_servers_read_from_what_it_declares(
    declared: Any, forms: bool, urls: bool
) -> None:
    capabilities = Payload(encode({"elicitation": declared}))
    for params, asked in (
        ({"message": "?"}, forms),
        ({"mode": "form"}, forms),
        ({"mode": "url", "url": "https://x.test"}, urls),
    ):
        assert (refusal("elicitation/create", Payload(encode(params)), capabilities) is None) == asked


@pytest.mark.parametrize(
    ("version", "is_asked"), [("2024-11-05", False), ("2025-03-26", False), ("2025-06-18", True), ("2025-11-25", True)]
)
def test_a_client_of_a_revision_without_elicitation_is_never_asked(version: str, is_asked: bool) -> None:
    session = Session("s", ANONYMOUS, "", version)
    session.introduce(EMPTY, Payload(b'{"elicitation":{},"roots":{}}'))
    assert session.wants == ({"roots", "elicitation"} if is_asked else {"roots"})
    assert (b"elicitation" in bytes(session.relayable("handshake"))) == is_asked
