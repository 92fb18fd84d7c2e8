"""Owns the conformance backend, one MCP server for both eras over HTTP; knows nothing of suite or manifold.

Usage: backend.py PORT. It offers the tools, resources and prompts the official conformance suite asks for.
The list-changing tools really change their list: an intermediary that compares listings sees a difference.
"""

import argparse
import json
import re
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import anyio
import mcp_types as types
import offerings as offer
import tasks
import tools
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from tools import Context, ToolAnswer, ToolHandler

MODERN = "2026-07-28"
RETRY_MILLISECONDS = 200  # what a client waits before it resumes a stream we closed
RESOURCE_NOT_FOUND = -32002  # the handshake era's code; 2026-07-28 uses -32602
EVENTS_KEPT = 1000
TEMPLATE = re.compile(r"test://template/([^/]+)/data")


class Events(EventStore):
    """The last events of all streams, in order, so that a closed stream can be resumed."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, str, types.JSONRPCMessage | None]] = deque(maxlen=EVENTS_KEPT)
        self._numbers = count(1)

    def __repr__(self) -> str:
        return f"<Events: {len(self._kept)} kept>"

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        number = next(self._numbers)
        self._kept.append((number, stream_id, message))
        return str(number)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        after = int(last_event_id) if last_event_id.isdigit() else -1
        stream = next((s for number, s, _ in self._kept if number == after), None)
        for number, owner, message in tuple(self._kept):
            if owner == stream and number > after and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class ConformanceServer(Server[Any]):
    """Says in the handshake era too that its lists change (the SDK's HTTP entry leaves that flag off)."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changing = notification_options or NotificationOptions(prompts_changed=True, tools_changed=True)
        return super().create_initialization_options(changing, experimental_capabilities, extensions)


class Backend:
    """Which tool behaves how, and which optional items are listed now."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._extra_tool = False
        self._extra_prompt = False
        self._sessions: deque[Context] = deque(maxlen=64)  # handshake sessions to tell about changed lists
        self._tools: dict[str, ToolHandler] = {**self._plain_tools(), **self._asking_tools()}

    def __repr__(self) -> str:
        return f"<Backend: {len(self._tools)} tools, extra tool {self._extra_tool}, prompt {self._extra_prompt}>"

    def _plain_tools(self) -> dict[str, ToolHandler]:
        note = offer.embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
        data = offer.embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
        return {
            "test_simple_text": tools.always(tools.said(offer.text("This is a simple text response for testing."))),
            "test_image_content": tools.always(tools.said(offer.image())),
            "test_audio_content": tools.always(tools.said(offer.audio())),
            "test_embedded_resource": tools.always(tools.said(note)),
            "test_multiple_content_types": tools.always(tools.said(offer.text("Several types:"), offer.image(), data)),
            "test_error_handling": tools.always(
                types.CallToolResult(content=[offer.text("This tool always fails, on purpose")], is_error=True)
            ),
            "json_schema_2020_12_tool": tools.always(tools.said(offer.text("Any arguments are fine"))),
            "test_header_parameter": tools.always(tools.said(offer.text("The header agreed with the argument"))),
            "test_tool_with_logging": tools.log_thrice,
            "test_logging_tool": tools.log_thrice,
            "test_tool_with_progress": tools.report_thrice,
            "test_reconnection": tools.close_stream_first,
            "test_missing_capability": tools.need_sampling,
            "test_trigger_tool_change": self._change_tools,
            "test_trigger_prompt_change": self._change_prompts,
        }

    def _asking_tools(self) -> dict[str, ToolHandler]:
        prefix = "test_input_required_result_"
        roots = types.ListRootsRequest()
        everything: types.InputRequests = {
            "user_name": tools.NAME_QUESTION,
            "greeting": tools.ask_model("Write a greeting"),
            "client_roots": roots,
        }
        return {
            "test_sampling": tools.sample,
            "test_elicitation": tools.elicit(offer.CONTACT_FORM),
            "test_elicitation_sep1034_defaults": tools.elicit(offer.DEFAULTS_FORM),
            "test_elicitation_sep1330_enums": tools.elicit(offer.ENUMS_FORM),
            "test_streaming_elicitation": tools.require({"user_name": tools.NAME_QUESTION}),
            f"{prefix}elicitation": tools.require({"user_name": tools.NAME_QUESTION}),
            f"{prefix}sampling": tools.require({"capital_question": tools.ask_model("What is the capital of France?")}),
            f"{prefix}list_roots": tools.require({"client_roots": roots}),
            f"{prefix}request_state": tools.require({"confirm": tools.CONFIRM_QUESTION}, state="asked to confirm"),
            f"{prefix}tampered_state": tools.require({"confirm": tools.CONFIRM_QUESTION}, state="asked to confirm"),
            f"{prefix}multiple_inputs": tools.require(everything, state="asked everything"),
            f"{prefix}multi_round": tools.two_rounds,
            f"{prefix}capabilities": tools.require_what_the_client_has,
        }

    async def list_tools(self, _: Context, __: Any) -> types.ListToolsResult:
        extra = ["test_extra_tool"] if self._extra_tool else []
        return types.ListToolsResult(tools=[offer.tool(name) for name in [*self._tools, *tasks.NAMES, *extra]])

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> ToolAnswer:
        handler = self._tools.get(params.name)
        if handler is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await handler(ctx, params)

    async def list_prompts(self, _: Context, __: Any) -> types.ListPromptsResult:
        extra = [offer.prompt("test_extra_prompt")] if self._extra_prompt else []
        return types.ListPromptsResult(prompts=[*offer.PROMPTS, *extra])

    async def _change_tools(self, _: Context, __: Any) -> ToolAnswer:
        self._extra_tool = not self._extra_tool
        await self.bus.publish(ToolsListChanged())
        await self._tell(lambda ctx: ctx.session.send_tool_list_changed())
        return tools.said(offer.text("The list of tools has changed"))

    async def _change_prompts(self, _: Context, __: Any) -> ToolAnswer:
        self._extra_prompt = not self._extra_prompt
        await self.bus.publish(PromptsListChanged())
        await self._tell(lambda ctx: ctx.session.send_prompt_list_changed())
        return tools.said(offer.text("The list of prompts has changed"))

    async def remember(self, ctx: Context, _: Any) -> None:
        """A handshake is complete: this session hears of changes from now on."""
        self._sessions.append(ctx)

    async def _tell(self, send: Callable[[Context], Awaitable[None]]) -> None:
        for ctx in tuple(self._sessions):
            # A session that is gone, or whose reader is, must cost the others nothing but this bound.
            with anyio.move_on_after(0.2):
                try:
                    await send(ctx)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
                    self._sessions.remove(ctx)


async def list_resources(_: Context, __: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=offer.RESOURCES)


async def list_templates(_: Context, __: Any) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(resource_templates=offer.TEMPLATES)


def contents(uri: str) -> types.TextResourceContents | types.BlobResourceContents | None:
    if uri == "test://static-binary":
        return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=offer.PNG)
    if uri in ("test://static-text", offer.WATCHED_URI):
        words = "This is the content of the static text resource."
        return types.TextResourceContents(uri=uri, mime_type="text/plain", text=words)
    if found := TEMPLATE.fullmatch(uri):
        data = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
        return types.TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(data))
    return None


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    found = contents(params.uri)
    if found is None:
        code = types.INVALID_PARAMS if ctx.protocol_version == MODERN else RESOURCE_NOT_FOUND
        raise MCPError(code, "Resource not found", {"uri": params.uri})
    return types.ReadResourceResult(contents=[found])


async def accept(_: Context, __: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def get_prompt(
    _: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    context = tools.answered(params, "user_context")
    match params.name:
        case "test_simple_prompt" | "test_extra_prompt":
            blocks: list[types.ContentBlock] = [offer.text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            pair = f"arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            blocks = [offer.text(f"Prompt with arguments: {pair}")]
        case "test_prompt_with_embedded_resource":
            uri = given.get("resourceUri", "test://static-text")
            note = offer.embedded(uri, "text/plain", "Embedded resource content for testing.")
            blocks = [note, offer.text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            blocks = [offer.image(), offer.text("Please analyze the image above.")]
        case "test_input_required_result_prompt" if context is None:
            question = tools.ask_form("Which context?", offer.form(context=offer.STRING))
            return types.InputRequiredResult(input_requests={"user_context": question})
        case "test_input_required_result_prompt":
            blocks = [offer.text(f"Use this context: {getattr(context, 'content', None)}")]
        case unknown:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {unknown}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=b) for b in blocks])


async def complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [v for v in ("test", "testing", "tested") if v.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


def build(backend: Backend) -> Server[Any]:
    hint = CacheHint(ttl_ms=1000, scope="private")
    server = ConformanceServer(
        "conformance-backend",
        version="1.0.0",
        cache_hints={
            "tools/list": hint,
            "prompts/list": hint,
            "resources/list": hint,
            "resources/templates/list": hint,
            "resources/read": hint,
        },
        on_list_tools=backend.list_tools,
        on_call_tool=backend.call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=accept,
        on_unsubscribe_resource=accept,
        on_subscriptions_listen=ListenHandler(backend.bus),
        on_list_prompts=backend.list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=accept,
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
    server.middleware.append(tasks.Tasks())
    server.extensions[tasks.EXTENSION] = {}
    server.add_notification_handler("notifications/initialized", types.NotificationParams, backend.remember)
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description="The backend the conformance suite is run against.")
    parser.add_argument("port", type=int, help="port to listen on, on 127.0.0.1")
    port = parser.parse_args().port
    # Handshake clients still log and sample, which the SDK marks as deprecated since 2026-07-28.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    app = build(Backend()).streamable_http_app(event_store=Events(), retry_interval=RETRY_MILLISECONDS)
    # h11 strips the blanks around header values, as RFC 9110 asks; with httptools they reach the comparison.
    uvicorn.run(app, host="127.0.0.1", port=port, http="h11", log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
