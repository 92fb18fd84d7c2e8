"""The lifecycle: the whole transition table, the delays, and arbitrary sequences of events."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_manifold.model.lifecycle import (
    CRASHES,
    FIRST_DELAY,
    LOOP_DELAY,
    MAX_DELAY,
    STEADY,
    LifecycleEvent,
    State,
    Status,
    advance,
    backoff,
)

WAITING = (State.BACKING_OFF, State.CRASH_LOOP)
NEXT: dict[tuple[State, LifecycleEvent], State] = {
    (State.IDLE, LifecycleEvent.STARTED): State.CONNECTING,
    (State.IDLE, LifecycleEvent.RESTED): State.IDLE,
    (State.CONNECTING, LifecycleEvent.OPENED): State.READY,
    (State.CONNECTING, LifecycleEvent.FAILED): State.BACKING_OFF,
    (State.CONNECTING, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.READY, LifecycleEvent.LOST): State.BACKING_OFF,
    (State.READY, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.READY, LifecycleEvent.RESTED): State.IDLE,
    (State.READY, LifecycleEvent.FELL_SILENT): State.DEGRADED,
    (State.DEGRADED, LifecycleEvent.ANSWERED): State.READY,
    (State.DEGRADED, LifecycleEvent.LOST): State.BACKING_OFF,
    (State.DEGRADED, LifecycleEvent.CRASHED): State.BACKING_OFF,
    (State.DEGRADED, LifecycleEvent.RESTED): State.IDLE,
    (State.BACKING_OFF, LifecycleEvent.STARTED): State.CONNECTING,
    (State.BACKING_OFF, LifecycleEvent.RESTED): State.IDLE,
    (State.CRASH_LOOP, LifecycleEvent.STARTED): State.CONNECTING,
    (State.CRASH_LOOP, LifecycleEvent.RESTED): State.IDLE,
    **{(state, LifecycleEvent.STOPPED): State.STOPPED for state in State if state is not State.DISABLED},
}


@pytest.mark.parametrize("event", LifecycleEvent)
@pytest.mark.parametrize("state", State)
def test_every_event_follows_the_table_or_is_impossible(state: State, event: LifecycleEvent) -> None:
    if (state, event) in NEXT:
        after = advance(Status(state), event, now=5.0)
        assert (after.state, after.since) == (NEXT[state, event], 5.0)
    else:
        with pytest.raises(ValueError, match=f'event "{event}" is impossible in state "{state}"'):
            advance(Status(state), event, now=5.0)


def test_a_failure_keeps_its_reason_until_the_next_link_is_open() -> None:
    failed = advance(Status(State.CONNECTING), LifecycleEvent.FAILED, now=1.0, reason="refused")
    again = advance(failed, LifecycleEvent.STARTED, now=2.0)
    assert (failed.last_error, again.last_error) == ("refused", "refused")
    assert advance(again, LifecycleEvent.OPENED, now=3.0).last_error == ""


@pytest.mark.parametrize(("seconds", "failures"), [(STEADY, 1), (STEADY - 0.1, 8)])
def test_only_losing_a_steady_link_counts_as_the_first_failure(seconds: float, failures: int) -> None:
    ready = Status(State.READY, since=100.0, failures=7)
    assert advance(ready, LifecycleEvent.LOST, now=100.0 + seconds).failures == failures
    silent = advance(ready, LifecycleEvent.FELL_SILENT, now=100.0 + seconds)
    assert advance(silent, LifecycleEvent.LOST, now=silent.since + 0.01).failures == failures


def test_stopping_and_resting_from_an_open_link_reset_the_failures() -> None:
    stopped = advance(Status(State.BACKING_OFF, 1.0, 4, 2, 9.0, "refused"), LifecycleEvent.STOPPED, now=2.0)
    assert stopped == Status(State.STOPPED, 2.0)
    rested = advance(Status(State.READY, 1.0, failures=2, crashes=1), LifecycleEvent.RESTED, now=2.0)
    assert (rested, rested.is_resting) == (Status(State.IDLE, 2.0), True)


def test_a_degraded_backend_is_open_and_keeps_its_error_until_it_answers() -> None:
    silent = advance(Status(State.READY, 1.0), LifecycleEvent.FELL_SILENT, now=2.0, reason="no answer")
    assert (silent.is_open, silent.last_error, silent.next_try) == (True, "no answer", None)
    answered = advance(silent, LifecycleEvent.ANSWERED, now=3.0)
    assert (answered.is_open, answered.last_error) == (True, "")


def crashed(times: int, status: Status = Status(State.CONNECTING), after: float = 0.0) -> Status:  # noqa: B008 - a value
    """The status after `times` crashes in a row, each `after` seconds after its start."""
    for _ in range(times):
        status = advance(
            replace(status, state=State.CONNECTING), LifecycleEvent.CRASHED, now=status.since + after, reason="why"
        )
    return status


def test_r3_a_process_that_crashes_repeatedly_is_in_a_crash_loop() -> None:
    assert crashed(CRASHES - 1).state is State.BACKING_OFF
    assert crashed(CRASHES).state is State.CRASH_LOOP
    assert crashed(CRASHES + 7).state is State.CRASH_LOOP


@given(times=st.integers(CRASHES, 1000), jitter=st.floats(0, 1, exclude_max=True))
def test_r3_in_a_crash_loop_there_is_at_most_one_start_in_thirty_seconds(times: int, jitter: float) -> None:
    before = replace(crashed(min(times, CRASHES)), crashes=times, state=State.CONNECTING)
    looping = advance(before, LifecycleEvent.CRASHED, now=100.0, jitter=jitter)
    assert looping.next_try is not None
    assert LOOP_DELAY <= looping.next_try - 100.0 <= 1.5 * LOOP_DELAY
    assert LOOP_DELAY >= 30.0
    assert looping.next_try - 100.0 >= MAX_DELAY


def test_a_steady_link_ends_a_crash_loop() -> None:
    steady = replace(crashed(CRASHES + 3), state=State.READY, since=100.0, next_try=None)
    after = advance(steady, LifecycleEvent.CRASHED, now=100.0 + STEADY)
    assert (after.state, after.failures, after.crashes) == (State.BACKING_OFF, 1, 1)


def test_a_failure_other_than_a_crash_resets_the_crash_count() -> None:
    almost = replace(crashed(CRASHES - 1), state=State.CONNECTING)
    failed = advance(almost, LifecycleEvent.FAILED, now=9.0, reason="no answer")
    assert (failed.failures, failed.crashes) == (CRASHES, 0)
    assert advance(replace(failed, state=State.CONNECTING), LifecycleEvent.CRASHED, now=9.5).state is State.BACKING_OFF


@pytest.mark.parametrize("times", [1, CRASHES])
def test_resting_after_a_failure_keeps_the_failures(times: int) -> None:
    rested = advance(crashed(times), LifecycleEvent.RESTED, now=50.0)
    assert (rested.state, rested.failures, rested.last_error, rested.next_try) == (State.IDLE, times, "why", None)
    assert not rested.is_resting
    again = advance(advance(rested, LifecycleEvent.STARTED, now=60.0), LifecycleEvent.CRASHED, now=60.1, reason="why")
    assert again.crashes == times + 1


@given(failures=st.integers(1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_between_half_and_all_of_its_ceiling(failures: int, jitter: float) -> None:
    ceiling = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 30))
    assert ceiling / 2 <= backoff(failures, jitter=jitter) <= ceiling
    assert backoff(failures + 1, jitter=jitter) >= backoff(failures, jitter=jitter)


class BackendLife(RuleBasedStateMachine):
    """Any sequence of possible events."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.status = Status()

    def _move(self, event: LifecycleEvent, after: float, jitter: float = 0.0) -> None:
        self.now += after
        before = self.status
        self.status = advance(before, event, now=self.now, jitter=jitter, reason="why")
        assert self.status.since == self.now

    @precondition(lambda self: self.status.state is State.IDLE or self.status.state in WAITING)
    @rule(after=st.floats(0, 60))
    def start(self, after: float) -> None:
        failures = self.status.failures
        self._move(LifecycleEvent.STARTED, after)
        assert self.status.failures == failures

    @precondition(lambda self: self.status.state is State.CONNECTING)
    @rule(after=st.floats(0, 60))
    def open(self, after: float) -> None:
        self._move(LifecycleEvent.OPENED, after)

    @precondition(lambda self: self.status.state is State.CONNECTING)
    @rule(after=st.floats(0, 60), jitter=st.floats(0, 1, exclude_max=True))
    def fail(self, after: float, jitter: float) -> None:
        failures = self.status.failures
        self._move(LifecycleEvent.FAILED, after, jitter)
        assert self.status.failures == failures + 1

    @precondition(lambda self: self.status.state is State.CONNECTING or self.status.is_open)
    @rule(after=st.floats(0, 60), jitter=st.floats(0, 1, exclude_max=True))
    def crash(self, after: float, jitter: float) -> None:
        crashes, was_steady = self.status.crashes, self.status.is_open and after >= STEADY
        self._move(LifecycleEvent.CRASHED, after, jitter)
        assert self.status.crashes == (1 if was_steady else crashes + 1)
        assert (self.status.state is State.CRASH_LOOP) == (self.status.crashes >= CRASHES)

    @precondition(lambda self: self.status.state in WAITING or self.status.is_open or self.status.state is State.IDLE)
    @rule(after=st.floats(0, 60))
    def rest(self, after: float) -> None:
        was_open, failures = self.status.is_open, self.status.failures
        self._move(LifecycleEvent.RESTED, after)
        assert self.status.failures == (0 if was_open else failures)
        assert self.status.is_resting == (self.status.failures == 0)

    @precondition(lambda self: self.status.state is State.READY)
    @rule(after=st.floats(0, 60))
    def fall_silent(self, after: float) -> None:
        self._move(LifecycleEvent.FELL_SILENT, after)

    @precondition(lambda self: self.status.state is State.DEGRADED)
    @rule(after=st.floats(0, 60))
    def answer(self, after: float) -> None:
        self._move(LifecycleEvent.ANSWERED, after)

    @precondition(lambda self: self.status.is_open)
    @rule(after=st.floats(0, 60), jitter=st.floats(0, 1, exclude_max=True))
    def lose(self, after: float, jitter: float) -> None:
        self._move(LifecycleEvent.LOST, after, jitter)
        assert self.status.failures >= 1

    @rule()
    def stop(self) -> None:
        self._move(LifecycleEvent.STOPPED, 0)
        with pytest.raises(ValueError, match="stopped"):
            advance(self.status, LifecycleEvent.STARTED, now=self.now)
        self.status = Status(since=self.now)

    @invariant()
    def waits_exactly_while_backing_off(self) -> None:
        assert (self.status.next_try is not None) == (self.status.state in WAITING)
        if self.status.next_try is not None:
            is_looping = self.status.state is State.CRASH_LOOP
            least, most = (LOOP_DELAY, 1.5 * LOOP_DELAY) if is_looping else (FIRST_DELAY / 2, MAX_DELAY)
            assert least - 1e-6 <= self.status.next_try - self.status.since <= most + 1e-6
            assert self.status.last_error == "why"


TestBackendLife = BackendLife.TestCase
