"""The rules of a backend's life: the whole table, how long it waits, and any sequence of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_manifold.backends.lifecycle import FIRST_DELAY, MAX_DELAY, STEADY, Event, State, Status, advance, backoff

NEXT = {
    (State.IDLE, Event.STARTED): State.CONNECTING,
    (State.CONNECTING, Event.OPENED): State.READY,
    (State.CONNECTING, Event.FAILED): State.BACKING_OFF,
    (State.READY, Event.LOST): State.BACKING_OFF,
    (State.READY, Event.FELL_SILENT): State.DEGRADED,
    (State.DEGRADED, Event.ANSWERED): State.READY,
    (State.DEGRADED, Event.LOST): State.BACKING_OFF,
    (State.BACKING_OFF, Event.STARTED): State.CONNECTING,
    (State.IDLE, Event.STOPPED): State.STOPPED,
    (State.CONNECTING, Event.STOPPED): State.STOPPED,
    (State.READY, Event.STOPPED): State.STOPPED,
    (State.DEGRADED, Event.STOPPED): State.STOPPED,
    (State.BACKING_OFF, Event.STOPPED): State.STOPPED,
    (State.STOPPED, Event.STOPPED): State.STOPPED,
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_leads_where_the_table_says_or_cannot_happen(state: State, event: Event) -> None:
    if (state, event) in NEXT:
        after = advance(Status(state), event, now=5.0)
        assert (after.state, after.since) == (NEXT[state, event], 5.0)
    else:
        with pytest.raises(ValueError, match=f"{event} cannot happen to a backend that is {state}"):
            advance(Status(state), event, now=5.0)


def test_a_failure_keeps_its_reason_until_the_next_link_is_open() -> None:
    failed = advance(Status(State.CONNECTING), Event.FAILED, now=1.0, reason="refused")
    again = advance(failed, Event.STARTED, now=2.0)
    assert (failed.last_error, again.last_error) == ("refused", "refused")
    assert advance(again, Event.OPENED, now=3.0).last_error == ""


def test_a_link_that_held_makes_its_loss_the_first_failure_again() -> None:
    ready = Status(State.READY, since=100.0, failures=7)
    assert advance(ready, Event.LOST, now=100.0 + STEADY).failures == 1


def test_a_link_lost_at_once_counts_as_one_more_failure() -> None:
    ready = Status(State.READY, since=100.0, failures=7)
    assert advance(ready, Event.LOST, now=100.0 + STEADY - 0.1).failures == 8


def test_a_stopped_backend_has_no_failures_and_no_next_try() -> None:
    stopped = advance(Status(State.BACKING_OFF, 1.0, 4, 9.0, "refused"), Event.STOPPED, now=2.0)
    assert stopped == Status(State.STOPPED, 2.0)


def test_a_degraded_backend_is_open_and_says_why_until_it_answers() -> None:
    silent = advance(Status(State.READY, 1.0), Event.FELL_SILENT, now=2.0, reason="no answer")
    assert (silent.is_open, silent.last_error, silent.next_try) == (True, "no answer", None)
    answered = advance(silent, Event.ANSWERED, now=3.0)
    assert (answered.is_open, answered.last_error) == (True, "")


def test_silence_does_not_make_the_loss_of_a_link_that_held_look_like_a_crash_loop() -> None:
    silent = advance(Status(State.READY, 100.0, failures=7), Event.FELL_SILENT, now=100.0 + STEADY)
    assert advance(silent, Event.LOST, now=silent.since + 0.1).failures == 1
    shaky = advance(Status(State.READY, 100.0, failures=7), Event.FELL_SILENT, now=100.1)
    assert advance(shaky, Event.LOST, now=100.2).failures == 8


@given(failures=st.integers(1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_and_all_of_its_ceiling(failures: int, jitter: float) -> None:
    ceiling = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 30))
    assert ceiling / 2 <= backoff(failures, jitter=jitter) <= ceiling


@given(failures=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_one_more_failure_never_shortens_the_wait(failures: int, jitter: float) -> None:
    assert backoff(failures + 1, jitter=jitter) >= backoff(failures, jitter=jitter)


def test_the_first_attempt_after_a_failure_comes_quickly() -> None:
    assert backoff(1, jitter=0.999) <= FIRST_DELAY


class BackendLife(RuleBasedStateMachine):
    """Any life a backend can have."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.status = Status()

    def _move(self, event: Event, after: float, jitter: float = 0.0) -> None:
        self.now += after
        before = self.status
        self.status = advance(before, event, now=self.now, jitter=jitter, reason="why")
        assert self.status.since == self.now

    @precondition(lambda self: self.status.state in (State.IDLE, State.BACKING_OFF))
    @rule(after=st.floats(0, 60))
    def start(self, after: float) -> None:
        failures = self.status.failures
        self._move(Event.STARTED, after)
        assert self.status.failures == failures

    @precondition(lambda self: self.status.state is State.CONNECTING)
    @rule(after=st.floats(0, 60))
    def open(self, after: float) -> None:
        self._move(Event.OPENED, after)

    @precondition(lambda self: self.status.state is State.CONNECTING)
    @rule(after=st.floats(0, 60), jitter=st.floats(0, 1, exclude_max=True))
    def fail(self, after: float, jitter: float) -> None:
        failures = self.status.failures
        self._move(Event.FAILED, after, jitter)
        assert self.status.failures == failures + 1

    @precondition(lambda self: self.status.state is State.READY)
    @rule(after=st.floats(0, 60))
    def fall_silent(self, after: float) -> None:
        self._move(Event.FELL_SILENT, after)

    @precondition(lambda self: self.status.state is State.DEGRADED)
    @rule(after=st.floats(0, 60))
    def answer(self, after: float) -> None:
        self._move(Event.ANSWERED, after)

    @precondition(lambda self: self.status.is_open)
    @rule(after=st.floats(0, 60), jitter=st.floats(0, 1, exclude_max=True))
    def lose(self, after: float, jitter: float) -> None:
        self._move(Event.LOST, after, jitter)
        assert self.status.failures >= 1

    @rule()
    def stop(self) -> None:
        self._move(Event.STOPPED, 0)
        with pytest.raises(ValueError, match="stopped"):
            advance(self.status, Event.STARTED, now=self.now)
        self.status = Status(since=self.now)

    @invariant()
    def waits_exactly_while_backing_off(self) -> None:
        waits = self.status.state is State.BACKING_OFF
        assert (self.status.next_try is not None) == waits
        if self.status.next_try is not None:
            assert self.status.next_try - self.status.since + 1e-6 >= FIRST_DELAY / 2
            assert self.status.next_try - self.status.since <= MAX_DELAY + 1e-6
            assert self.status.last_error == "why"


TestBackendLife = BackendLife.TestCase
