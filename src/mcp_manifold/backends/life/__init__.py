"""The life of one backend: its owner task, the monitors of its link, and its statistics."""
