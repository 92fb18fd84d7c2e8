"""The load generator: cheap clients in their own process that check every answer."""
