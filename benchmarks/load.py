"""The load generator's process, as the harness sees it: started with a job, measured together with its peer."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Self

from benchmarks import processes
from benchmarks.peers import Peer
from benchmarks.plan import ROOT, Plan
from tests.peers.processes import stop

_MORE: Final = 90  # seconds after the measured time until the load generator must have ended


class LoadError(RuntimeError):
    """The load could not start, or its first answers were wrong."""


class Load:
    """The clients of a peer, connected and warm, as a context manager."""

    def __init__(self, peer: Peer, plan: Plan, job: Mapping[str, Any]) -> None:
        self.ready: dict[str, Any] = {}
        self._peer = peer
        self._plan = plan
        tool = {"blob": "blob", "sink": "sink"}.get(job.get("shape", ""), "echo")
        self._job = {
            "transport": peer.transport,
            "url": peer.url,
            "headers": dict(peer.spec.headers),
            "tools": peer.tools(tool),
            "seconds": plan.seconds,
            "cpus": plan.load_cpus,
            **job,
        }
        if peer.transport == "stdio":
            self._job |= {"command": peer.command, "cwd": str(ROOT)}
            self._job |= {"target_cpus": plan.target_cpus} if not peer.spec.direct else {}

    def __enter__(self) -> Self:
        """Connect the clients. Raises LoadError: a client could not connect."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.loadgen", json.dumps(self._job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        try:
            self.ready = self._said("ready")
        except BaseException:
            stop(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate("\n", timeout=10)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            stop(self._process)

    @property
    def root(self) -> int:
        """The measured process."""
        return self.ready.get("pid") or self._peer.pid

    def begin(self) -> None:
        """Start the measured time."""
        if self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """The outcome, once the load has ended."""
        return self._said("result")

    def measured(self) -> dict[str, float]:
        """Run the load; returns its own figures with the peer's CPU and memory."""
        used, begun = processes.cpu(self.root), time.perf_counter()
        self.begin()
        found = self.result()
        used, wall = processes.cpu(self.root) - used, time.perf_counter() - begun
        if found["errors"]:
            raise LoadError(f"{found['errors']} wrong answers: {found['error_samples']}")
        if not found["calls"]:
            raise LoadError("no answer at all")
        held = processes.memory(self.root)
        figures = {key: value for key, value in found.items() if isinstance(value, int | float)}
        return {
            **figures,
            "cpu_us": used / found["calls"] * 1e6,
            "busy": used / wall,
            "load_busy": found["load_cpu_s"] / wall,
            "rss_mb": held.rss,
        }

    def _said(self, what: str) -> dict[str, Any]:
        output, limit = self._process.stdout, self._job["seconds"] + _MORE
        if output is None or not select.select([output], [], [], limit)[0]:
            raise LoadError("the load generator said nothing")
        said = json.loads(output.readline() or '{"failed": "the load generator ended"}')
        if "failed" in said:
            raise LoadError(said["failed"])
        found: dict[str, Any] = said[what]
        return found
