"""Owns the tasks of the conformance backend, as the 2026-07-28 extension has them; knows nothing of sessions.

Nothing runs: what a task is now follows from when it began and what it was told. Handshake clients get their answer
at once, because tasks of that era are another protocol.
"""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
import offerings as offer
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from tools import Context

EXTENSION = "io.modelcontextprotocol/tasks"
MODERN = "2026-07-28"
METHODS = ("tasks/get", "tasks/update", "tasks/cancel")
NAMES = (
    "greet",
    "slow_compute",
    "failing_job",
    "protocol_error_job",
    "confirm_delete",
    "multi_input",
    "test_tool_with_task",
)
REQUIRED = ("failing_job", "test_tool_with_task")  # these cannot be called without tasks
JOB_SECONDS = 0.5

Object = dict[str, Any]


def said(words: str, **members: object) -> Object:
    return {"content": [{"type": "text", "text": words}], **members}


def ask(message: str) -> Object:
    schema = offer.form(name=offer.STRING)
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


@dataclass(slots=True)
class Task:
    """One task: when it is over, what it then gives, what it waits for."""

    id: str
    over: float
    outcome: Object
    questions: dict[str, Object] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def status(self) -> str:
        if self.is_cancelled:
            return "cancelled"
        if self.questions:
            return "input_required"
        if time.monotonic() < self.over:
            return "working"
        return "failed" if "error" in self.outcome else "completed"

    def head(self) -> Object:
        stamp = "2026-07-28T00:00:00Z"
        times = {"createdAt": stamp, "lastUpdatedAt": stamp, "ttlMs": 60_000, "pollIntervalMs": 100}
        return {"taskId": self.id, "status": self.status, **times}

    def detail(self) -> Object:
        more: Object = {"inputRequests": self.questions} if self.status == "input_required" else {}
        return {**self.head(), **(self.outcome if self.status in ("completed", "failed") else more)}


class Tasks:
    """The middleware that answers for the tools that run as tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Tasks: {len(self._tasks)}>"

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        params: Mapping[str, Any] = ctx.params or {}
        if ctx.method in METHODS and ctx.protocol_version == MODERN:
            return {"resultType": "complete", **self._answer(ctx, params)}
        if ctx.method != "tools/call" or params.get("name") not in NAMES:
            return await call_next(ctx)
        if ctx.protocol_version != MODERN:
            return said("Tasks are for later revisions")
        return self._call(str(params["name"]), params)

    def _call(self, name: str, params: Mapping[str, Any]) -> Object:
        given: Mapping[str, Any] = params.get("arguments") or {}
        if name == "greet":
            return {"resultType": "complete", **said(f"Hello, {given.get('name')}!")}
        if not declares(params):
            if name in REQUIRED:
                raise missing()
            return {"resultType": "complete", **said("Done without a task")}
        answers: Mapping[str, Any] = params.get("inputResponses") or {}
        if name == "test_tool_with_task" and "user_name" not in answers:
            return {"resultType": "input_required", "inputRequests": {"user_name": ask("What is your name?")}}
        return {"resultType": "task", **self._begin(name, given, answers).head()}

    def _begin(self, name: str, given: Mapping[str, Any], answers: Mapping[str, Any]) -> Task:
        seconds = float(given.get("seconds", 0)) if name == "slow_compute" else JOB_SECONDS
        keys = {"confirm_delete": ("confirm",), "multi_input": ("first", "second")}.get(name, ())
        outcome: Object = {"result": said(f"Finished {name} {answers.get('user_name', '')}")}
        if name == "failing_job":
            outcome = {"result": said("The job failed, on purpose", isError=True)}
        elif name == "protocol_error_job":
            outcome = {"error": {"code": types.INTERNAL_ERROR, "message": "The job broke, on purpose"}}
        over = time.monotonic() + (0 if keys else seconds)
        task = Task(f"task-{next(self._numbers)}", over, outcome, {key: ask(key) for key in keys})
        self._tasks[task.id] = task
        return task

    def _answer(self, ctx: Context, params: Mapping[str, Any]) -> Object:
        if not declares(params):
            raise missing()
        named = ctx.request.headers.get("mcp-name") if ctx.request is not None else None
        if named is not None and named != params.get("taskId"):
            raise MCPError(types.HEADER_MISMATCH, "Mcp-Name is not the task's id")
        task = self._tasks.get(str(params.get("taskId")))
        if task is None:
            raise MCPError(types.INVALID_PARAMS, "Unknown task")
        if ctx.method == "tasks/get":
            return task.detail()
        if ctx.method == "tasks/update":
            for key in params.get("inputResponses") or {}:
                task.questions.pop(key, None)
        elif task.status not in ("completed", "failed"):
            task.is_cancelled = True
        return {}


def declares(params: Mapping[str, Any]) -> bool:
    declared = (params.get("_meta") or {}).get("io.modelcontextprotocol/clientCapabilities") or {}
    return EXTENSION in (declared.get("extensions") or {})


def missing() -> MCPError:
    needs = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs the tasks extension", needs)
