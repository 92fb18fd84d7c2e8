"""What a backend offers: its lists, kept current, cached on disk, and its reports of changes."""
