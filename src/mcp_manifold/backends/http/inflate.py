"""Undoes a response's content-encoding, a bounded piece at a time. Knows nothing of connections or limits."""

import zlib
from collections.abc import Iterator

_PIECE = 65536  # the most that one step may inflate to: a bomb is stopped by its reader, not by memory
_AUTO = zlib.MAX_WBITS + 32  # gzip or zlib, as the data itself says
_RAW = -zlib.MAX_WBITS


class UnknownEncoding(Exception):
    """The response is encoded in a way that was neither asked for nor is known."""


class Inflater:
    """One gzip or deflate body. `deflate` is read both as specified (zlib) and as often sent (raw)."""

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
        """Whether the body may end here: at the end of its data, or before its first byte."""
        return self._decoder.eof or not (self._begun or self._first)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Inflate the next bytes.

        Raises:
            zlib.error: the data is corrupt, or goes on after its end.
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
            if piece:
                yield piece

    def _begin(self, data: bytes) -> None:
        self._begun = True
        is_zlib = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
        if self._raw_allowed and not is_zlib:
            self._decoder = zlib.decompressobj(_RAW)


def inflater(encoding: str | None) -> Inflater | None:
    """What undoes this `content-encoding`; None where there is nothing to undo.

    Raises:
        UnknownEncoding: nothing here can undo it.
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
