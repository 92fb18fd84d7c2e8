"""The servers of the check: how each is reached and what every client does with it; starts nothing."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import Cache

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "{token}"  # stands for a word of the job's own, so that jobs on one store do not meet

Step = dict[str, Any]
CallTarget = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReferenceServer:
    """One server: its name in the configuration, its target, the steps, and what its URIs carry behind others."""

    name: str
    target: CallTarget
    steps: tuple[Step, ...]
    uri_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers that are reached by URL listen."""

    http: int
    sse: int


def call(step: str, tool: str, **arguments: Any) -> Step:
    return {"id": step, "do": "call", "tool": tool, "arguments": arguments}


def read(step: str, uri: str) -> Step:
    return {"id": step, "do": "read", "uri": uri}


def prompt(step: str, name: str, **arguments: str) -> Step:
    return {"id": step, "do": "prompt", "prompt": name, "arguments": arguments}


def complete(step: str, ref: dict[str, str], name: str, value: str, **context: str) -> Step:
    argument = {"name": name, "value": value}
    return {"id": step, "do": "complete", "ref": ref, "argument": argument} | ({"context": context} if context else {})


def brief(step: Step) -> Step:
    """Also for a client that starts anew for every request."""
    return step | {"brief": True}


def refused(step: Step) -> Step:
    """Compared only as far as that it is refused: who refuses, and with which words, may differ."""
    return step | {"compare": "refused", "fails": True}


def fails(step: Step) -> Step:
    """The server itself says no; how it says it is compared."""
    return step | {"fails": True}


TOWN = {"type": "ref/prompt", "name": "completable-prompt"}
DYNAMIC = {"type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}"}
DOCUMENT = "demo://resource/static/document/features.md"
LONG = "trigger-long-running-operation"
UPDATES = "toggle-subscriber-updates"

EVERYTHING: tuple[Step, ...] = (
    brief(call("echo", "echo", message="hello")),
    call("echo of odd characters", "echo", message="\u2028 \u0000 \U0001f300 e\u0301 \\u2028"),
    call("sum", "get-sum", a=2, b=40.5),
    fails(call("sum of wrong types", "get-sum", a="two", b=1)),
    brief(call("structured", "get-structured-content", location="Chicago")),
    call("image", "get-tiny-image"),
    brief(call("links", "get-resource-links", count=4)),
    call("embedded", "get-resource-reference", resourceType="Text", resourceId=1),
    call("annotated", "get-annotated-message", messageType="error", includeImage=True),
    call("long", LONG, duration=0.4, steps=4) | {"progress": True},
    {"id": "cancel", "do": "cancel", "tool": LONG, "arguments": {"duration": 15, "steps": 150}},
    call("echo after cancel", "echo", message="still here"),
    call("sampling", "trigger-sampling-request", prompt="say something", maxTokens=20),
    call("elicitation", "trigger-elicitation-request"),
    call("roots", "get-roots-list"),
    refused(brief(call("unknown tool", "no-such-tool"))),
    brief(read("document", DOCUMENT)),
    read("dynamic text", "demo://resource/dynamic/text/7"),
    read("dynamic blob", "demo://resource/dynamic/blob/3") | {"mask": ["blob"]},
    refused(read("unknown resource", "demo://resource/none")),
    brief(prompt("simple prompt", "simple-prompt")),
    brief(prompt("prompt with arguments", "args-prompt", city="Oslo", state="Oslo")),
    prompt("prompt with a resource", "resource-prompt", resourceType="Text", resourceId="5"),
    refused(prompt("prompt without its argument", "args-prompt")),
    refused(prompt("unknown prompt", "no-such-prompt")),
    complete("completion", TOWN, "department", "E"),
    complete("completion in context", TOWN, "name", "", department="Sales"),
    complete("completion of a template", DYNAMIC, "resourceId", "12"),
    {"id": "watch", "do": "watch", "uri": DOCUMENT, "tool": UPDATES, "stop": UPDATES, "arguments": {}},
)

MEMORY: tuple[Step, ...] = (
    call(
        "create",
        "create_entities",
        entities=[{"name": f"who-{TOKEN}", "entityType": "person", "observations": ["likes tea"]}],
    ),
    call("observe", "add_observations", observations=[{"entityName": f"who-{TOKEN}", "contents": ["é", "\u2028"]}]),
    call("open", "open_nodes", names=[f"who-{TOKEN}"]),
    brief(call("search", "search_nodes", query=f"who-{TOKEN}")),
    refused(call("wrong arguments", "create_entities", entities="none")),
    call("delete", "delete_entities", entityNames=[f"who-{TOKEN}"]),
)

TIME: tuple[Step, ...] = (
    brief(call("convert", "convert_time", source_timezone="Europe/Berlin", time="12:00", target_timezone="Asia/Tokyo")),
    call("now", "get_current_time", timezone="UTC"),
    fails(call("unknown zone", "get_current_time", timezone="Mars/Base")),
)

