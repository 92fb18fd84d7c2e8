"""The composition root: puts the parts together, serves them, and follows the configuration file."""
