"""The job of one run of the load generator, and its outcome: values that travel as JSON lines."""

import array
from dataclasses import dataclass, field
from typing import Any, Final

MODERN: Final = "2026-07-28"
_SAMPLES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: target, clients, requests and duration."""

    transport: str = "http"  # `http`, or `stdio` for a program to start
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    cwd: str | None = None
    clients: int = 1
    in_flight: int = 1  # requests in flight per client
    version: str = "2025-06-18"
    operation: str = "call"  # `call`, `list`, or `none` for idle clients
    tools: tuple[str, ...] = ("echo",)  # one tool name per server; calls rotate among them
    shape: str = "echo"  # the large part: `echo` both, `blob` the result, `sink` the arguments
    size: int = 64
    expect_tools: int = 0
    seconds: float = 2.0
    rate: float = 0.0
    """Calls per second of all clients together, at random times; 0: each call follows the previous answer."""
    warm_up: int = 20  # calls per client before the measured time, for a second at most
    holds_stream: bool = False  # each client holds a standing stream, as SDK clients do
    ends_sessions: bool = False  # sessions end with a DELETE
    timeout: float = 60.0
    cpus: tuple[int, ...] = ()
    target_cpus: tuple[int, ...] = ()

    @property
    def is_modern(self) -> bool:
        """Whether requests use the revision without a handshake."""
        return self.version == MODERN

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Job":
        """The job as one line of JSON."""
        lists = ("command", "tools", "cpus", "target_cpus")
        found: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in given.items()}
        return cls(**found)


class Tally:
    """The answers, their latencies and their errors."""

    def __init__(self) -> None:
        self.latencies = array.array("q")
        self.errors = 0
        self.samples: list[str] = []
        self.list_bytes = 0
        self.is_measuring = False

    def answered(self, nanoseconds: int) -> None:
        """Count a correct answer."""
        if self.is_measuring:
            self.latencies.append(nanoseconds)

    def wrong(self, why: str, body: bytes = b"") -> None:
        """Count a wrong or missing answer."""
        self.errors += 1
        if len(self.samples) < _SAMPLES:
            self.samples.append(f"{why}: {body[:300]!r}")

    def result(self, wall: float, cpu: float) -> dict[str, Any]:
        """The outcome as it is reported."""
        found = sorted(self.latencies)
        return {
            "calls": len(found),
            "errors": self.errors,
            "error_samples": self.samples,
            "wall_s": wall,
            "calls_per_s": len(found) / wall,
            "p50_ms": _percentile(found, 0.50),
            "p95_ms": _percentile(found, 0.95),
            "p99_ms": _percentile(found, 0.99),
            "p999_ms": _percentile(found, 0.999),
            "max_ms": _percentile(found, 1.0),
            "list_bytes": self.list_bytes,
            "load_cpu_s": cpu,
        }


def _percentile(found: list[int], share: float) -> float | None:
    return found[min(len(found) - 1, int(len(found) * share))] / 1e6 if found else None
