"""What comes back from servers, as text for people: content blocks, resource contents, messages. Pure."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mcp_manifold.cli.layout import size

Block = Mapping[str, Any]


def result_text(result: Mapping[str, Any]) -> str:
    """A tool's result: its content; what it says in structure only, as JSON."""
    content = result.get("content")
    if isinstance(content, list) and content:
        return "\n".join(block_text(block) for block in content)
    if "structuredContent" in result:
        return as_json(result["structuredContent"])
    return "" if content == [] else as_json(result)


def block_text(block: object) -> str:
    """One content block: text as it is, anything else described."""
    if not isinstance(block, Mapping):
        return as_json(block)
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio" as kind:
            return f"[{kind}: {_described(block.get('mimeType'), block.get('data'))}]"
        case "resource_link":
            return f"[link: {block.get('uri', '')}{_named(block)}]"
        case "resource":
            return contents_text(block.get("resource"))
        case _:
            return as_json(block)


def contents_text(contents: object) -> str:
    """One of the contents of a resource: text as it is, a blob described."""
    if not isinstance(contents, Mapping):
        return as_json(contents)
    if isinstance(contents.get("text"), str):
        return str(contents["text"])
    return f"[{contents.get('uri', 'resource')}: {_described(contents.get('mimeType'), contents.get('blob'))}]"


def contents_bytes(contents: Sequence[object]) -> bytes:
    """The contents of a resource as the bytes they stand for, one after the other.

    Raises:
        ValueError: a blob is no base64, or something is neither text nor blob.
    """
    return b"".join(_bytes(item) for item in contents)


def is_binary(contents: Sequence[object]) -> bool:
    """Whether any of the contents is not text."""
    return any(isinstance(item, Mapping) and "blob" in item for item in contents)


def messages_text(result: Mapping[str, Any]) -> str:
    """A prompt's messages, each under its role."""
    messages = result.get("messages")
    if not isinstance(messages, list):
        return as_json(result)
    return "\n\n".join(_message(message) for message in messages)


def as_json(value: object) -> str:
    """JSON for people and programs; in ASCII, so that nothing in it can drive a terminal."""
    return json.dumps(value, indent=2)


def _message(message: object) -> str:
    if not isinstance(message, Mapping):
        return as_json(message)
    content = message.get("content")
    blocks = content if isinstance(content, list) else [content]
    return f"{message.get('role', '?')}:\n" + "\n".join(block_text(block) for block in blocks)


def _bytes(item: object) -> bytes:
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):
        return str(item["text"]).encode(errors="surrogatepass")
    if isinstance(item, Mapping) and isinstance(item.get("blob"), str):
        return base64.b64decode(item["blob"], validate=True)
    raise ValueError("the server sent contents that are neither text nor a blob")


def _described(mime: object, data: object) -> str:
    kind = mime if isinstance(mime, str) and mime else "unknown type"
    try:
        return f"{kind}, {size(len(base64.b64decode(data if isinstance(data, str) else '', validate=True)))}"
    except (binascii.Error, ValueError):
        return f"{kind}, not readable as base64"


def _named(block: Block) -> str:
    name = block.get("title") or block.get("name")
    return f" ({name})" if name else ""
