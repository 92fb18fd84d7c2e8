"""Owns how the conformance tools behave, one function or factory each; knows nothing of their listing.

A tool of the handshake era asks its caller while the call is open; one of 2026-07-28 answers what it needs.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import offerings as offer
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

Context = ServerRequestContext[Any, Any]
ToolAnswer = types.CallToolResult | types.InputRequiredResult
ToolHandler = Callable[[Context, types.CallToolRequestParams], Awaitable[ToolAnswer]]

STEP_SECONDS = 0.05  # the suite wants visible pauses between progress and log notifications


def said(*content: types.ContentBlock) -> types.CallToolResult:
    return types.CallToolResult(content=list(content))


def ask_form(message: str, schema: offer.Schema) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def ask_model(words: str) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=offer.text(words))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=100))


def answered(params: types.InputResponseRequestParams, key: str) -> Any:
    return (params.input_responses or {}).get(key)


NAME_QUESTION = ask_form("What is your name?", offer.form(name=offer.STRING))
CONFIRM_QUESTION = ask_form("Please confirm", offer.form(ok=offer.BOOLEAN))


def always(result: types.CallToolResult) -> ToolHandler:
    async def answer(_: Context, __: types.CallToolRequestParams) -> ToolAnswer:
        return result

    return answer


async def log_thrice(ctx: Context, _: types.CallToolRequestParams) -> ToolAnswer:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", words, related_request_id=ctx.request_id)
        await anyio.sleep(STEP_SECONDS)
    return said(offer.text("Logged three times"))


async def report_thrice(ctx: Context, _: types.CallToolRequestParams) -> ToolAnswer:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await anyio.sleep(STEP_SECONDS)
    return said(offer.text("Reported three times"))


async def close_stream_first(ctx: Context, _: types.CallToolRequestParams) -> ToolAnswer:
    if ctx.close_sse_stream is not None:
        await anyio.sleep(STEP_SECONDS)  # a stream that is closed before its first event is sent cannot be resumed
        await ctx.close_sse_stream()
        await anyio.sleep(2 * STEP_SECONDS)
    return said(offer.text("Sent after the stream was closed and resumed"))


async def need_sampling(ctx: Context, _: types.CallToolRequestParams) -> ToolAnswer:
    needed = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not ctx.session.check_client_capability(needed):
        needs = {"requiredCapabilities": needed.model_dump(by_alias=True, exclude_none=True)}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", needs)
    return said(offer.text("The client can sample"))


async def sample(ctx: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    words = str((params.arguments or {}).get("prompt", ""))
    message = types.SamplingMessage(role="user", content=offer.text(words))
    result = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return said(offer.text(f"LLM response: {getattr(result.content, 'text', '')}"))


def elicit(schema: offer.Schema) -> ToolHandler:
    """A tool of the handshake era: it asks the client while the call is open."""

    async def handler(ctx: Context, params: types.CallToolRequestParams) -> ToolAnswer:
        message = str((params.arguments or {}).get("message", "Please fill in"))
        result = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
        content = json.dumps(result.content)
        return said(offer.text(f"Elicitation completed: action={result.action}, content={content}"))

    return handler


def require(requests: types.InputRequests, state: str | None = None) -> ToolHandler:
    """A tool of 2026-07-28: it answers only when the retried call brings every response asked for."""

    async def handler(_: Context, params: types.CallToolRequestParams) -> ToolAnswer:
        if all(answered(params, key) is not None for key in requests) and params.request_state == state:
            return said(offer.text(f"All {len(requests)} answers came, state-ok"))
        return types.InputRequiredResult(input_requests=requests, request_state=state)

    return handler


async def two_rounds(_: Context, params: types.CallToolRequestParams) -> ToolAnswer:
    if params.request_state == "second" and answered(params, "step2") is not None:
        return said(offer.text("Both rounds are complete"))
    if params.request_state == "first" and answered(params, "step1") is not None:
        color = ask_form("Step 2: What is your favorite color?", offer.form(color=offer.STRING))
        return types.InputRequiredResult(input_requests={"step2": color}, request_state="second")
    return types.InputRequiredResult(input_requests={"step1": NAME_QUESTION}, request_state="first")


async def require_what_the_client_has(ctx: Context, _: types.CallToolRequestParams) -> ToolAnswer:
    declared = ctx.session.client_capabilities or types.ClientCapabilities()
    requests: types.InputRequests = {}
    if declared.sampling is not None:
        requests["greeting"] = ask_model("Write a greeting")
    if declared.elicitation is not None:
        requests["user_name"] = NAME_QUESTION
    return types.InputRequiredResult(input_requests=requests) if requests else said(offer.text("Nothing to ask"))
