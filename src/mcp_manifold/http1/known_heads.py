"""HTTP heads recognised by their bytes: what was parsed once need not be parsed again. Pure; knows no meaning.

Theory. A peer that keeps a connection writes the same head before every message, but for the length of the body. A head
that equals one the parser accepted, byte for byte outside the digits of that one length, can only mean the same; so if
the message is whole, there is nothing left for the parser to find out. Anything else is the parser's business.
"""

from typing import Final, Generic, TypeVar

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_MOST_DIGITS: Final = 10

T = TypeVar("T")


class HeadTemplate:
    """A head as it was written, without the digits of its length."""

    __slots__ = ("_after", "_before", "_reach")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._reach = len(after) + _MOST_DIGITS

    def __repr__(self) -> str:
        return f"<HeadTemplate of {len(self._before) + len(self._after)} bytes>"

    @classmethod
    def of(cls, message: bytes) -> "HeadTemplate | None":
        """What to recognise the head of a message by; None unless it gives the length once, in plain digits.

        Args:
            message: one that a parser accepted, from its first byte on.
        """
        end = message.find(_END)
        head = message[: end + len(_END)]
        lower = head.lower()
        at = lower.find(_LENGTH)
        if end < 0 or at < 0 or lower.find(_LENGTH, at + 1) >= 0:
            return None
        start = at + len(_LENGTH)
        while head[start : start + 1] in (b" ", b"\t"):
            start += 1
        stop = head.find(b"\r", start)
        return cls(head[:start], head[stop:]) if head[start:stop].isdigit() else None

    def body(self, message: bytes) -> bytes | None:
        """The body of a message with such a head; None if its head is another, or it is not one whole message."""
        if not message.startswith(self._before):
            return None
        start = len(self._before)
        stop = message.find(self._after, start, start + self._reach)
        if stop < 0:
            return None
        body = message[stop + len(self._after) :]
        return body if message[start:stop] == b"%d" % len(body) else None


class KnownHeads(Generic[T]):
    """The last heads of one connection that were parsed, at most `most`, and what each was found to be."""

    __slots__ = ("_found", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[tuple[HeadTemplate, T]] = []

    def __repr__(self) -> str:
        return f"<KnownHeads {len(self._found)} of {self._most} heads>"

    def find(self, message: bytes) -> tuple[T, bytes] | None:
        """What the head of a whole message was found to be, and its body; None for the parser's business."""
        for template, found in self._found:
            body = template.body(message)
            if body is not None:
                return found, body
        return None

    def learn(self, message: bytes, found: T) -> None:
        """A parser accepted one message, which is all of `message`; otherwise nothing is learnt."""
        template = HeadTemplate.of(message)
        if template is not None and template.body(message) is not None:
            self._found = [(template, found), *self._found[: self._most - 1]]
