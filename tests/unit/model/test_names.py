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


def test_a_name_that_fits_is_the_plain_concatenation() -> None:
    assert qualify("git", "log", owner="git") == "git__log"
    assert qualify("git", "log", owner="git", separator="-") == "git-log"


def test_without_a_prefix_the_native_name_stands_alone() -> None:
    assert qualify("", "log", owner="git") == "log"


def test_a_name_of_exactly_the_budget_is_left_alone_and_one_more_is_cut() -> None:
    assert qualify("", "x" * 64, owner="a") == "x" * 64
    cut = qualify("", "x" * 65, owner="a")
    assert len(cut) == 64
    assert cut[:56] == "x" * 55 + "_"


def test_names_that_become_equal_get_different_hashes() -> None:
    dotted, slashed = qualify("a", "x.y", owner="a"), qualify("a", "x/y", owner="a")
    assert dotted.startswith("a__x_y_")
    assert slashed.startswith("a__x_y_")
    assert dotted != slashed


def test_a_hashed_name_is_stable() -> None:
    assert qualify("a", "x.y", owner="a") == "a__x_y_7ace4eaa"


def test_a_budget_too_small_for_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        qualify("a", "b", owner="a", budget=15)


def test_a_taken_name_gets_a_short_hash_then_longer_ones() -> None:
    tries = [distinguish("tool", owner="b", native="tool", attempt=attempt) for attempt in range(5)]
    assert len(set(tries)) == 5
    assert [len(name) for name in tries] == [13, 21, 21, 21, 21]
    assert tries[1].startswith(tries[0])


def test_distinguishing_a_hashed_name_replaces_its_hash() -> None:
    hashed = qualify("a", "x.y", owner="a")
    longer = distinguish(hashed, owner="a", native="x.y", attempt=1)
    assert longer.startswith(hashed)
    assert len(longer) == len(hashed) + 8


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


def test_an_owner_as_configured_is_accepted_and_the_longest_wins() -> None:
    assert split_prefixed_uri("my_server+x:y", ["my_server"]) == ("my_server", "x:y")
    assert split_prefixed_uri("m_+n+x:y", ["m_", "m_+n"]) == ("m_+n", "x:y")


@pytest.mark.parametrize("uri", ["file:///a+b", "nobody+file:///x", "docs+", "docs", "+file:///x", ""])
def test_a_uri_without_a_known_owner_is_not_prefixed(uri: str) -> None:
    assert split_prefixed_uri(uri, ["docs"]) is None


def test_an_ambiguous_lower_case_label_matches_no_owner() -> None:
    owners = ["GitHub", "github"]
    assert split_prefixed_uri("github+x:y", owners) is None
    assert split_prefixed_uri("GitHub+x:y", owners) == ("GitHub", "x:y")


@pytest.mark.parametrize(
    "uri",
    [
        "KITCHEN://Soup",
        "https://Example.com",
        "HTTPS://Example.com:443?q=1",
        "http://a/%7eb/c",
        "file:///a/./b/../c",
        "file:///C:/x",
        "file:///a/..",
        "kitchen://soup?q=é",
        "urn:ISBN:1",
        "ui://app/main.html#top",
        "data:text/plain,hi",
    ],
)
def test_a_client_parsers_spelling_normalises_to_the_listed_one(uri: str) -> None:
    assert normalise_uri(str(AnyUrl(uri))) == normalise_uri(uri)


def test_different_resources_normalise_differently() -> None:
    keys = {normalise_uri(uri) for uri in ("file:///a", "file:///A", "file://a", "file:///a/", "file:///a?b", "urn:a")}
    assert len(keys) == 6


def test_a_reserved_character_is_not_unescaped() -> None:
    assert normalise_uri("x://h/a%2fb") == "x://h/a%2Fb"


def test_scheme_is_lower_case_and_empty_without_one() -> None:
    assert scheme("KITCHEN://x") == "kitchen"
    assert scheme("{scheme}://x") == ""
    assert scheme("no uri") == ""


@pytest.mark.parametrize("uri", ["file:///a/../b", "file:///a/%2e%2E/b", "file:///a/..%2fb", "file:///.", "x:a/../b"])
def test_dot_segments_are_found_when_encoded(uri: str) -> None:
    assert has_dot_segments(uri)


@pytest.mark.parametrize("uri", ["file:///a/...", "file:///a..b", "x://h/a?p=../b", "https://h"])
def test_other_dots_are_not_dot_segments(uri: str) -> None:
    assert not has_dot_segments(uri)


def test_block_rules_see_merged_slashes_and_no_escapes() -> None:
    assert "file:///secret/x" in spellings("FILE:////%73ecret%2fx")


def template_matches(template: str, uri: str) -> bool:
    compiled = compile_template(template)
    return compiled is not None and compiled.matches(uri)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("db://{table}/{id}", "db://users/1"),
        ("db://{table}/{id}", "db://users/"),
        ("file:///{+path}", "file:///a/b/c.txt"),
        ("file:///{path*}", "file:///a,b"),
        ("x://h{/seg*}", "x://h/a/b"),
        ("x://h{/seg*}", "x://h"),
        ("x://h{/a,b}/end", "x://h/1/2/end"),
        ("x://h/s{?q,lang}", "x://h/s?q=1&lang=en"),
        ("x://h/s{?q}", "x://h/s"),
        ("x://h/s?fixed=1{&q}", "x://h/s?fixed=1&q=2"),
        ("x://h/p{;v}", "x://h/p;v=1"),
        ("x://h/f{.ext}", "x://h/f.txt"),
        ("x://h/p{#frag}", "x://h/p#a/b"),
        ("x://{name:3}", "x://abc"),
        ("user://{id}", "user://a@b.c"),
        ("{+a}-{b}", "x-y/z-w"),
        ("{+a}-{/b*}X", "-/-/X"),
        ("plain://text", "plain://text"),
    ],
)
def test_a_template_matches_what_it_expands_to(template: str, uri: str) -> None:
    assert template_matches(template, uri)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("db://{table}/{id}", "db://users/1/2"),
        ("db://{table}/{id}", "db://users"),
        ("db://{table}", "xdb://users"),
        ("file:///{name}", "file:///a/b"),
        ("x://h{/a}", "x://hello"),
        ("x://h/s{?q}", "x://h/s&q=1"),
        ("x://h/p{#frag}", "x://h/p/q"),
        ("plain://text", "plain://text2"),
        ("", "x"),
    ],
)
def test_a_template_does_not_match_anything_else(template: str, uri: str) -> None:
    assert not template_matches(template, uri)


@pytest.mark.parametrize("template", ["x://{", "x://}", "x://{}", "x://{a b}", "x://{=a}", "x://{{a}}", "{a}" * 65])
def test_an_invalid_template_does_not_compile_and_matches_nothing(template: str) -> None:
    assert compile_template(template) is None
    assert not template_matches(template, template)


def test_an_overlong_uri_matches_nothing() -> None:
    assert template_matches("{+x}", "x" * MAX_URI)
    assert not template_matches("{+x}", "x" * (MAX_URI + 1))
