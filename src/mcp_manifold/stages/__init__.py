"""Cross-cutting concerns, one file each, wrapped around every call in the order `app` lists them. None imports another."""
