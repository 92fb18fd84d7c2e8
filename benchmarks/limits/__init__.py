"""The lower bounds: Python proxies that only move messages."""
