"""Everything that connects to a backend; nothing here knows who asks."""
