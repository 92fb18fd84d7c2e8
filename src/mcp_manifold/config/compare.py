"""What differs between two configurations, and what has to be done about it. Pure: knows no backend and no file."""

from dataclasses import dataclass
from typing import Final

from mcp_manifold.config.settings import ManifoldSettings, ServerSettings, Settings

PRESENTATION: Final = frozenset({"prefix", "tools", "prompts", "resources", "overrides", "uris", "required"})
"""Settings of a server that are about how it is shown: they hold at once."""
TREATMENT: Final = frozenset(
    {
        "breaker",
        "idle_timeout",
        "initialize_timeout",
        "keep_alive",
        "list_timeout",
        "max_concurrency",
        "max_queue",
        "max_timeout",
        "retry",
        "start",
        "timeout",
    }
)
"""Settings of a server that are about how it is treated: these hold at once, too. All others concern its connection."""
LIVE: Final = frozenset(
    {
        "allowed_hosts",
        "allowed_origins",
        "drain",
        "groups",
        "idle_timeout",
        "insecure",
        "instructions",
        "limits",
        "list_grace",
        "list_timeout",
        "log_format",
        "log_level",
        "name_budget",
        "separator",
        "start",
        "startup_timeout",
        "tokens",
        "watch",
    }
)
"""Settings of the endpoint that can change while it serves. All others stay as they are until it is started again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get from one configuration to another. Names are in the order of the new one, removed ones of the old."""

    settings: Settings
    """What is in force afterwards: the new configuration, but for what cannot change while serving."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    """Servers to stop and start anew."""
    adjusted: tuple[str, ...] = ()
    """Servers that are shown or treated differently, over the connection they have."""
    unchanged: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Keys of `manifold` that changed and hold from now on."""
    fixed: tuple[str, ...] = ()
    """Keys of `manifold` that changed in vain."""

    @property
    def changed(self) -> tuple[str, ...]:
        """Servers that go on, in another way, in configuration order."""
        touched = {*self.renewed, *self.adjusted}
        return tuple(name for name in _active(self.settings) if name in touched)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reloading: servers by name, keys of `manifold` as in the file, sentences."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Keys of `manifold` that changed and hold now."""
    problems: tuple[str, ...] = ()
    """What a user should know: servers that cannot be used, changes that do not hold yet."""
    error: str = ""
    """Why nothing changed at all: the configuration cannot be used."""

    def __str__(self) -> str:
        if self.error:
            return f"not reloaded, the old configuration stays: {self.error}"
        groups = {"added": self.added, "removed": self.removed, "changed": self.changed, "set": self.keys}
        said = [f"{what} {', '.join(names)}" for what, names in groups.items() if names]
        return f"reloaded: {'; '.join(said) or 'nothing changed'}"


def outcome(plan: Plan, old: Settings) -> Reloaded:
    """What is to be said once `old` was left for the plan."""
    was_broken = {server.name for server in old.broken}
    problems = [
        f'server "{server.name}" cannot be used: {server.reason}'
        for server in plan.settings.broken
        if server.name not in was_broken
    ]
    problems += [f'"{key}" changed, which takes a restart to hold' for key in plan.fixed]
    problems += [warning for warning in plan.settings.warnings if warning not in old.warnings]
    return Reloaded(plan.added, plan.removed, plan.changed, plan.unchanged, plan.keys, tuple(problems))


def plan(old: Settings, new: Settings) -> Plan:
    """What to do when `new` follows `old`. A server that is disabled or broken is one that is not there."""
    before, after = _active(old), _active(new)
    differences = {name: _differences(before[name], server) for name, server in after.items() if name in before}
    keys = _differences(old.manifold, new.manifold)
    fixed = keys - LIVE
    return Plan(
        settings=new.model_copy(update={"manifold": _with(new.manifold, old.manifold, fixed)}),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        renewed=tuple(name for name, found in differences.items() if found - PRESENTATION - TREATMENT),
        adjusted=tuple(name for name, found in differences.items() if found and found <= PRESENTATION | TREATMENT),
        unchanged=tuple(name for name, found in differences.items() if not found),
        keys=_aliases(keys & LIVE),
        fixed=_aliases(fixed),
    )


def _active(settings: Settings) -> dict[str, ServerSettings]:
    return {server.name: server for server in settings.servers if not server.disabled}


def _differences(old: ServerSettings | ManifoldSettings, new: ServerSettings | ManifoldSettings) -> frozenset[str]:
    return frozenset(name for name in type(old).model_fields if getattr(old, name) != getattr(new, name))


def _with(new: ManifoldSettings, old: ManifoldSettings, fields: frozenset[str]) -> ManifoldSettings:
    return new.model_copy(update={name: getattr(old, name) for name in fields})


def _aliases(fields: frozenset[str]) -> tuple[str, ...]:
    """As they are written in the file."""
    return tuple(str(found.alias) for name, found in ManifoldSettings.model_fields.items() if name in fields)
