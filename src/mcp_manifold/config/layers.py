"""Where the endpoint's own settings come from, and which wins: flags, environment, `.env`, file. Knows no server."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from mcp_manifold.config.dialects import Misfit, by_name
from mcp_manifold.config.document import did_you_mean
from mcp_manifold.config.environment import MARK, PREFIX
from mcp_manifold.config.settings import ManifoldSettings
from mcp_manifold.config.spans import Loc
from mcp_manifold.errors import ConfigError

CONFIG_VARIABLE: Final = "MCP_MANIFOLD_CONFIG"
"""Where the file is: not a setting, but a variable of ours all the same."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What each source says, by field name, in order of precedence; the texts in it are not validated yet."""

    flags: Mapping[str, object] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] = field(repr=False)
    file: Mapping[str, object] = field(repr=False)
    dotenv_path: str = ""

    def merged(self) -> dict[str, object]:
        """The settings with those of higher precedence on top; objects are merged key by key.

        Raises:
            ConfigError: a variable cannot be read, or a flag is not known.
        """
        found: dict[str, Any] = {}
        for source in reversed(self._sources()):
            found = _laid_over(found, _hidden(source))
        return found

    def blame(self, loc: Loc) -> str:
        """The flag or variable that said what is at `loc`; empty when it was the file."""
        if not loc:
            return ""
        flags, environ, dotenv, _ = self._sources()
        if _has(flags, loc):
            return f"--{str(loc[0]).replace('_', '-')}"
        if _has(environ, loc):
            return _variable(loc, self.environ)
        return f"{_variable(loc, self.dotenv)} in {self.dotenv_path}" if _has(dotenv, loc) else ""

    def warnings(self) -> tuple[str, ...]:
        """What to say of variables that look like ours and are not."""
        sources = ((self.environ, "environment"), (self.dotenv, self.dotenv_path))
        return tuple(f"{place}: {text}" for values, place in sources for text in _strangers(values))

    def _sources(self) -> tuple[Mapping[str, object], ...]:
        """What flags, environment, `.env` and file say, by field name."""
        try:
            flags = by_name(
                {key: value for key, value in self.flags.items() if value not in (None, ())}, ManifoldSettings
            )
        except Misfit as exc:
            raise ConfigError(f"--{exc.key}: {exc.reason}") from None
        return flags, _said_by(self.environ), _said_by(self.dotenv), self.file


def _said_by(values: Mapping[str, str]) -> Mapping[str, object]:
    ours = {name: value for name, value in values.items() if name.upper() in VARIABLES and value}
    if not ours:
        return {}
    from mcp_manifold.config import variables  # noqa: PLC0415 - costs what most starts can do without

    return variables.settings_in(ours)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both together; where both say something, objects are merged, and everything else is as `above` says."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        found[key] = _laid_over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return found


def _hidden(values: Mapping[str, object]) -> dict[str, Any]:
    """The values with their tokens wrapped, so that no `repr` on the way shows them."""
    tokens = values.get("tokens")
    if not isinstance(tokens, list | tuple):
        return dict(values)
    return {**values, "tokens": [_hidden_token(token) for token in tokens]}


def _hidden_token(token: object) -> object:
    if isinstance(token, str):
        return SecretStr(token)
    if isinstance(token, Mapping) and isinstance(token.get("token"), str):
        return {**token, "token": SecretStr(token["token"])}
    return token


def _known_variables() -> Iterator[tuple[str, Loc]]:
    for name, found in ManifoldSettings.model_fields.items():
        yield PREFIX + name.upper(), (name,)
        inner = found.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for below in inner.model_fields:
                yield f"{PREFIX}{name.upper()}__{below.upper()}", (name, below)


VARIABLES: Final[Mapping[str, Loc]] = MappingProxyType(dict(_known_variables()))


def _variable(loc: Loc, values: Mapping[str, str]) -> str:
    """The name of the variable that set `loc`: the most particular one that is set."""
    is_set = {name.upper() for name, value in values.items() if value}
    names = [name for name, at in VARIABLES.items() if name in is_set and loc[: len(at)] == at]
    return max(names, key=len, default=PREFIX + str(loc[0]).upper())


def _strangers(values: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(values):
        if name.upper().startswith(PREFIX) and name.upper() not in (*VARIABLES, CONFIG_VARIABLE, MARK):
            yield f'unknown variable "{name}" is ignored{did_you_mean(name, VARIABLES)}'


def _has(values: object, loc: Loc) -> bool:
    """Whether `loc` is in there, or as much of it as one source decides alone: lists are not merged."""
    for part in loc:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True
