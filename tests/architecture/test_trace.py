"""The length of the path of a call: files and functions that one warm `tools/call` enters."""

import re
import subprocess
import sys
from typing import Final

from tests.architecture.source import ROOT

FILES: Final = 15
FUNCTIONS: Final = 80


def test_a_call_enters_few_files_and_functions() -> None:
    command = [sys.executable, "-m", "tests.architecture.trace", "-v"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    counts = re.match(r"tools/call: (\d+) files, (\d+) functions", done.stdout)
    assert counts, done.stdout
    assert int(counts[1]) <= FILES, done.stdout
    assert int(counts[2]) <= FUNCTIONS, done.stdout
