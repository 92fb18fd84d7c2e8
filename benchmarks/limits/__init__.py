"""The least a hop in Python can cost: nothing but the moving of messages. What everything else is compared with."""
