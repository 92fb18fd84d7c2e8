"""The metrics page on fixed numbers, its formats, and the lag of the event loop."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from mcp_manifold.core.status import STATES, ServerStatus
from mcp_manifold.errors import BackendTimeout
from mcp_manifold.fronts.http.metrics import Exposition, LoopLag, Sources
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.outcomes import OUTCOMES
from mcp_manifold.stages import Counts
from mcp_manifold.wire import EMPTY
from tests.fakes.clock import FakeClock
from tests.unit.stages.calls import Outcome, make_call, observe

pytestmark = pytest.mark.anyio

NOTES = ServerStatus(
    "notes", "ready", tools=2, prompts=3, resources=4, templates=5, moved="2026-01-31T11:00:01.250Z", latency=0.25,
    listed=7.0, lives=3, links=8, held=4, due=6, breaker="open", openings=9, waiting=9, overloaded=10, retries=11,
    dropped=12, last_error="hunter2", stderr=("hunter2",),
)  # fmt: skip


@dataclass
class Scene:
    """The sources of the metrics, for a test to change."""

    servers: list[ServerStatus] = field(default_factory=lambda: [NOTES])
    tally: Tally | None = field(default_factory=Tally)
    parked: int = 0
    tasks: int = 0
    counts: Counts = field(default_factory=lambda: Counts(lambda name: name == "notes"))
    lag: LoopLag = field(default_factory=LoopLag)

    def page(self) -> Exposition:
        return Exposition(
            Sources(
                self.counts, self.lag, lambda: self.servers, lambda: self.tally, lambda: self.parked, lambda: self.tasks
            )
        )

    def found(self) -> dict[str, float]:
        text = self.page().render()[0].decode()
        return {
            " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
            for family in plain_families(text)
            for sample in family.samples
        }


def called(counts: Counts, *outcomes: Outcome) -> None:
    """One `tools/call` to the server `notes` for each outcome."""
    for outcome in outcomes:
        observe(counts, make_call(), outcome, backend="notes")


def test_every_number_of_a_server_has_a_metric() -> None:
    found = Scene().found()
    assert {key: found[key] for key in found if key.startswith("mcp_backend_") and "_state" not in key} == {
        "mcp_backend_entries tool notes": 2,
        "mcp_backend_entries prompt notes": 3,
        "mcp_backend_entries resource notes": 4,
        "mcp_backend_entries template notes": 5,
        "mcp_backend_restarts_total notes": 2,
        "mcp_backend_breaker closed notes": 0,
        "mcp_backend_breaker open notes": 1,
        "mcp_backend_breaker half-open notes": 0,
        "mcp_backend_breaker_openings_total notes": 9,
        "mcp_backend_links_opened_total notes": 8,
        "mcp_backend_held_links notes": 4,
        "mcp_backend_pending_requests notes": 6,
        "mcp_backend_waiting_calls notes": 9,
        "mcp_backend_overloaded_total notes": 10,
        "mcp_backend_retries_total notes": 11,
        "mcp_backend_dropped_notifications_total notes": 12,
        "mcp_backend_listing_age_seconds notes": 7,
        "mcp_backend_latency_seconds notes": 0.25,
    }


@pytest.mark.parametrize("state", STATES)
def test_a_server_is_in_exactly_one_state(state: str) -> None:
    found = Scene(servers=[replace(NOTES, state=state)]).found()
    assert {key: found[key] for key in found if key.startswith("mcp_backend_state")} == {
        f"mcp_backend_state notes {each}": float(each == state) for each in STATES
    }


def test_unknown_numbers_have_no_metric() -> None:
    unknown = replace(NOTES, latency=None, listed=None, lives=0)
    found = Scene(servers=[unknown, ServerStatus("off", "disabled"), ServerStatus("bad", "broken")]).found()
    assert "mcp_backend_latency_seconds notes" not in found
    assert "mcp_backend_listing_age_seconds notes" not in found
    assert found["mcp_backend_restarts_total notes"] == 0
    assert {key for key in found if "off" in key.split() and found[key]} == {"mcp_backend_state off disabled"}
    assert {key for key in found if "bad" in key.split() and found[key]} == {"mcp_backend_state bad broken"}


def test_fronts_and_bridge_have_metrics() -> None:
    tally = Tally(sessions=1, streams=2, dropped_events=3, refused=4, bytes_in=5, bytes_out=6)
    found = Scene(tally=tally, parked=7, tasks=8).found()
    assert {
        "mcp_proxy_sessions": 1,
        "mcp_proxy_streams": 2,
        "mcp_proxy_dropped_events_total": 3,
        "mcp_proxy_refused_requests_total": 4,
        "mcp_proxy_received_bytes_total": 5,
        "mcp_proxy_sent_bytes_total": 6,
        "mcp_proxy_parked_calls": 7,
        "mcp_proxy_tasks": 8,
    }.items() <= found.items()
    early = Scene(servers=[], tally=None).found()
    assert early["mcp_proxy_sessions"] == 0
    assert not any(key.startswith("mcp_backend") for key in early)


def test_calls_are_shown_by_outcome_and_in_buckets_that_add_up() -> None:
    scene = Scene()
    called(scene.counts, EMPTY, EMPTY, BackendTimeout("notes", "hunter2"))
    found = scene.found()
    requests = {key: found[key] for key in found if key.startswith("mcp_proxy_requests_total")}
    assert requests == {
        "mcp_proxy_requests_total tools/call ok notes": 2,
        "mcp_proxy_requests_total tools/call timeout notes": 1,
    }
    buckets = [found[key] for key in found if key.startswith("mcp_proxy_latency_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["mcp_proxy_latency_seconds_count tools/call notes"] == 3
    assert found["mcp_proxy_latency_seconds_sum tools/call notes"] > 0
    assert found["mcp_proxy_in_flight tools/call"] == 0


def test_the_written_reference_has_every_metric_and_no_other() -> None:
    scene = Scene()
    called(scene.counts, EMPTY)
    families = plain_families(scene.page().render()[0].decode())
    shown = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    text = (Path(__file__).parents[3] / "docs" / "observability.md").read_text("utf-8")
    written = set(re.findall(r"^\| `(mcp_\w+)` \|", text, re.M))
    assert written == {name for name in shown if name.startswith("mcp_")}
    assert {f"`{outcome}`" for outcome in OUTCOMES} <= set(re.findall(r"^\| (`\w+`) \|", text, re.M))
    assert {f"`{state}`" for state in STATES} <= set(re.findall(r"^\| (`[\w ]+`) \|", text, re.M))


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "text/html", "application/openmetrics-text; version=x", ";;,=;"]
)
def test_the_default_format_is_plain_text_with_escaped_labels(accept: str) -> None:
    odd = 'a"b\\c d} 1'
    body, content_type = Scene(servers=[replace(NOTES, name=odd)]).page().render(accept)
    assert content_type.startswith("text/plain")
    assert b"hunter2" not in body, "no text from servers"
    samples = [sample for family in plain_families(body.decode()) for sample in family.samples]
    assert {sample.labels["server"] for sample in samples if "server" in sample.labels} == {odd}


def test_an_accept_header_selects_openmetrics() -> None:
    body, content_type = Scene().page().render("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = open_families(body.decode())  # type: ignore[no-untyped-call]  # the library's own
    assert "mcp_backend_state" in {family.name for family in families}


async def test_a_blocked_loop_is_late_until_the_worst_lag_is_read() -> None:
    clock, late = FakeClock(), 0.25
    lag = LoopLag(lambda: clock.now() + late)
    lag.end()
    assert (lag.last, lag.worst(), clock.pending) == (0, 0, 0)
    lag.begin(clock)
    lag.begin(clock)
    assert clock.pending == 1
    late = 0.75
    await clock.advance(1)
    assert (lag.last, lag.worst(), lag.worst()) == (0.5, 0.5, 0)
    late = 2.0
    assert lag.worst() == 0.25  # a sample that is overdue
    lag.end()
    assert repr(lag) == "<LoopLag idle last=0.5000s>"
    assert clock.pending == 0
