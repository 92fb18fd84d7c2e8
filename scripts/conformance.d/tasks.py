"""The tasks of the conformance server, of the 2026-07-28 extension, and the tools that run as tasks."""

import itertools
import time
from collections.abc import Mapping

from behaviours import JOB_SECONDS, NAME, STRING, Handler, Json, ask, content, declared, form, words

from tests.peers.backend import Turn
from tests.peers.jsontext import text, value
from tests.peers.message import Refusal
from tests.peers.tasks import EXTENSION


class TaskStore:
    """Tasks by id. Nothing runs: the status of a task follows from its age and from what it was told."""

    def __init__(self) -> None:
        self._tasks: dict[str, Json] = {}
        self._numbers = itertools.count(1)

    def tool(self, outcome_of: Json, *keys: str, required: bool = False) -> Handler:
        """A tool that runs as a task: waits for answers under `keys`, then gives the outcome."""

        async def handler(turn: Turn) -> None:
            if not turn.modern or not (can := declared(turn, "extensions", EXTENSION)):
                if turn.modern and required and not can:
                    raise _undeclared()
                await content(words("Done without a task"))(turn)
                return
            arguments = value(turn.param("arguments")) or {}
            seconds = float(arguments.get("seconds", JOB_SECONDS)) * (not keys)
            asked = {key: ask(key, form(name=STRING)) for key in keys}
            given = value(turn.param("inputResponses", "user_name", "content", "name")) or ""
            outcome = finished(given) if given else outcome_of
            task = {"over": time.monotonic() + seconds, "outcome": outcome, "asked": asked, "cancelled": False}
            self._tasks[id_ := f"task-{next(self._numbers)}"] = task
            await turn.reply(text({"resultType": "task", **self._head(id_, task)}))

        return handler

    @staticmethod
    def _head(id_: str, task: Json) -> Json:
        ended = "failed" if "error" in task["outcome"] else "completed"
        status = "working" if time.monotonic() < task["over"] else ended
        status = "cancelled" if task["cancelled"] else "input_required" if task["asked"] else status
        times = {"createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"}
        return {"taskId": id_, "status": status, **times, "ttlMs": 60_000, "pollIntervalMs": 100}

    async def answer(self, turn: Turn) -> None:
        """Answer `tasks/get`, `tasks/update` or `tasks/cancel`.

        Raises:
            Refusal: the extension was not declared, or there is no such task.
        """
        if not declared(turn, "extensions", EXTENSION):
            raise _undeclared()
        id_ = turn.text_param("taskId")
        if (task := self._tasks.get(id_)) is None:
            raise Refusal(-32602, "Unknown task")
        head, more = self._head(id_, task), {}
        if turn.method == "tasks/get":
            asked = {"inputRequests": task["asked"]} if task["asked"] and not task["cancelled"] else {}
            more = {**head, **(task["outcome"] if head["status"] in ("completed", "failed") else asked)}
        elif turn.method == "tasks/update":
            for key in value(turn.param("inputResponses")) or {}:
                task["asked"].pop(key, None)
        elif head["status"] not in ("completed", "failed"):
            task["cancelled"] = True
        await turn.reply(text({"resultType": "complete", **more}))


def _undeclared() -> Refusal:
    needs = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return Refusal(-32021, "This needs the tasks extension", needs)


def finished(name: str = "") -> Json:
    """The outcome of a task that ended well."""
    return {"result": {"content": [words(f"Finished {name}".strip())]}}


async def greet(turn: Turn) -> None:
    """A plain tool beside those that run as tasks."""
    await content(words(f"Hello, {value(turn.param('arguments', 'name'))}!"))(turn)


def task_tools(tasks: TaskStore) -> Mapping[str, Handler]:
    """The tools of the tasks scenarios."""
    failed = {"result": {"content": [words("The job failed, on purpose")], "isError": True}}
    broken = {"error": {"code": -32603, "message": "The job broke, on purpose"}}
    composed = tasks.tool(finished(), required=True)

    async def after_a_question(turn: Turn) -> None:
        if (
            declared(turn, "extensions", EXTENSION)
            and turn.modern
            and turn.param("inputResponses", "user_name") is None
        ):
            await turn.reply(text({"resultType": "input_required", "inputRequests": {"user_name": NAME}}))
        else:
            await composed(turn)

    return {
        "greet": greet,
        "slow_compute": tasks.tool(finished()),
        "failing_job": tasks.tool(failed, required=True),
        "protocol_error_job": tasks.tool(broken),
        "confirm_delete": tasks.tool(finished(), "confirm"),
        "multi_input": tasks.tool(finished(), "first", "second"),
        "test_tool_with_task": after_a_question,
    }
