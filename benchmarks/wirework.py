"""The message handling of one call, repeated: for counting instructions, which other load does not change.

python -m benchmarks.wirework small 1000
"""

import itertools
import sys
from collections.abc import Mapping
from typing import Final

from mcp_manifold import wire
from mcp_manifold.wire import Payload

_REQUEST: Final = (
    b'{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"s0__echo","arguments":{"text":"%b"},'
    b'"_meta":{"progressToken":17}}}' % (b"x" * 64)
)
_RESPONSE: Final = b'{"jsonrpc":"2.0","id":99,"result":{"content":[{"type":"text","text":"%b"}],"isError":false}}'
_OURS: Final = Payload(b'{"name":"mcp-manifold","version":"1"}')
_ERAS: Final[tuple[wire.Era, ...]] = ("handshake", "modern")
_STAMP: Final[Mapping[str, Payload]] = wire.modern_stamp(_OURS, Payload(b"{}"))


def call(response: bytes, backend: wire.Era, client: wire.Era) -> bytes:
    """One call and its result."""
    asked = wire.parse(_REQUEST)
    params = {**wire.members_of(asked), "name": Payload(b'"echo"')}
    wire.request(99, "tools/call", wire.hop_params(params, token=99, stamp=_STAMP if backend == "modern" else None))
    envelope = wire.parse_backend(response)
    result = envelope.result
    assert result is not wire.UNSET, "it is a response"
    look = (
        wire.ResultView(result, envelope.members, envelope.text) if isinstance(envelope, wire.ParsedEnvelope) else None
    )
    result = wire.map_resource_refs("tools/call", result, str, look)
    adapted = wire.adapt_result(
        result, method="tools/call", backend=backend, client=client, server_info=_OURS, view=wire.view_of(result, look)
    )
    return wire.response(Payload(b"17"), adapted)


def small() -> None:
    """A call for each combination of eras."""
    response = _RESPONSE % (b"x" * 64)
    for backend, client in itertools.product(_ERAS, _ERAS):
        call(response, backend, client)


def large() -> None:
    """A call with a large result."""
    call(_RESPONSE % (b"x" * 100_000), "handshake", "handshake")


def main() -> None:
    work = {"small": small, "large": large}[sys.argv[1]]
    for _ in range(int(sys.argv[2])):
        work()


if __name__ == "__main__":
    main()
