"""Decodes a response's content-encoding, one portion at a time. Pure; knows no connection and no limit."""

import zlib
from collections.abc import Iterator
from typing import Final

from mcp_manifold.paced_reader import portions

_PIECE: Final = 65536
"""Bytes that one step may inflate to: the body limit stops a decompression bomb, not the memory."""
_AUTO: Final = zlib.MAX_WBITS + 32  # gzip or zlib, by the data's header
_RAW: Final = -zlib.MAX_WBITS


class UnknownEncoding(Exception):
    """The response has a content-encoding that this client does not know."""


class Inflater:
    """The decoder of one gzip or deflate body. `deflate` may have the zlib header or, as is often sent, none."""

    __slots__ = ("_begun", "_decoder", "_first", "_raw_allowed")

    def __init__(self, *, raw_allowed: bool) -> None:
        self._raw_allowed = raw_allowed
        self._decoder = zlib.decompressobj(_AUTO)
        self._first = b""
        self._begun = False

    def __repr__(self) -> str:
        return f"<Inflater {'finished' if self.is_finished else 'unfinished'}>"

    @property
    def is_finished(self) -> bool:
        """Whether the body may end here: after its last byte, or before its first."""
        return self._decoder.eof or not (self._begun or self._first)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes.

        Raises:
            zlib.error: the data is corrupt, or continues after its end.
        """
        if not self._begun:
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return
            self._begin(data)
        while data:
            if self._decoder.eof:
                raise zlib.error("data after the end of the compressed body")
            piece = self._decoder.decompress(data, _PIECE)
            data = self._decoder.unconsumed_tail or self._decoder.unused_data
            yield from portions(piece)

    def _begin(self, data: bytes) -> None:
        self._begun = True
        is_zlib = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
        if self._raw_allowed and not is_zlib:
            self._decoder = zlib.decompressobj(_RAW)


def inflater(encoding: str | None) -> Inflater | None:
    """The decoder for a `content-encoding`; None for identity.

    Raises:
        UnknownEncoding: no decoder is known.
    """
    match (encoding or "identity").strip().lower():
        case "identity" | "":
            return None
        case "gzip" | "x-gzip":
            return Inflater(raw_allowed=False)
        case "deflate":
            return Inflater(raw_allowed=True)
        case _:
            raise UnknownEncoding
