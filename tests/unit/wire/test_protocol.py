"""Eras and revisions."""

import pytest

from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, era_of, negotiate_version


@pytest.mark.parametrize("version", [*HANDSHAKE_VERSIONS, "", "2099-01-01", "1.0", MODERN_VERSION])
def test_a_handshake_agrees_on_a_known_revision_or_the_latest(version: str) -> None:
    agreed = negotiate_version(version)
    assert agreed == (version if version in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE)
    assert era_of(agreed) == "handshake"
