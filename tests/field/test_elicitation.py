"""Clients that declare elicitation in the ways that clients do."""

from typing import Any

import pytest

from mcp_manifold.wire import Payload, encode, refusal

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
