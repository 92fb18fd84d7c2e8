"""The HTTP front: admission, requests of both eras, replies, event streams, pages and metrics."""
