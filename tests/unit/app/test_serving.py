"""Serving: the addresses it may listen on, and the errors for others."""

import socket
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
    with bound(settings(host=host, port=0)) as listening:
        assert listening.getsockname()[1] > 0
        assert not listening.getblocking()
        socket.create_connection(listening.getsockname()[:2], timeout=5).close()


def test_a_port_in_use_is_an_error_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: .*choose another with --port"):
            bound(settings(port=port))


@pytest.mark.parametrize("host", ["host.invalid", "a" * 70 + ".invalid", "a..b", "203.0.113.7"])
def test_an_unusable_address_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        bound(settings(host=host, port=0))
