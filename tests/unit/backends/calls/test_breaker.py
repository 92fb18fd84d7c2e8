"""The circuit breaker: when it opens, admits a trial and closes; by example and against random sequences."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_manifold.backends.calls.breaker import MAX_BACKOFF_FACTOR, Breaker, Position


def opened(at: float = 0.0, *, failures: int = 3, wait: float = 5.0) -> Breaker:
    """A breaker that opened at that moment."""
    breaker = Breaker(failures=failures, wait=wait)
    for _ in range(failures):
        breaker.failed(at, "no answer")
    return breaker


def test_a_breaker_opens_after_consecutive_failures() -> None:
    breaker = Breaker(failures=3, wait=5.0)
    for _ in range(10):
        breaker.failed(1.0, "no answer")
        breaker.close()
    for _ in range(2):
        breaker.failed(1.0, "no answer")
        assert (breaker.position, breaker.is_shut, breaker.left(1.0)) == (Position.CLOSED, False, None)
    breaker.failed(1.0, "no answer within 60 s")
    assert (breaker.position, breaker.is_shut, breaker.left(2.0)) == (Position.OPEN, True, 4.0)
    assert (breaker.reason, breaker.openings) == ("no answer within 60 s", 1)


def test_an_open_breaker_admits_one_trial_after_each_wait_and_its_answer_closes_it() -> None:
    breaker = opened(10.0)
    assert not breaker.admits(14.9)
    assert breaker.admits(15.0)
    assert breaker.position is Position.HALF_OPEN
    assert not breaker.admits(19.9), "the trial is in flight"
    assert breaker.admits(20.0), "the trial came to no end"
    breaker.close()
    assert (breaker.position, breaker.is_shut, breaker.failed_in_row) == (Position.CLOSED, False, 0)
    assert breaker.admits(20.0)


def test_each_failed_trial_doubles_the_wait_up_to_a_bound() -> None:
    breaker, now = opened(0.0, wait=1.0), 0.0
    waits = []
    for _ in range(7):
        left = breaker.left(now)
        assert left is not None
        waits.append(left)
        now += left
        assert breaker.admits(now)
        breaker.failed(now, "no answer")
    assert waits == [1, 2, 4, 8, MAX_BACKOFF_FACTOR, MAX_BACKOFF_FACTOR, MAX_BACKOFF_FACTOR]
    assert breaker.openings == 1
    breaker.close()
    for _ in range(3):
        breaker.failed(now, "no answer")
    assert breaker.left(now) == 1.0


def test_calls_in_flight_when_it_opened_change_nothing_by_failing() -> None:
    breaker = opened(10.0)
    for _ in range(20):
        breaker.failed(12.0, "no answer")
    assert breaker.left(12.0) == 3.0


def test_a_breaker_of_no_failures_is_closed_and_stays_closed() -> None:
    breaker = opened(10.0)
    breaker.adapt(failures=0, wait=5.0)
    for _ in range(100):
        assert (breaker.is_shut, breaker.admits(10.0)) == (False, True)
        breaker.failed(10.0, "no answer")


def test_the_repr_shows_the_position() -> None:
    breaker = Breaker(failures=3, wait=5.0)
    assert "closed" in repr(breaker)
    breaker = opened(0.0)
    assert "open" in repr(breaker)
    breaker.admits(5.0)
    assert "half-open" in repr(breaker)


@given(failures=st.integers(1, 20), more=st.integers(0, 50))
def test_no_more_calls_are_admitted_than_may_fail(failures: int, more: int) -> None:
    breaker = Breaker(failures=failures, wait=5.0)
    through = 0
    for _ in range(failures + more):
        if breaker.admits(1.0):
            through += 1
            breaker.failed(1.0, "no answer")
    assert through == failures


class Calls(RuleBasedStateMachine):
    """Calls that are admitted or refused, and answered or not, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(failures=3, wait=2.0)
        self.now = 0.0
        self.last_trial = -100.0

    @rule(after=st.floats(0, 10))
    def passes(self, after: float) -> None:
        self.now += after

    @rule()
    def is_called(self) -> None:
        was_shut = self.breaker.is_shut
        admitted = self.breaker.admits(self.now)
        assert admitted or was_shut
        if admitted and was_shut:  # between two trials there is a wait
            assert self.now - self.last_trial >= 2.0 - 1e-9
            self.last_trial = self.now

    @rule()
    def fails(self) -> None:
        self.breaker.failed(self.now, "no answer")

    @rule()
    def answers(self) -> None:
        self.breaker.close()
        self.last_trial = -100.0

    @invariant()
    def is_shut_exactly_while_it_is_not_closed(self) -> None:
        assert self.breaker.is_shut == (self.breaker.position is not Position.CLOSED)
        assert (self.breaker.left(self.now) is None) == (not self.breaker.is_shut)
        assert self.breaker.is_shut or self.breaker.failed_in_row < 3

    @invariant()
    def is_tried_again_in_bounded_time(self) -> None:
        assert (self.breaker.left(self.now) or 0.0) <= 2.0 * MAX_BACKOFF_FACTOR


TestCalls = Calls.TestCase
