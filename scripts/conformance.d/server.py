"""The server that the official conformance suite asks for, of both eras, on the scripted HTTP backend of tests/peers.

Usage: server.py PORT. The names, keys and texts are the suite's. The list-changing tools really change their list.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping

from behaviours import (
    ALL,
    AUDIO,
    COLOUR,
    CONFIRM,
    HINTS,
    IMAGE,
    NAME,
    PNG,
    ROOTS,
    SCHEMAS,
    STRING,
    Handler,
    Json,
    Reconnection,
    ask,
    asking,
    content,
    contents,
    embedded,
    form,
    members,
    messages,
    needs_sampling,
    requiring,
    sampling,
    toggling,
    within_capabilities,
    words,
)
from tasks import TaskStore, task_tools

from tests.peers.backend import Act, HttpBackend, Offer, Script, prompt, resource, template, tool
from tests.peers.jsontext import text
from tests.peers.listener import HttpExchange
from tests.peers.tasks import EXTENSION


def plain_tools() -> Mapping[str, Handler | Act]:
    """The tools of both eras."""
    note = embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    data = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    extra_prompt = described(prompt, "test_extra_prompt", messages(lambda _: [words("This is one more prompt.")]))
    return {
        "test_simple_text": content(words("This is a simple text response for testing.")),
        "test_image_content": content(IMAGE),
        "test_audio_content": content(AUDIO),
        "test_embedded_resource": content(note),
        "test_multiple_content_types": content(words("Several types:"), IMAGE, data),
        "test_error_handling": content(words("This tool always fails, on purpose"), isError=True),
        "json_schema_2020_12_tool": content(words("Any arguments are fine")),
        "test_header_parameter": content(words("The header agreed with the argument")),
        "test_tool_with_logging": Act("log", n=3, then=Act("echo")),
        "test_logging_tool": Act("log", n=3, then=Act("echo")),
        "test_tool_with_progress": Act("progress", n=3, then=Act("echo")),
        "test_reconnection": Reconnection(),
        "test_missing_capability": needs_sampling,
        "test_trigger_tool_change": toggling("tools", described(tool, "test_extra_tool", Act())),
        "test_trigger_prompt_change": toggling("prompts", extra_prompt),
    }


def asking_tools() -> Mapping[str, Handler]:
    """The tools that ask their client, in one era or the other."""

    def elicit(schema: Json) -> Handler:
        return asking(
            lambda given: ask(str(given.get("message", "Please fill in")), schema),
            lambda got: f"Elicitation completed: action={got.get('action')}, content={json.dumps(got.get('content'))}",
        )

    def said(got: Json) -> str:
        return f"LLM response: {got.get('content', {}).get('text')}"

    prefix = "test_input_required_result_"
    return {
        "test_sampling": asking(lambda given: sampling(str(given.get("prompt", ""))), said),
        "test_elicitation": elicit(SCHEMAS["contact"]),
        "test_elicitation_sep1034_defaults": elicit(SCHEMAS["defaults"]),
        "test_elicitation_sep1330_enums": elicit(SCHEMAS["enums"]),
        "test_streaming_elicitation": requiring({"user_name": NAME}),
        f"{prefix}elicitation": requiring({"user_name": NAME}),
        f"{prefix}sampling": requiring({"capital_question": sampling("What is the capital of France?")}),
        f"{prefix}list_roots": requiring({"client_roots": ROOTS}),
        f"{prefix}request_state": requiring({"confirm": CONFIRM}),
        f"{prefix}tampered_state": requiring({"confirm": CONFIRM}),
        f"{prefix}multiple_inputs": requiring(ALL),
        f"{prefix}multi_round": requiring({"step1": NAME}, {"step2": COLOUR}),
        f"{prefix}capabilities": within_capabilities,
    }


def described(make: Callable[..., Offer], name: str, act: Handler | Act, **more: object) -> Offer:
    """A tool or prompt with a description, which the suite wants."""
    return make(name, act, description=f"Conformance: {name}", **more)


def offers(tasks: TaskStore) -> Json:
    """Everything the suite asks for, by kind."""
    tools = {**plain_tools(), **asking_tools(), **task_tools(tasks)}
    said = "This is the content of the static text resource."
    plain = {"mimeType": "text/plain"}
    inputs = {name: {"inputSchema": schema} for name, schema in SCHEMAS["tools"].items()}

    def needed(*names: str) -> list[Json]:
        return [{"name": name, "description": f"The {name}", "required": True} for name in names]

    def pair(given: Json) -> list[Json]:
        return [words(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]

    def reading(given: Json) -> list[Json]:
        found = embedded(str(given.get("resourceUri")), "text/plain", "Embedded resource content for testing.")
        return [found, words("Please process the embedded resource above.")]

    context = requiring(
        {"user_context": ask("Which context?", form(context=STRING))},
        result=members(messages=[{"role": "user", "content": words("Use this context")}]),
    )
    return {
        "tools": tuple(described(tool, name, act, **inputs.get(name, {})) for name, act in tools.items()),
        "resources": (
            resource("test://static-text", contents(text=said, **plain), **plain),
            resource("test://static-binary", contents(blob=PNG, mimeType="image/png"), mimeType="image/png"),
            resource("test://watched-resource", contents(text=said, **plain), **plain),
        ),
        "templates": (template("test://template/{id}/data", contents(mimeType="application/json")),),
        "prompts": (
            described(
                prompt, "test_simple_prompt", messages(lambda _: [words("This is a simple prompt for testing.")])
            ),
            described(prompt, "test_prompt_with_arguments", messages(pair), arguments=needed("arg1", "arg2")),
            described(prompt, "test_prompt_with_embedded_resource", messages(reading), arguments=needed("resourceUri")),
            described(
                prompt, "test_prompt_with_image", messages(lambda _: [IMAGE, words("Please analyze the image above.")])
            ),
            described(prompt, "test_input_required_result_prompt", context),
        ),
    }


class LocalBackend(HttpBackend):
    """Refuses foreign hosts and origins, as the suite asks of a server on this machine."""

    async def _serve(self, exchange: HttpExchange) -> bool:
        named = [exchange.get("host") or "", (exchange.get("origin") or "http://localhost").partition("://")[2]]
        if not {each.partition(":")[0] for each in named} <= {"127.0.0.1", "localhost"}:
            return await exchange.respond(403)
        return await super()._serve(exchange)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    tasks = TaskStore()
    capabilities = {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "prompts": {"listChanged": True},
        "logging": {},
        "completions": {},
        "extensions": {EXTENSION: {}},
    }
    on = dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), tasks.answer)
    script = Script("conformance", capabilities=text(capabilities).decode(), hints=HINTS, on=on, **offers(tasks))
    async with LocalBackend(script, port=port):
        await asyncio.Event().wait()


def main() -> None:
    """Start on the port named on the command line."""
    parser = argparse.ArgumentParser(description="The server that the conformance suite is run against.")
    parser.add_argument("port", type=int, help="port to listen on, on 127.0.0.1")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
