"""Names and URIs: qualified, made unique, normalised, matched."""

import pytest
from pydantic import AnyUrl

from mcp_manifold.model.names import (
    MAX_URI,
    compile_template,
    distinguish,
    has_dot_segments,
    normalise_uri,
    prefixed_uri,
    qualify,
    scheme,
    spellings,
    split_prefixed_uri,
)


@pytest.mark.parametrize(
    ("prefix", "native", "separator", "name"),
    [
        ("git", "log", "__", "git__log"),
        ("git", "log", "-", "git-log"),
        ("", "log", "__", "log"),
        ("", "x" * 64, "__", "x" * 64),
        ("a", "x.y", "__", "a__x_y_7ace4eaa"),
    ],
)
def test_a_name_is_prefixed_and_hashed_only_if_invalid(prefix: str, native: str, separator: str, name: str) -> None:
    assert qualify(prefix, native, owner=prefix, separator=separator) == name


def test_a_name_longer_than_the_budget_is_cut_and_hashed() -> None:
    cut = qualify("", "x" * 65, owner="a")
    assert (len(cut), cut[:56]) == (64, "x" * 55 + "_")
    with pytest.raises(ValueError, match="16"):
        qualify("a", "b", owner="a", budget=15)


def test_names_that_become_equal_get_different_hashes() -> None:
    dotted, slashed = qualify("a", "x.y", owner="a"), qualify("a", "x/y", owner="a")
    assert dotted[:7] == slashed[:7] == "a__x_y_"
    assert dotted != slashed


def test_a_taken_name_gets_a_short_hash_then_longer_ones() -> None:
    tries = [distinguish("tool", owner="b", native="tool", attempt=attempt) for attempt in range(5)]
    assert (len(set(tries)), [len(name) for name in tries]) == (5, [13, 21, 21, 21, 21])
    assert tries[1].startswith(tries[0])
    hashed = qualify("a", "x.y", owner="a")
    longer = distinguish(hashed, owner="a", native="x.y", attempt=1)
    assert (longer[: len(hashed)], len(longer)) == (hashed, len(hashed) + 8)


@pytest.mark.parametrize(
    ("owner", "prefixed"),
    [
        ("docs", "docs+file:///x"),
        ("GitHub", "GitHub+file:///x"),
        ("my_server", "my.5fserver+file:///x"),
        ("3d", "x..33d+file:///x"),
        ("a+b", "a.2bb+file:///x"),
    ],
)
def test_a_prefixed_uri_is_valid_and_splits_back_in_any_case(owner: str, prefixed: str) -> None:
    assert prefixed_uri(owner, "file:///x") == prefixed
    for spelling in (prefixed, str(AnyUrl(prefixed))):
        assert split_prefixed_uri(spelling, ["other", owner]) == (owner, "file:///x")


@pytest.mark.parametrize(
    ("uri", "owners", "found"),
    [
        *((uri, ["docs"], None) for uri in ("file:///a+b", "nobody+file:///x", "docs+", "docs", "+file:///x", "")),
        ("my_server+x:y", ["my_server"], ("my_server", "x:y")),
        ("m_+n+x:y", ["m_", "m_+n"], ("m_+n", "x:y")),
        ("github+x:y", ["GitHub", "github"], None),
        ("GitHub+x:y", ["GitHub", "github"], ("GitHub", "x:y")),
    ],
)
def test_a_prefix_of_one_owner_is_split_off(uri: str, owners: list[str], found: tuple[str, str] | None) -> None:
    assert split_prefixed_uri(uri, owners) == found


@pytest.mark.parametrize(
    "uri",
    [
        "KITCHEN://Soup", "https://Example.com", "HTTPS://Example.com:443?q=1", "http://a/%7eb/c",
        "file:///a/./b/../c", "file:///C:/x", "file:///a/..", "kitchen://soup?q=é", "urn:ISBN:1",
        "ui://app/main.html#top", "data:text/plain,hi",
    ],
)  # fmt: skip
def test_a_client_parsers_spelling_normalises_to_the_listed_one(uri: str) -> None:
    assert normalise_uri(str(AnyUrl(uri))) == normalise_uri(uri)


