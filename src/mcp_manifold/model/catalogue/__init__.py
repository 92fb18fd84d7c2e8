"""The catalogue: the listings of all backends merged into one immutable value, with merge and diff.

Pure: no backends, clients or policy. Listings come in, a Catalogue comes out; nothing is changed in place. Import from
this package, except for `cursors`.
"""

from mcp_manifold.model.catalogue.entry import (
    Change,
    Entry,
    Fault,
    Hint,
    Kind,
    Listing,
    Override,
    ResourceRoute,
    Rules,
    Terms,
    Uris,
)
from mcp_manifold.model.catalogue.merge import merge
from mcp_manifold.model.catalogue.payload import encode_list
from mcp_manifold.model.catalogue.repair import repair
from mcp_manifold.model.catalogue.snapshot import Catalogue, diff

__all__ = [
    "Catalogue",
    "Change",
    "Entry",
    "Fault",
    "Hint",
    "Kind",
    "Listing",
    "Override",
    "ResourceRoute",
    "Rules",
    "Terms",
    "Uris",
    "diff",
    "encode_list",
    "merge",
    "repair",
]
