"""An MCP server with slow tools. It keeps its jobs in memory.

It shows a long call from outside: progress, log messages, cancellation, and a background job. It uses the SDK's
low-level `Server`, which supports logging/setLevel for handshake clients. 2026-07-28 clients send a level with each
request instead.

    python examples/slow_jobs.py
"""

from __future__ import annotations

import argparse
import logging
import signal
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Literal, get_args

import anyio
import mcp_types as types
from anyio.abc import TaskGroup
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger("slow_jobs")

MAX_RUNNING = 16  # jobs running at once
MAX_KEPT = 200  # jobs in memory; the oldest ended job is dropped first
LEVELS: tuple[types.LoggingLevel, ...] = get_args(types.LoggingLevel)  # from debug to emergency

State = Literal["running", "done", "cancelled"]
Context = ServerRequestContext["Jobs"]
Report = Callable[["Job"], Awaitable[None]]


class JobError(Exception):
    """A failed request, with a message that the caller can act on."""


class Job:
    """One job with a number of steps and seconds per step. It ends once: done or cancelled."""

    def __init__(self, name: str, steps: int, seconds: float) -> None:
        self.name = name
        self.steps = steps
        self.finished = 0
        self.state: State = "running"
        self.ended = anyio.Event()
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<Job {self.name} {self.state}, {self.finished} of {self.steps} steps>"

    async def run(self, report: Report) -> None:
        """Run the steps and report after each."""
        try:
            for _ in range(self.steps):
                await anyio.sleep(self._seconds)
                self.finished += 1
                await report(self)
        finally:
            self.state = "done" if self.finished == self.steps else "cancelled"
            logger.info("%r", self)
            self.ended.set()


class Jobs:
    """The jobs of this process, the task group of background jobs, and the client's log level."""

    def __init__(self, background: TaskGroup) -> None:
        self.level: types.LoggingLevel = "info"
        self._background = background
        self._jobs: dict[str, Job] = {}
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"<Jobs {[*self._jobs.values()]!r}>"

    def add(self, steps: int, seconds: float) -> Job:
        """Register a new job.

        Raises:
            JobError: too many jobs are running.
        """
        running = [job for job in self._jobs.values() if job.state == "running"]
        if len(running) >= MAX_RUNNING:
            raise JobError(f"{MAX_RUNNING} jobs are running; wait for one to end.")
        ended = [job for job in self._jobs.values() if job.state != "running"]
        for job in ended[: max(0, len(self._jobs) + 1 - MAX_KEPT)]:
            del self._jobs[job.name]
        job = Job(f"job-{next(self._numbers)}", steps, seconds)
        self._jobs[job.name] = job
        return job

    def start(self, steps: int, seconds: float) -> Job:
        """Run a new job in the background."""
        job = self.add(steps, seconds)
        self._background.start_soon(job.run, discard, name=job.name)
        return job

    def find(self, name: str) -> Job:
        """The job with this name.

        Raises:
            JobError: there is no such job.
        """
        job = self._jobs.get(name)
        if job is None:
            raise JobError(f"There is no job '{name}'. There are: {', '.join(self._jobs) or 'none'}.")
        return job

    def all(self) -> list[Job]:
        """Every job in memory, oldest first."""
        return list(self._jobs.values())


async def discard(_job: Job) -> None:
    """Discard a report, because a background job has no call."""


@asynccontextmanager
async def jobs_of_process(_server: Server[Jobs]) -> AsyncIterator[Jobs]:
    """Keep the jobs while the server runs, and cancel background jobs when it ends."""
    async with anyio.create_task_group() as background:
        yield Jobs(background)
        background.cancel_scope.cancel()


class JobPlan(BaseModel):
    """Arguments of run_job and start_job."""

    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=5, ge=1, le=1000)
    seconds_per_step: float = Field(default=1.0, ge=0, le=60, allow_inf_nan=False)


class JobStatusRequest(BaseModel):
    """Arguments of job_status."""

    model_config = ConfigDict(extra="forbid")
    job: str = Field(max_length=64, description="As start_job gives it.")
    wait_seconds: float = Field(
        default=0, ge=0, le=60, allow_inf_nan=False, description="Wait this long for the job to end."
    )


class NoArguments(BaseModel):
    """Arguments of list_jobs."""

    model_config = ConfigDict(extra="forbid")


class JobStatus(BaseModel):
    """State of one job."""

    job: str
    state: State
    finished_steps: int
    steps: int


class JobList(BaseModel):
    """Result of list_jobs."""

    jobs: list[JobStatus]


READS = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WORKS = types.ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)


