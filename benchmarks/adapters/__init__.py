"""Start programs of single peers."""
