"""Start-up time: to the version, to the first answer, and to the first complete list."""

import json
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from benchmarks import processes
from benchmarks.peers import Peer, Spec, filled, places
from benchmarks.plan import ROOT
from benchmarks.rows import Figures
from benchmarks.running import Bench, rotated
from benchmarks.upstream import Server, Upstream
from tests.peers.processes import stop

NAME: Final = "start"
SERVERS: Final = 10
TOOLS: Final = 5
_PATIENCE: Final = 45.0  # seconds for a list that waits for a silent server
_WHO: Final = {"name": "benchmark", "version": "1"}
_GREETING: Final = {"clientInfo": _WHO, "capabilities": {}, "protocolVersion": "2025-06-18"}


def run(bench: Bench) -> None:
    """Measure every start."""
    _versions(bench)
    with Upstream(bench.plan) as upstream:
        whole = upstream.stdio(SERVERS, tools=TOOLS)
        hanging = upstream.stdio(SERVERS, tools=TOOLS, silent=(2,))
        for round_ in range(bench.plan.rounds):
            for spec in rotated(_peers(bench, "http"), round_):
                _twice(bench, spec, whole, round_)
            for spec in rotated(_peers(bench, "stdio"), round_):
                _twice(bench, spec, whole, round_)
        for spec in _peers(bench, "http"):
            _once(bench, spec, hanging)


def _peers(bench: Bench, transport: str) -> list[Spec]:
    return [spec for spec in bench.specs("stdio", transport, direct=False) if not spec.name.startswith("limit")]


def _versions(bench: Bench) -> None:
    for round_ in range(bench.plan.rounds):
        for spec in rotated(bench.specs("stdio", direct=False), round_):
            if spec.version:
                command = filled(spec.version, places(spec, bench.plan))
                bench.measure(NAME, "the version", spec.name, round_, partial(_took, command))


def _twice(bench: Bench, spec: Spec, servers: Sequence[Server], round_: int) -> None:
    """The first start, and one with the files of the first."""
    way, work = ("over stdio", _asked) if spec.transport == "stdio" else ("over HTTP", _listed)
    peer = Peer(spec, bench.plan, servers)
    try:
        for cell in (f"first list {way}, 10 stdio servers", f"the same {way}, started again"):
            bench.measure(NAME, cell, spec.name, round_, partial(work, peer, SERVERS * TOOLS))
            peer.stop(keep=True)
    finally:
        peer.stop()


def _once(bench: Bench, spec: Spec, servers: Sequence[Server]) -> None:
    peer = Peer(spec, bench.plan, servers)
    try:
        work = partial(_listed, peer, (SERVERS - 1) * TOOLS)
        bench.measure(NAME, "first list over HTTP, one of them silent", spec.name, 0, work)
    finally:
        peer.stop()


def _listed(peer: Peer, expected: int) -> Figures:
    peer.start(expected=None)
    answering = peer.wait(0, _PATIENCE)
    seconds = peer.wait(expected, _PATIENCE)
    return {"answers_s": answering, "seconds": seconds, "cpu_s": processes.cpu(peer.pid)}


def _asked(peer: Peer, expected: int) -> Figures:
    pipe = subprocess.PIPE
    process = peer.spawned(peer.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    try:
        _answer(process, 1, "initialize", _GREETING)
        answering = time.perf_counter() - peer.started
        number = 2
        while len(_answer(process, number, "tools/list", {})["tools"]) < expected:
            number += 1
            if time.perf_counter() - peer.started > _PATIENCE:
                raise RuntimeError(f"no {expected} tools in {_PATIENCE:g} s")
            time.sleep(0.01)
        seconds = time.perf_counter() - peer.started
        return {"answers_s": answering, "seconds": seconds, "cpu_s": processes.cpu(process.pid)}
    finally:
        stop(process)


def _answer(process: "subprocess.Popen[bytes]", number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    while line := process.stdout.readline():
        said: dict[str, Any] = json.loads(line)
        if said.get("id") == number and "result" in said:
            result: dict[str, Any] = said["result"]
            return result
    raise RuntimeError("it ended")


def _took(command: list[str]) -> Figures:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return {"seconds": time.perf_counter() - begun}
