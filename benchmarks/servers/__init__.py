"""The MCP servers behind whatever is measured: as quick as they can be made, so that they are not what is measured."""
