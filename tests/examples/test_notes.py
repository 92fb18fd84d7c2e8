"""examples/notes.py, from a client's side: the notes, their resources and what is said when they change."""

from pathlib import Path
from runpy import run_path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated

from tests.examples.running import ERAS, EXAMPLES, Ear, Era, connected
from tests.peers import BOUND

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # of what only handshakes have
]
NOTES = run_path(str(EXAMPLES / "notes.py"))


def notes_in(directory: Path) -> Any:
    """The server of the notes in a directory."""
    return NOTES["notes_server"](NOTES["NoteDirectory"](directory))


async def add(client: Client, title: str, text: str, **more: Any) -> dict[str, Any]:
    result = await client.call_tool("add_note", {"title": title, "text": text, **more})
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


@pytest.mark.parametrize("era", ERAS)
async def test_a_note_is_added_found_read_and_deleted(era: Era, tmp_path: Path) -> None:
    directory = tmp_path / "made" / "on-first-write"
    async with connected(notes_in(directory), era=era) as client:
        assert (await client.list_resources()).resources == []
        assert not directory.exists()

        added = await add(client, "Café plans", "Buy a *grinder*.")
        assert added == {"slug": "cafe-plans", "uri": "note://cafe-plans", "created": True}
        await add(client, "Shopping", "Bread")
        assert (directory / "cafe-plans.md").read_text("utf-8") == "# Café plans\n\nBuy a *grinder*.\n"

        found = await client.call_tool("search_notes", {"query": "GRINDER buy"})
        assert found.structured_content == {
            "total": 1,
            "matches": [
                {"slug": "cafe-plans", "title": "Café plans", "uri": "note://cafe-plans", "excerpt": "Buy a *grinder*."}
            ],
        }
        [link] = [block for block in found.content if isinstance(block, types.ResourceLink)]
        [contents] = (await client.read_resource(link.uri)).contents
        assert isinstance(contents, types.TextResourceContents)
        assert contents.text == "# Café plans\n\nBuy a *grinder*.\n"

        listed = (await client.list_resources(cache_mode="bypass")).resources
        assert [resource.uri for resource in listed] == ["note://cafe-plans", "note://shopping"]
        assert listed[0].size == (directory / "cafe-plans.md").stat().st_size

        await client.call_tool("delete_note", {"slug": "cafe-plans"})
        assert [file.name for file in directory.iterdir()] == ["shopping.md"]


async def test_tools_say_what_they_do_and_what_they_return(tmp_path: Path) -> None:
    async with connected(notes_in(tmp_path), era="legacy") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        [template] = (await client.list_resource_templates()).resource_templates
    hints = {name: tool.annotations for name, tool in tools.items() if tool.annotations}
    assert {name for name, hint in hints.items() if hint.read_only_hint} == {"search_notes"}
    assert {name for name, hint in hints.items() if hint.destructive_hint} == {"delete_note"}
    assert all(tool.title and tool.output_schema for tool in tools.values())
    assert template.uri_template == "note://{slug}"


async def test_what_cannot_be_done_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "secret.md"
    outside.write_text("# secret\n")
    directory = tmp_path / "notes"
    directory.mkdir()
    (directory / "link.md").symlink_to(outside)
    async with connected(notes_in(directory), era="auto") as client:
        await add(client, "Plan", "one")
        for slug in ("../secret", "..%2fsecret", "/etc/passwd", "link", "Plan", "plan.md", "", "a" * 65):
            result = await client.call_tool("delete_note", {"slug": slug})
            assert result.is_error, slug
        for uri in ("note://../secret", "note://link", "note://plan/..", "file:///etc/passwd", "plan"):
            with pytest.raises(MCPError, match="Unknown resource") as caught:
                await client.read_resource(uri)
            assert caught.value.error.data == {"uri": uri}
        again = await client.call_tool("add_note", {"title": "plan", "text": "two"})
        assert again.is_error
        two_lines = await client.call_tool("add_note", {"title": "a\nb", "text": ""})
        assert two_lines.is_error
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("drop_notes", {})
    assert outside.read_text() == "# secret\n"
    assert (directory / "plan.md").read_text() == "# Plan\n\none\n"


async def test_a_handshake_client_hears_of_new_notes_and_of_those_it_subscribed_to(tmp_path: Path) -> None:
    ear = Ear()
    async with connected(notes_in(tmp_path), era="legacy", message_handler=ear) as client:
        await add(client, "Plan", "one")
        await ear.next(types.ResourceListChangedNotification)
        await client.subscribe_resource("note://plan")
        await add(client, "Other", "unwatched")
        await add(client, "Plan", "two", append=True)
        assert (await ear.next(types.ResourceUpdatedNotification)).params.uri == "note://plan"

        await client.unsubscribe_resource("note://plan")
        await add(client, "Plan", "three", append=True)
        await client.subscribe_resource("note://other")
        await add(client, "Other", "more", append=True)
        assert (await ear.next(types.ResourceUpdatedNotification)).params.uri == "note://other"


async def test_a_2026_client_hears_of_changes_on_the_stream_it_opened(tmp_path: Path) -> None:
    async with connected(notes_in(tmp_path), era="auto") as client:
        await add(client, "Plan", "one")
        watch = client.listen(resources_list_changed=True, resource_subscriptions=["note://plan"])
        async with watch as changes:
            with anyio.fail_after(BOUND):
                await add(client, "Plan", "two", append=True)
                assert await anext(changes) == ResourceUpdated(uri="note://plan")
                await add(client, "Other", "unwatched")
                assert await anext(changes) == ResourcesListChanged()
                await client.call_tool("delete_note", {"slug": "plan"})
                assert await anext(changes) == ResourcesListChanged()
                assert await anext(changes) == ResourceUpdated(uri="note://plan")


@pytest.mark.parametrize("era", ERAS)
async def test_the_prompt_carries_the_notes_and_completes_its_arguments(era: Era, tmp_path: Path) -> None:
    async with connected(notes_in(tmp_path), era=era) as client:
        await add(client, "Garden plan", "Sow beans.")
        await add(client, "Gift ideas", "A book.")
        prompt = await client.get_prompt("summarise_notes", {"topic": "beans", "style": "detailed"})
        ref = types.PromptReference(name="summarise_notes")
        topic = await client.complete(ref, {"name": "topic", "value": "g"})
        style = await client.complete(ref, {"name": "style", "value": "De"})
        template = types.ResourceTemplateReference(uri="note://{slug}")
        slug = await client.complete(template, {"name": "slug", "value": "gi"})
        with pytest.raises(MCPError):
            await client.get_prompt("summarise_notes", {"style": "sung"})
    text, note = (message.content for message in prompt.messages)
    assert isinstance(text, types.TextContent)
    assert text.text == "Summarise the notes below about beans (detailed)."
    assert isinstance(note, types.EmbeddedResource)
    assert note.resource.uri == "note://garden-plan"
    assert topic.completion.values == ["garden", "gift"]
    assert style.completion.values == ["detailed"]
    assert slug.completion.values == ["gift-ideas"]
