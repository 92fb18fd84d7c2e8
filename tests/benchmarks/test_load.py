"""The load: scenarios, the check of answers, arrivals at a rate, and one short run of everything."""

import asyncio
import json
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.__main__ import arguments, planned, processors
from benchmarks.load import Load, LoadError
from benchmarks.loadgen.arrivals import Arrivals, KernelTimer, LoopTimer
from benchmarks.loadgen.job import MODERN, Job, Tally
from benchmarks.loadgen.messages import Messages, own_message, wrong_call, wrong_list
from benchmarks.peers import Peer, Spec, filled, read
from benchmarks.plan import Plan
from benchmarks.running import rotated
from benchmarks.scenarios import NAMES, QUICK, SPECIAL, THROUGHPUT
from benchmarks.servers.answering import Answers
from benchmarks.upstream import Upstream
from benchmarks.wirework import call

PLAN = Plan(peers=(), scenarios=(), seconds=0.1, work=Path("/nowhere"), environments=Path("/nowhere"))


def test_every_scenario_has_valid_jobs() -> None:
    known = {field.name for field in fields(Job)}
    for scenario in THROUGHPUT:
        assert len({cell.name for cell in scenario.cells}) == len(scenario.cells)
        for cell in scenario.cells:
            assert {*scenario.job, *cell.job} <= known
            Job.of({**scenario.job, **cell.job})
    assert len(set(NAMES)) == len(THROUGHPUT) + len(SPECIAL)
    assert set(QUICK) < set(NAMES)


def test_every_scenario_names_known_peers() -> None:
    peers = read()
    assert all(scenario.only <= peers.keys() for scenario in THROUGHPUT)
    assert all(spec.direct or spec.start for spec in peers.values())


def test_words_of_a_command_are_filled_in() -> None:
    words = filled(
        ["{python}", "--to={port}", "{servers...}", "x"], {"python": "p", "port": "1", "servers": ["a", "b"]}
    )
    assert words == ["p", "--to=1", "a", "b", "x"]


def test_a_quick_run_is_a_part_of_a_full_one() -> None:
    full, quick = (planned(arguments(given), ["a", "b"], Path("w")) for given in ([], ["--quick", "--peers", "b"]))
    assert (full.peers, full.scenarios, full.rounds) == (("a", "b"), NAMES, 3)
    assert (quick.peers, quick.scenarios, quick.rounds) == (("b",), QUICK, 2)
    assert processors("0-1,4:2") == ((0, 1, 4), (2,))


def test_every_peer_is_first_once() -> None:
    assert [rotated("abc", by)[0] for by in range(4)] == ["a", "b", "c", "a"]


def answer(text: str, **more: object) -> bytes:
    result = {"content": [{"type": "text", "text": text}], "isError": False, **more}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (answer("t1." + "x" * 64), ""),
        (answer("t2." + "x" * 64), "not its own answer"),
        (answer("t1." + "x" * 64, isError=True), "an error"),
        (answer("t1.")[:30], "not its own answer"),
        (answer("t1. and too little of it")[:-1], "not to be understood"),
        (answer("", note="t1.", other="x" * 64), "another text"),
        (b'{"error":"t1."}', "an error"),
    ],
)
def test_an_answer_is_checked_against_its_request(body: bytes, wrong: str) -> None:
    found = wrong_call(Job(size=64), body, b"t1.", thorough=True)
    assert found.startswith(wrong)
    assert bool(found) == bool(wrong)


def test_a_list_is_checked_for_its_size_and_unique_names() -> None:
    tally, listed = Tally(), b'{"jsonrpc":"2.0","id":1,"result":%b}'
    body = listed % (Answers(7).result({"method": "tools/list"}) or b"")
    assert wrong_list(Job(expect_tools=7), body, tally, thorough=True) == ""
    assert tally.list_bytes == len(body)
    assert wrong_list(Job(expect_tools=8), body, tally, thorough=True) == "7 tools instead of 8"
    twice = listed % b'{"tools":[{"name":"a"},{"name":"a"}]}'
    assert wrong_list(Job(), twice, tally, thorough=True) == "names that are not unique"


def test_a_response_is_found_among_the_events_of_a_stream() -> None:
    stream = b'event: message\ndata: {"method":"x"}\n\ndata: {"id":12,"result":{}}\n\ndata: {"id":1,"result":{}}\n\n'
    assert own_message(stream, 1) == b'{"id":1,"result":{}}'
    assert own_message(stream, 2) == b""


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
@pytest.mark.parametrize("shape", ["echo", "blob", "sink"])
def test_servers_answer_what_the_load_asks(version: str, shape: str) -> None:
    job = Job(version=version, shape=shape, size=500, tools=(shape,))
    asked = json.loads(Messages(job).call(5, shape, b"t00001-0000000005."))
    result = Answers(3).result(asked, modern=job.is_modern)
    body = b'{"jsonrpc":"2.0","id":5,"result":%b}' % (result or b"")
    assert wrong_call(job, body, b"t00001-0000000005.", thorough=True) == ""


def test_the_counted_work_answers_the_client() -> None:
    response = b'{"jsonrpc":"2.0","id":99,"result":{"content":[]}}'
    assert json.loads(call(response, "handshake", "handshake")) == {
        "jsonrpc": "2.0",
        "id": 17,
        "result": {"content": []},
    }
    assert json.loads(call(response, "handshake", "modern"))["result"]["resultType"] == "complete"


class Slow:
    """Sends a request, and is busy for some milliseconds."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.ended = asyncio.Event()
        self.arrivals: Arrivals

    def send(self, due: int) -> None:
        self.sent.append((due, time.perf_counter_ns()))
        asyncio.get_running_loop().call_later(0.005, self.arrivals.free, self)

    def end(self) -> None:
        self.ended.set()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [LoopTimer, *([KernelTimer] if sys.platform == "linux" else [])])
async def test_a_late_request_counts_from_its_due_time(kind: type[KernelTimer | LoopTimer]) -> None:
    slow, until = Slow(), time.perf_counter_ns() + 100_000_000
    slow.arrivals = Arrivals(1000, until, kind)
    slow.arrivals.free(slow)
    await asyncio.wait_for(slow.ended.wait(), 10)
    dues = [due for due, _ in slow.sent]
    assert dues == sorted(set(dues))
    assert all(due < until for due in dues)
    assert 50 < len(dues) < 200
    assert all(due <= sent for due, sent in slow.sent)
    assert slow.sent[-1][0] < until < slow.sent[-1][1]


def test_the_load_measures_a_server() -> None:
    with Upstream(PLAN) as upstream:
        peer = Peer(Spec(name="direct", label="", direct=True), PLAN, upstream.http(1))
        peer.start()
        with Load(peer, PLAN, {"clients": 2, "warm_up": 1}) as load:
            found = load.measured()
        with Load(peer, PLAN, {"clients": 2, "warm_up": 1, "rate": 200}) as load:
            paced = load.measured()
        with (
            pytest.raises(LoadError, match="wrong answers"),
            Load(peer, PLAN, {"tools": ["echo"], "expect_tools": 9, "operation": "list"}),
        ):
            pass
    assert found["calls"] > 0
    assert found["errors"] == 0
    assert found["p99_ms"] >= found["p50_ms"] > 0
    assert 0 < paced["calls"] < 60
