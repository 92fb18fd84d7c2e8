"""Everything that talks to backends. Nothing here knows which client asks."""
