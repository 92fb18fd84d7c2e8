"""The HTTP front: admission, requests of both eras, replies, event streams and their resumption."""
