"""Stages: one concern of every call per file, in the order that `app` lists. No stage imports another."""