TOOLS = (
    types.Tool(
        name="run_job",
        title="Run a job",
        description="Run a slow job to its end, reporting progress. Cancel the call to stop it.",
        input_schema=JobPlan.model_json_schema(),
        output_schema=JobStatus.model_json_schema(),
        annotations=WORKS,
    ),
    types.Tool(
        name="start_job",
        title="Start a job",
        description="Start a slow job in the background and return at once; ask with job_status.",
        input_schema=JobPlan.model_json_schema(),
        output_schema=JobStatus.model_json_schema(),
        annotations=WORKS,
    ),
    types.Tool(
        name="job_status",
        title="Job status",
        description="Tell how a job stands, at once or when it ended.",
        input_schema=JobStatusRequest.model_json_schema(),
        output_schema=JobStatus.model_json_schema(),
        annotations=READS,
    ),
    types.Tool(
        name="list_jobs",
        title="List jobs",
        description="List the jobs of this server, oldest first.",
        input_schema=NoArguments.model_json_schema(),
        output_schema=JobList.model_json_schema(),
        annotations=READS,
    ),
)


def status_of(job: Job) -> JobStatus:
    """The current state of a job."""
    return JobStatus(job=job.name, state=job.state, finished_steps=job.finished, steps=job.steps)


async def log(ctx: Context, level: types.LoggingLevel, words: str) -> None:
    """Send a log message on the call's stream, if the client's level includes it.

    The session checks the level of 2026-07-28 clients. This function checks the level of handshake clients.
    """
    is_handshake = ctx.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
    if not is_handshake or LEVELS.index(level) >= LEVELS.index(ctx.lifespan_context.level):
        await ctx.session.send_log_message(level, words, "slow_jobs", related_request_id=ctx.request_id)


async def run_job(ctx: Context, plan: JobPlan) -> JobStatus:
    """Run a job within the call. Cancelling the call cancels the job."""
    job = ctx.lifespan_context.add(plan.steps, plan.seconds_per_step)

    async def report(job: Job) -> None:
        await ctx.session.report_progress(job.finished, job.steps, f"{job.name}: step {job.finished}")
        await log(ctx, "debug", f"{job.name} finished step {job.finished} of {job.steps}")

    await log(ctx, "info", f"{job.name} started")
    await job.run(report)
    await log(ctx, "info", f"{job.name} is done")
    return status_of(job)


async def job_status(ctx: Context, question: JobStatusRequest) -> JobStatus:
    """The state of a job, after waiting for its end up to `wait_seconds`."""
    job = ctx.lifespan_context.find(question.job)
    with anyio.move_on_after(question.wait_seconds):
        await job.ended.wait()
    return status_of(job)


async def answer(ctx: Context, name: str, arguments: dict[str, Any]) -> BaseModel:
    """Run the tool with this name."""
    jobs = ctx.lifespan_context
    match name:
        case "run_job":
            return await run_job(ctx, JobPlan.model_validate(arguments))
        case "start_job":
            plan = JobPlan.model_validate(arguments)
            return status_of(jobs.start(plan.steps, plan.seconds_per_step))
        case "job_status":
            return await job_status(ctx, JobStatusRequest.model_validate(arguments))
        case "list_jobs":
            NoArguments.model_validate(arguments)
            return JobList(jobs=[status_of(job) for job in jobs.all()])
        case _:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name}")


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Answer tools/call. An error that the model can correct is a result with isError, not a protocol error."""
    try:
        result = await answer(ctx, params.name, params.arguments or {})
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return types.CallToolResult(content=[types.TextContent(text=words)], is_error=True)
    except JobError as error:
        return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
    text = types.TextContent(text=result.model_dump_json())
    return types.CallToolResult(content=[text], structured_content=result.model_dump(mode="json"))


async def list_tools(_ctx: Context, _params: object) -> types.ListToolsResult:
    """Answer tools/list."""
    return types.ListToolsResult(tools=list(TOOLS))


async def set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    """Answer logging/setLevel, which handshake clients use."""
    ctx.lifespan_context.level = params.level
    return types.EmptyResult()


def jobs_server() -> Server[Jobs]:
    """The server, with no jobs yet."""
    return Server(
        "slow-jobs",
        version="1.0.0",
        title="Slow jobs",
        instructions="Runs jobs that take time. Use start_job and job_status for anything over a minute.",
        lifespan=jobs_of_process,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_set_logging_level=set_level,
    )


async def serve() -> None:
    """Serve one client over stdin and stdout until stdin ends."""
    server = jobs_server()
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def main() -> None:
    """Parse the arguments and serve."""
    argparse.ArgumentParser(
        description="An MCP server with slow jobs: progress, logs, cancellation (stdio)."
    ).parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(name)s: %(message)s"
    )  # to stderr, because stdout carries the protocol
    # The protocol deprecates log messages, but clients of every revision support them.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # otherwise Ctrl-C waits for one more line of input
    anyio.run(serve)


if __name__ == "__main__":
    main()
