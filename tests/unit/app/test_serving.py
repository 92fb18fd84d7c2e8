"""Serving: the addresses it may listen on, and the errors for others."""

import socket
from contextlib import nullcontext
from typing import Any

import pytest

from mcp_manifold.app.listening import bound, require_safe
from mcp_manifold.config import ManifoldSettings
from mcp_manifold.errors import ConfigError
from mcp_manifold.http1.origin import is_loopback


def settings(**values: Any) -> ManifoldSettings:
    return ManifoldSettings.model_validate(values)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_addresses_need_no_token(host: str) -> None:
    assert is_loopback(host)
    require_safe(settings(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "::", "[::]", "192.168.1.5", "example.org", "localhost.example.org", "127.0.0.1.nip.io", "127.1",
        "*", " ",
    ],
)  # fmt: skip
def test_other_addresses_need_a_token_or_insecure(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="refusing to listen") as caught:
        require_safe(settings(host=host))
    assert "--insecure" in str(caught.value)
    require_safe(settings(host=host, insecure=True))
    require_safe(settings(host=host, tokens=["s3cret-token"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_zero_selects_a_free_port(host: str) -> None:
    (listening,) = bound(settings(host=host, port=0))
    with listening:
        assert listening.getsockname()[1] > 0
        assert not listening.getblocking()
        socket.create_connection(listening.getsockname()[:2], timeout=5).close()


def test_several_addresses_have_one_port_and_the_wildcard_of_ipv6_serves_both_families() -> None:
    sockets = bound(settings(host="127.0.0.1, [::1]", port=0))
    port = sockets[0].getsockname()[1]
    assert [each.getsockname()[:2] for each in sockets] == [("127.0.0.1", port), ("::1", port)]
    (both,) = bound(settings(host="::", port=0))
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, both.getsockname()[1]), timeout=5).close()
    for each in (*sockets, both):
        each.close()


@pytest.mark.parametrize(("host", "is_safe"), [("127.0.0.1, ::1", True), ("127.0.0.1, 0.0.0.0", False)])
def test_one_address_that_is_not_loopback_needs_a_token(host: str, is_safe: bool) -> None:
    with nullcontext() if is_safe else pytest.raises(ConfigError, match="refusing to listen"):
        require_safe(settings(host=host))


def test_a_port_in_use_is_an_error_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: .*choose another with --port"):
            bound(settings(port=port))


@pytest.mark.parametrize("host", ["host.invalid", "a" * 70 + ".invalid", "a..b", "203.0.113.7"])
def test_an_unusable_address_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        bound(settings(host=host, port=0))