CONVERT: tuple[Step, ...] = (
    brief(call("convert", "convert_units", amount="10", unit="km", target="mile")),
    fails(call("not of a kind", "convert_units", amount="10", unit="km", target="kg")),
    call("list", "list_units", kind="mass"),
    brief(read("all units", "units://all")),
    read("units of a kind", "units://mass"),
    refused(read("no such kind", "units://nothing")),
    prompt("prompt", "explain_conversion", amount="1", unit="mile", target="km"),
    complete("completion", {"type": "ref/resource", "uri": "units://{kind}"}, "kind", "m"),
    complete("completion in context", {"type": "ref/prompt", "name": "explain_conversion"}, "target", "", unit="km"),
)

NOTE = f"note://about-{TOKEN}"
NOTES: tuple[Step, ...] = (
    call("add", "add_note", title=f"About {TOKEN}", text="# First\n\nline"),
    call("search", "search_notes", query=TOKEN),
    read("read", NOTE),
    brief(prompt("prompt", "summarise_notes", topic=TOKEN, style="short")),
    complete("completion", {"type": "ref/resource", "uri": "note://{slug}"}, "slug", f"about-{TOKEN}"),
    {
        "id": "watch",
        "do": "watch",
        "uri": NOTE,
        "tool": "add_note",
        "arguments": {"title": f"About {TOKEN}", "text": "more", "append": True},
    },
    refused(read("unknown note", f"note://none-{TOKEN}")),
    call("delete", "delete_note", slug=f"about-{TOKEN}"),
)


def filesystem(directory: Path) -> tuple[Step, ...]:
    """Steps within one directory."""
    own = f"{directory}/{TOKEN}"
    return (
        brief(call("allowed", "list_allowed_directories")),
        call("create", "create_directory", path=own),
        call("write", "write_file", path=f"{own}/a.txt", content="one\ntwo\n"),
        call("read", "read_text_file", path=f"{own}/a.txt"),
        call("edit", "edit_file", path=f"{own}/a.txt", edits=[{"oldText": "two", "newText": "2"}]),
        call("list", "list_directory", path=own),
        fails(call("outside", "read_text_file", path="/etc/hostname")),
    )


def git(directory: Path) -> tuple[Step, ...]:
    """Steps on one repository."""
    where = str(directory)
    return (
        brief(call("status", "git_status", repo_path=where)),
        call("log", "git_log", repo_path=where, max_count=3),
        call("show", "git_show", repo_path=where, revision="HEAD"),
        fails(call("no repository", "git_status", repo_path=f"{where}/none")),
    )


def prepare(work: Path) -> None:
    """Make what the servers work on: an empty directory each, and a repository that is the same in every run."""
    for name in ("files", "notes", "repository"):
        (work / name).mkdir()
    (work / "repository" / "a.txt").write_text("one\n")
    who = {"NAME": "A Person", "EMAIL": "a@example.org", "DATE": "2026-01-01T12:00:00+00:00"}
    author = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    environment = os.environ | author | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for command in (["init", "--quiet", "-b", "main"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *command], cwd=work / "repository", env=environment, check=True, timeout=30)


def backends(cache: Cache, work: Path, ports: Ports, environment: dict[str, str]) -> list[ReferenceServer]:
    """All backends, in the order of the configuration: of those with the same URIs the first keeps them."""

    def stdio(*command: str, **more: str) -> CallTarget:
        return {"kind": "stdio", "command": list(command), "env": environment | more}

    def node(package: str, *args: str, **more: str) -> CallTarget:
        return stdio(cache.node, str(cache.package(package) / "dist" / "index.js"), *args, **more)

    def example(name: str, *args: str) -> CallTarget:
        return stdio(sys.executable, str(ROOT / "examples" / name), *args)

    files, notes, repository = work / "files", work / "notes", work / "repository"
    http = {"kind": "http", "url": f"http://127.0.0.1:{ports.http}/mcp"}
    sse = {"kind": "sse", "url": f"http://127.0.0.1:{ports.sse}/sse"}
    memory = node("server-memory", MEMORY_FILE_PATH=str(work / "memory.jsonl"))
    found = [
        ReferenceServer("everything", node("server-everything", "stdio"), EVERYTHING),
        ReferenceServer("everything-http", http, EVERYTHING, "everything-http+"),
        ReferenceServer("everything-sse", sse, EVERYTHING, "everything-sse+"),
        ReferenceServer("filesystem", node("server-filesystem", str(files)), filesystem(files)),
        ReferenceServer("memory", memory, MEMORY),
        ReferenceServer("time", stdio(cache.script("servers", "mcp-server-time"), "--local-timezone", "UTC"), TIME),
        ReferenceServer("git", stdio(cache.script("servers", "mcp-server-git")), git(repository)),
        ReferenceServer("convert", example("convert.py"), CONVERT),
        ReferenceServer("notes", example("notes.py", "--dir", str(notes)), NOTES),
    ]
    return [backend for backend in found if _is_there(backend)]


def _is_there(backend: ReferenceServer) -> bool:
    return all(Path(part).exists() for part in backend.target.get("command", []) if part.endswith(".py"))


def part(backend: ReferenceServer, prefix: str, uri_prefix: str, token: str) -> dict[str, Any]:
    """What a job says about one backend."""
    steps = json.loads(json.dumps(backend.steps).replace(TOKEN, token))
    return {"backend": backend.name, "prefix": prefix, "uri_prefix": uri_prefix, "steps": steps}
