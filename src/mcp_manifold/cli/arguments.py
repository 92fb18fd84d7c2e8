"""Arguments for tools and prompts, from what was typed. Knows no tool."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click


def tool_arguments(text: str | None, pairs: Sequence[str], stdin: Callable[[], str]) -> dict[str, Any]:
    """The arguments of a tool: a JSON object (`-`: from stdin), and `key=value` pairs on top of it.

    Raises:
        click.UsageError: that is no JSON object, or no pair.
    """
    whole = "" if text is None else stdin() if text == "-" else text
    try:
        found = json.loads(whole) if whole.strip() else {}
    except ValueError as exc:
        raise click.UsageError(f"The arguments are not JSON: {exc}") from None
    if not isinstance(found, dict):
        raise click.UsageError('The arguments have to be a JSON object, such as \'{"text": "milk"}\'.')
    return found | {key: _value(value) for key, value in map(_pair, pairs)}


def prompt_arguments(pairs: Sequence[str]) -> dict[str, str]:
    """The arguments of a prompt: text, all of them.

    Raises:
        click.UsageError: something is no pair.
    """
    return dict(map(_pair, pairs))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f'Expected --arg KEY=VALUE, not "{text}".')
    return key, value


def _value(text: str) -> Any:
    """A value that reads as JSON is that; everything else is text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> None:
    """`NaN` and `Infinity` are words, not JSON."""
    raise ValueError(constant)