def test_different_resources_normalise_differently() -> None:
    keys = {normalise_uri(uri) for uri in ("file:///a", "file:///A", "file://a", "file:///a/", "file:///a?b", "urn:a")}
    assert len(keys) == 6
    assert normalise_uri("x://h/a%2fb") == "x://h/a%2Fb", "a reserved character stays escaped"
    assert [scheme(uri) for uri in ("KITCHEN://x", "{scheme}://x", "no uri")] == ["kitchen", "", ""]


@pytest.mark.parametrize(
    ("has_them", "uris"),
    [
        (True, ("file:///a/../b", "file:///a/%2e%2E/b", "file:///a/..%2fb", "file:///.", "x:a/../b")),
        (False, ("file:///a/...", "file:///a..b", "x://h/a?p=../b", "https://h")),
    ],
)
def test_dot_segments_are_found_when_encoded(has_them: bool, uris: tuple[str, ...]) -> None:
    assert [has_dot_segments(uri) for uri in uris] == [has_them] * len(uris)


def test_block_rules_see_merged_slashes_and_no_escapes() -> None:
    assert "file:///secret/x" in spellings("FILE:////%73ecret%2fx")


def template_matches(template: str, uri: str) -> bool:
    compiled = compile_template(template)
    return compiled is not None and compiled.matches(uri)


@pytest.mark.parametrize(
    ("template", "uris", "others"),
    [
        ("db://{table}/{id}", ("db://users/1", "db://users/"), ("db://users/1/2", "db://users")),
        ("db://{table}", ("db://users",), ("xdb://users",)),
        ("file:///{+path}", ("file:///a/b/c.txt",), ()),
        ("file:///{name}", ("file:///a",), ("file:///a/b",)),
        ("file:///{path*}", ("file:///a,b",), ()),
        ("x://h{/seg*}", ("x://h/a/b", "x://h"), ()),
        ("x://h{/a}", (), ("x://hello",)),
        ("x://h{/a,b}/end", ("x://h/1/2/end",), ()),
        ("x://h/s{?q,lang}", ("x://h/s?q=1&lang=en",), ()),
        ("x://h/s{?q}", ("x://h/s",), ("x://h/s&q=1",)),
        ("x://h/s?fixed=1{&q}", ("x://h/s?fixed=1&q=2",), ()),
        ("x://h/p{;v}", ("x://h/p;v=1",), ()),
        ("x://h/f{.ext}", ("x://h/f.txt",), ()),
        ("x://h/p{#frag}", ("x://h/p#a/b",), ("x://h/p/q",)),
        ("x://{name:3}", ("x://abc",), ()),
        ("user://{id}", ("user://a@b.c",), ()),
        ("{+a}-{b}", ("x-y/z-w",), ()),
        ("{+a}-{/b*}X", ("-/-/X",), ()),
        ("plain://text", ("plain://text",), ("plain://text2",)),
        ("", (), ("x",)),
    ],
)
def test_a_template_matches_its_expansions_only(template: str, uris: tuple[str, ...], others: tuple[str, ...]) -> None:
    assert all(template_matches(template, uri) for uri in uris)
    assert not any(template_matches(template, uri) for uri in others)


@pytest.mark.parametrize("template", ["x://{", "x://}", "x://{}", "x://{a b}", "x://{=a}", "x://{{a}}", "{a}" * 65])
def test_an_invalid_template_does_not_compile_and_matches_nothing(template: str) -> None:
    assert compile_template(template) is None
    assert not template_matches(template, template)


def test_an_overlong_uri_matches_nothing() -> None:
    assert template_matches("{+x}", "x" * MAX_URI)
    assert not template_matches("{+x}", "x" * (MAX_URI + 1))
