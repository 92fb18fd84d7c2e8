"""Invariants of naming arbitrary names and URIs."""

import re
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from mcp_manifold.model.names import (
    MIN_BUDGET,
    compile_template,
    distinguish,
    has_dot_segments,
    normalise_uri,
    prefixed_uri,
    qualify,
    split_prefixed_uri,
)

ANY = st.text(st.characters(), max_size=80)
TRICKY = st.text(st.sampled_from("aAbB_-.+ \u200b\u0430\uff41é/%:"), max_size=12)
NAMES = ANY | TRICKY
BUDGETS = st.integers(MIN_BUDGET, 128)
LEGAL = re.compile(r"[A-Za-z0-9_-]+")


@given(NAMES, NAMES, NAMES, BUDGETS)
def test_public_names_fit_budget_and_characters(prefix: str, native: str, separator: str, budget: int) -> None:
    name = qualify(prefix, native, owner=prefix, separator=separator, budget=budget)
    assert len(name) <= budget
    assert LEGAL.fullmatch(name)


@given(NAMES, NAMES, BUDGETS, st.integers(0, 9))
def test_distinguished_names_fit_too_and_never_repeat(owner: str, native: str, budget: int, attempts: int) -> None:
    name = qualify("", native, owner=owner, budget=budget)
    tries = [distinguish(name, owner=owner, native=native, budget=budget, attempt=n) for n in range(attempts)]
    assert all(len(each) <= budget and LEGAL.fullmatch(each) for each in tries)
    assert len(set(tries)) == attempts


@given(NAMES, NAMES, BUDGETS)
def test_a_name_is_plain_or_carries_a_hash(prefix: str, native: str, budget: int) -> None:
    plain = f"{prefix}__{native}" if prefix else native
    name = qualify(prefix, native, owner=prefix, budget=budget)
    assert (name == plain) is (bool(LEGAL.fullmatch(plain)) and len(plain) <= budget)
    assert name == plain or re.search(r"_[0-9a-f]{8}$", name)


@given(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.casefold), ANY.filter(bool), st.data())
@example(["a", "a+b"], "x:y", None)
@example(["_a", "x_a", "3d", "x3d"], "x:y", None)
def test_a_prefixed_uri_splits_back_to_its_owner_only(owners: list[str], uri: str, data: st.DataObject | None) -> None:
    for owner in [data.draw(st.sampled_from(owners))] if data else owners:
        assert split_prefixed_uri(prefixed_uri(owner, uri), owners) == (owner, uri)


@given(NAMES, ANY)
def test_the_label_of_a_prefixed_uri_is_a_legal_scheme(owner: str, uri: str) -> None:
    assert re.match(r"[A-Za-z][A-Za-z0-9.-]*\+", prefixed_uri(owner, uri))


@given(st.lists(NAMES, max_size=4), ANY | TRICKY)
def test_splitting_never_invents_an_owner_or_changes_the_rest(owners: list[str], uri: str) -> None:
    found = split_prefixed_uri(uri, owners)
    if found is not None:
        assert found[0] in owners
        assert uri.endswith("+" + found[1])


URIS = st.from_regex(r"[a-zA-Z]{1,4}:(//[a-zA-Z.]{0,5})?(/[a-zA-Z.%é ]{0,5}){0,4}(\?[a-z=]{0,4})?", fullmatch=True)


@given(URIS | ANY)
def test_normalising_is_idempotent(uri: str) -> None:
    once = normalise_uri(uri)
    assert normalise_uri(once) == once


@given(URIS)
def test_a_normalised_absolute_path_has_no_dot_segments(uri: str) -> None:
    normal = normalise_uri(uri)
    if "//" in normal or ":/" in normal:
        assert not has_dot_segments(normal)


# --- templates against a naive expander -------------------------------------------------------------------------

VALUES = st.text(st.sampled_from("ab-.é/ ?&=,"), max_size=5)
LITERALS = st.text(st.sampled_from("abxy-/:."), max_size=4)
EXPRESSIONS = st.tuples(
    st.sampled_from(["", "+", "#", ".", "/", ";", "?", "&"]),
    st.lists(st.tuples(st.sampled_from(["", "*"]), st.none() | st.lists(VALUES, max_size=3)), min_size=1, max_size=3),
)
RESERVED = ":/?#[]@!$&'()*+,;="


def expand(operator: str, variables: list[tuple[str, list[str] | None]]) -> tuple[str, str]:
    """The text of an expression and its expansion (RFC 6570 section 3.2)."""
    named, separator = operator in ";?&", {"": ",", "+": ",", "#": ",", "?": "&"}.get(operator, operator)
    named = named and bool(operator)
    safe = RESERVED if operator in ("+", "#") else ""
    parts: list[str] = []
    for number, (explode, values) in enumerate(variables):
        if not values:
            continue
        encoded = [quote(value, safe=safe) for value in values]
        groups = encoded if explode else [",".join(encoded)]
        parts += [f"v{number}={group}" if named else group for group in groups]
    spec = ",".join(f"v{number}{explode}" for number, (explode, _) in enumerate(variables))
    lead = operator if operator != "+" else ""
    return f"{{{operator}{spec}}}", (lead + separator.join(parts) if parts else "")


@given(st.lists(LITERALS | EXPRESSIONS, max_size=6))
def test_a_template_matches_all_its_expansions(
    pieces: list[str | tuple[str, list[tuple[str, list[str] | None]]]],
) -> None:
    written = [(piece, piece) if isinstance(piece, str) else expand(*piece) for piece in pieces]
    template, uri = "".join(text for text, _ in written), "".join(value for _, value in written)
    compiled = compile_template(template)
    assert compiled is not None
    assert compiled.matches(uri)


@given(
    st.lists(LITERALS | st.sampled_from(["{a}", "{+b}", "{/c}", "{?d}", "{/e*}"]), max_size=5),
    st.text("ab-/?#xy", max_size=12),
)
def test_a_template_matches_like_a_naive_regular_expression(pieces: list[str], uri: str) -> None:
    gaps = {"{a}": "[^/?#]*", "{+b}": ".*", "{/c}": "(/[^/?#]*)?", "{?d}": r"(\?[^#]*)?", "{/e*}": "(/[^?#]*)?"}
    naive = re.compile("".join(gaps.get(piece, re.escape(piece)) for piece in pieces))
    compiled = compile_template("".join(pieces))
    assert compiled is not None
    assert compiled.matches(uri) is (naive.fullmatch(uri) is not None)


def test_s42_a_template_made_to_backtrack_takes_bounded_time() -> None:
    compiled = compile_template("{a}-" * 63 + "{a}X")
    assert compiled is not None
    assert not compiled.matches("-" * 8000)
