"""Cross-cutting concerns, one file each, wrapped around every call in the order `app` lists. None imports another."""
