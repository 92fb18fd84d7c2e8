"""Eras and revisions."""

import pytest

from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, era_of, negotiate_version


def test_every_revision_has_its_era() -> None:
    assert {era_of(version) for version in HANDSHAKE_VERSIONS} == {"handshake"}
    assert era_of(MODERN_VERSION) == "modern"


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
def test_a_known_handshake_revision_is_accepted(version: str) -> None:
    assert negotiate_version(version) == version


@pytest.mark.parametrize("version", ["", "2099-01-01", "1.0", MODERN_VERSION])
def test_any_other_revision_is_answered_with_the_latest(version: str) -> None:
    assert negotiate_version(version) == LATEST_HANDSHAKE
