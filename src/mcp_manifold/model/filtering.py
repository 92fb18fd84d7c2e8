"""The configuration's filters as a policy, and what in them matches nothing. Pure."""

from collections.abc import Sequence

from mcp_manifold.config import FilterSettings, ServerSettings
from mcp_manifold.model.catalogue import Catalogue, Kind
from mcp_manifold.model.policy import Filter, Filters, Policy


def policy_of(servers: Sequence[ServerSettings]) -> Policy:
    """The filters of the configuration, whose patterns are valid since `config` read them."""
    return Policy(
        {
            server.name: Filters(_filter(server.tools), _filter(server.prompts), _filter(server.resources))
            for server in servers
        }
    )


def _filter(settings: FilterSettings) -> Filter:
    return Filter.compile(settings.allow, settings.block)


def unmatched_patterns(servers: Sequence[ServerSettings], whole: Catalogue) -> tuple[str, ...]:
    """A sentence for each filter pattern and override that matches nothing its server offers."""
    found: list[str] = []
    for server in servers:
        if server.disabled or server.name not in whole.backends:
            continue
        own = {kind: [each for each in whole.entries(kind) if each.backend == server.name] for kind in Kind}
        groups = (
            ("tools", server.tools, own[Kind.TOOL]),
            ("prompts", server.prompts, own[Kind.PROMPT]),
            ("resources", server.resources, own[Kind.RESOURCE] + own[Kind.TEMPLATE]),
        )
        for group, settings, entries in groups:
            found += [
                f'server "{server.name}": the {group} pattern "{pattern}" matches nothing it offers'
                for pattern in _filter(settings).unmatched(entries)
            ]
            natives = {entry.native for entry in entries}
            found += [
                f'server "{server.name}": the {group} override "{name}" is of nothing it offers'
                for name in getattr(server.overrides, group)
                if name not in natives
            ]
    return tuple(found)
