"""A server that never answers: reads everything, says nothing, goes when its input ends."""

import sys

for _line in sys.stdin.buffer:
    pass
