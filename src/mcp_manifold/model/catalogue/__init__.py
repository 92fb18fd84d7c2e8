"""What all backends offer, merged into one immutable value: Listing, Entry, Catalogue, Change; merge and diff.

Pure: knows no backend, no client, no policy. Listings come in, a Catalogue goes out; nothing is ever changed in place.
"""

from mcp_manifold.model.catalogue.entry import (
    Change,
    Entry,
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
from mcp_manifold.model.catalogue.snapshot import Catalogue, diff

__all__ = [
    "Catalogue",
    "Change",
    "Entry",
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
]
