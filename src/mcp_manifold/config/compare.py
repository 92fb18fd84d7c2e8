"""Comparing configurations: the plan of a reload, its outcome, and the fingerprint of a server. Pure."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from mcp_manifold.config.settings import BrokenServer, ManifoldSettings, ServerSettings, Settings
from mcp_manifold.config.values import setting_of


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a reload from one configuration to another. Names are in new order, removed ones in old order."""

    settings: Settings
    """The settings in force afterwards: the new ones, except for keys of `manifold` that need a restart."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    """Servers to stop and start again."""
    adjusted: tuple[str, ...] = ()
    """Servers that only change in live settings; their connections stay."""
    unchanged: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Keys of `manifold` that change now."""
    fixed: tuple[str, ...] = ()
    """Keys of `manifold` that changed in the file, but need a restart."""
    kept: tuple[BrokenServer, ...] = ()
    """Servers whose new entries have errors, so that the old ones stay in force."""

    @property
    def changed(self) -> tuple[str, ...]:
        """Renewed and adjusted servers, in configuration order."""
        touched = {*self.renewed, *self.adjusted}
        return tuple(name for name in _active(self.settings) if name in touched)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The outcome of a reload: changed servers by name, changed keys of `manifold`, and sentences for the user."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Keys of `manifold` that changed."""
    problems: tuple[str, ...] = ()
    """Servers that became unusable, changes that need a restart, new warnings."""
    error: str = ""
    """The reason why nothing changed: the new configuration cannot be used."""

    def __str__(self) -> str:
        if self.error:
            return f"not reloaded, the old configuration stays: {self.error}"
        groups = {"added": self.added, "removed": self.removed, "changed": self.changed, "set": self.keys}
        parts = [f"{what} {', '.join(names)}" for what, names in groups.items() if names]
        return f"reloaded: {'; '.join(parts) or 'nothing changed'}"


def reload_outcome(plan: Plan, old: Settings) -> Reloaded:
    """The outcome to report after `plan` replaced `old`."""
    was_broken = {server.name for server in old.broken}
    problems = [
        f'server "{server.name}" cannot be used: {server.reason}'
        for server in plan.settings.broken
        if server.name not in was_broken
    ]
    problems += [f'server "{server.name}" keeps its old definition: {server.reason}' for server in plan.kept]
    problems += [f'"{key}" changed, which needs a restart' for key in plan.fixed]
    problems += [warning for warning in plan.settings.warnings if warning not in old.warnings]
    return Reloaded(plan.added, plan.removed, plan.changed, plan.unchanged, plan.keys, tuple(problems))


def plan_reload(old: Settings, new: Settings) -> Plan:
    """The plan to replace `old` by `new`. A disabled or broken server counts as absent.

    A server that is in use keeps its definition while its new entry has errors.
    """
    before = _active(old)
    faulty = tuple(server for server in new.broken if server.is_faulty and server.name in before)
    new = _with_old_entries(new, [before[server.name] for server in faulty])
    after = _active(new)
    differences = {name: _differences(before[name], server) for name, server in after.items() if name in before}
    renewed = tuple(name for name, found in differences.items() if found - _live(ServerSettings))
    keys = _differences(old.manifold, new.manifold)
    fixed = keys - _live(ManifoldSettings)
    kept = {name: getattr(old.manifold, name) for name in fixed}
    return Plan(
        settings=new.model_copy(update={"manifold": new.manifold.model_copy(update=kept)}),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        renewed=renewed,
        adjusted=tuple(name for name, found in differences.items() if found and name not in renewed),
        unchanged=tuple(name for name, found in differences.items() if not found),
        keys=_aliases(keys - fixed),
        fixed=_aliases(fixed),
        kept=faulty,
    )


def _with_old_entries(settings: Settings, kept: Sequence[ServerSettings]) -> Settings:
    names = {server.name for server in kept}
    places = {name: place for place, name in enumerate(settings.order)}
    servers = sorted((*settings.servers, *kept), key=lambda server: places.get(server.name, len(places)))
    broken = tuple(server for server in settings.broken if server.name not in names)
    return settings.model_copy(update={"servers": tuple(servers), "broken": broken}) if kept else settings


def fingerprint(server: ServerSettings) -> str:
    """A hash of all settings that can change what a server offers, as 40 hexadecimal digits.

    Credentials are part of it, because a server may offer other things to other users. Its name is not.
    """
    fields = [name for name in ServerSettings.model_fields if setting_of(ServerSettings, name).identifies]
    text = json.dumps({name: _plain(getattr(server, name)) for name in fields}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"mcp-manifold server\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _active(settings: Settings) -> dict[str, ServerSettings]:
    return {server.name: server for server in settings.servers if not server.disabled}


def _live(model: type[ServerSettings] | type[ManifoldSettings]) -> frozenset[str]:
    """The fields whose changes a reload applies at once."""
    return frozenset(name for name in model.model_fields if setting_of(model, name).reload == "live")


def _differences(old: ServerSettings | ManifoldSettings, new: ServerSettings | ManifoldSettings) -> frozenset[str]:
    return frozenset(name for name in type(old).model_fields if getattr(old, name) != getattr(new, name))


def _aliases(fields: frozenset[str]) -> tuple[str, ...]:
    """Fields of `manifold` as they are spelled in the file, in order."""
    return tuple(str(found.alias) for name, found in ManifoldSettings.model_fields.items() if name in fields)
