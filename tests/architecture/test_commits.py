"""Subjects of the last commits: imperative, at most 70 characters, no full stop."""

import re
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from tests.architecture.source import ROOT

SINCE: Final = "2026-12-01T14:30:00+00:00"  # the rule holds for commits from then on
COUNT: Final = 30  # commits that are checked
LENGTH: Final = 70
NOT_IMPERATIVE: Final = re.compile(
    r"(?:\w+(?:ed|ing)|adds|allows|avoids|changes|fixes|makes|moves|removes|renames|replaces|says|uses)\b", re.I
)
IMPERATIVE: Final = {"bring", "embed", "feed", "need", "ping", "proceed", "shed", "speed", "string", "wed"}


def complaints(subject: str) -> Iterator[str]:
    """What is wrong with a subject."""
    if len(subject) > LENGTH:
        yield f"has {len(subject)} characters: {LENGTH} at most"
    if subject.endswith("."):
        yield "ends with a full stop"
    first = re.sub(r"^[\w/, .-]+: ", "", subject).partition(" ")[0]
    if subject.startswith(("wip", "fixup!", "squash!")):
        yield "is unfinished"
    elif NOT_IMPERATIVE.fullmatch(first) and first.lower() not in IMPERATIVE:
        yield f"begins with {first!r}: use the imperative"


def subjects() -> list[str]:
    """The last subjects, without merges. Skips where there is no history."""
    command = ["git", "log", f"-{COUNT}", f"--since={SINCE}", "--no-merges", "--format=%s"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(reason="no git history: a source distribution")
    return done.stdout.splitlines()


def test_subjects_name_an_effect_in_the_imperative() -> None:
    wrong = [f"{subject!r} {text}" for subject in subjects() for text in complaints(subject)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("subject", "complaint"),
    [
        ("http: " + "a" * 70, "has 76 characters"),
        ("http: follow redirects.", "ends with a full stop"),
        ("http: followed redirects", "begins with 'followed'"),
        ("Fixes the leak", "begins with 'Fixes'"),
        ("wip: one way of a call", "is unfinished"),
    ],
)
def test_a_bad_subject_is_caught(subject: str, complaint: str) -> None:
    assert complaint in "\n".join(complaints(subject))


def test_a_good_subject_passes() -> None:
    assert not list(complaints("http: follow same-origin 307/308 from backends"))
