"""How much may come in within a second. Counts; whoever asks does the waiting."""


class Pace:
    """At most so much in each second of a clock: what is over it is to wait for the next one."""

    __slots__ = ("_second", "_taken", "dropped", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.dropped = 0
        """How often there was no room for one more."""
        self._second = 0
        self._taken = 0

    def __repr__(self) -> str:
        return f"<Pace {self._taken} of {self.most} this second>"

    def rest(self, amount: int, now: float) -> float:
        """Take note of what came, and say for how many seconds nothing more should."""
        second = int(now)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += amount
        return second + 1 - now if self._taken > self.most else 0.0

    def allows(self, now: float) -> bool:
        """Take one more; False when it is too much for this second, and is to be dropped."""
        if self.rest(1, now):
            self.dropped += 1
            return False
        return True
