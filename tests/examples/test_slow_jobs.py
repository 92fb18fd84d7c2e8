"""examples/slow_jobs.py, from a client's side: progress, log messages, cancellation and background jobs."""

from runpy import run_path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.examples.running import ERAS, EXAMPLES, INITIALIZE, Ear, Era, connected, process_of, receive, send
from tests.peers import BOUND

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # of what only handshakes have
]
jobs_server = run_path(str(EXAMPLES / "slow_jobs.py"))["jobs_server"]

LONG = {"steps": 1000, "seconds_per_step": 60}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("run_job", {"steps": 0}, "steps: Input should be greater than or equal to 1"),
    ("run_job", {"seconds_per_step": "soon"}, "seconds_per_step: "),
    ("start_job", {"step": 1}, "step: Extra inputs are not permitted"),
    ("job_status", {"job": "job-7"}, "There is no job 'job-7'. There are: none."),
    ("job_status", {}, "job: Field required"),
]


class Progress:
    """Keeps the progress of one call, and says when it has seen so many steps."""

    def __init__(self, expected: int) -> None:
        self.seen: list[tuple[float, float | None, str | None]] = []
        self.complete = anyio.Event()
        self._expected = expected

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.seen.append((progress, total, message))
        if len(self.seen) == self._expected:
            self.complete.set()


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


@pytest.mark.parametrize("era", ERAS)
async def test_a_job_reports_each_step_in_order_and_then_its_end(era: Era) -> None:
    progress = Progress(4)
    async with connected(jobs_server(), era=era) as client:
        arguments = {"steps": 4, "seconds_per_step": 0.01}
        result = await client.call_tool("run_job", arguments, progress_callback=progress)
        with anyio.fail_after(BOUND):
            await progress.complete.wait()
    assert progress.seen == [(step, 4, f"job-1: step {step}") for step in (1, 2, 3, 4)]
    assert result.structured_content == {"job": "job-1", "state": "done", "finished_steps": 4, "steps": 4}


@pytest.mark.parametrize("era", ERAS)
async def test_cancelling_the_call_cancels_the_job(era: Era) -> None:
    progress = Progress(1)
    async with connected(jobs_server(), era=era) as client:
        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as calls:
                plan = {"steps": 1000, "seconds_per_step": 0.05}
                calls.start_soon(lambda: client.call_tool("run_job", plan, progress_callback=progress))
                await progress.complete.wait()
                calls.cancel_scope.cancel()
        status = await call(client, "job_status", job="job-1", wait_seconds=5)
    assert status["state"] == "cancelled"
    assert 1 <= status["finished_steps"] < 1000


@pytest.mark.parametrize("era", ERAS)
async def test_a_background_job_goes_on_while_others_are_called(era: Era) -> None:
    async with connected(jobs_server(), era=era) as client:
        long = await call(client, "start_job", **LONG)
        short = await call(client, "start_job", steps=2, seconds_per_step=0.01)
        assert (long["job"], short["job"]) == ("job-1", "job-2")
        ended = await call(client, "job_status", job="job-2", wait_seconds=5)
        assert ended == {"job": "job-2", "state": "done", "finished_steps": 2, "steps": 2}
        listed = await call(client, "list_jobs")
    assert [(job["job"], job["state"]) for job in listed["jobs"]] == [("job-1", "running"), ("job-2", "done")]


async def test_bad_input_is_an_error_result_and_an_unknown_tool_a_protocol_error() -> None:
    async with connected(jobs_server(), era="legacy") as client:
        for tool, arguments, reason in REFUSED:
            result = await client.call_tool(tool, arguments)
            [block] = result.content
            assert isinstance(block, types.TextContent)
            assert result.is_error
            assert reason in block.text
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("stop_everything", {})


async def test_too_many_jobs_at_once_are_refused_and_the_others_stay() -> None:
    async with connected(jobs_server(), era="auto") as client:
        for _ in range(16):
            await call(client, "start_job", **LONG)
        refused = await client.call_tool("start_job", LONG)
        assert refused.is_error
        assert len((await call(client, "list_jobs"))["jobs"]) == 16


async def test_a_handshake_client_sets_the_log_level_for_the_session() -> None:
    ear = Ear()
    async with connected(jobs_server(), era="legacy", logging_callback=ear) as client:
        assert client.server_capabilities.logging is not None
        await call(client, "run_job", steps=1, seconds_per_step=0)
        assert await heard(ear, 2) == ["info job-1 started", "info job-1 is done"]
        await client.set_logging_level("error")
        await call(client, "run_job", steps=1, seconds_per_step=0)
        await client.set_logging_level("debug")
        await call(client, "run_job", steps=1, seconds_per_step=0)
        steps = ["info job-3 started", "debug job-3 finished step 1 of 1", "info job-3 is done"]
        assert await heard(ear, 3) == steps


async def test_a_2026_client_asks_for_a_log_level_with_each_request() -> None:
    ear = Ear()
    async with connected(jobs_server(), era="auto", logging_callback=ear, log_level="debug") as client:
        quiet = {"io.modelcontextprotocol/logLevel": "error"}
        await client.call_tool("run_job", {"steps": 1, "seconds_per_step": 0}, meta=quiet)  # type: ignore[arg-type]  # reserved key
        await call(client, "run_job", steps=1, seconds_per_step=0)
        steps = ["info job-2 started", "debug job-2 finished step 1 of 1", "info job-2 is done"]
        assert await heard(ear, 3) == steps


async def heard(ear: Ear, number: int) -> list[str]:
    """The next log messages, in the order they came."""
    messages = [await ear.next(types.LoggingMessageNotificationParams) for _ in range(number)]
    return [f"{message.level} {message.data}" for message in messages]


def test_the_server_ends_with_its_input_even_while_jobs_run() -> None:
    with process_of("slow_jobs.py") as process:
        send(process, INITIALIZE)
        assert receive(process)["result"]["serverInfo"]["name"] == "slow-jobs"
        send(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        for number, tool in enumerate(("start_job", "run_job"), start=2):
            params = {"name": tool, "arguments": LONG}
            send(process, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        assert receive(process)["result"]["structuredContent"]["job"] == "job-1"
        assert receive(process)["params"]["data"] == "job-2 started"
        _, logged = process.communicate(timeout=BOUND)
        assert process.returncode == 0
    assert "<Job job-1 cancelled, 0 of 1000 steps>" in logged
    assert "<Job job-2 cancelled, 0 of 1000 steps>" in logged
