"""Writing heads: which texts are valid in a header line, a request line or an origin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.http1.head import RESERVED_HEADERS, header_line, header_lines, status_line
from mcp_manifold.http1.origin import Origin


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("http://a", "a", 80, "a", "/"),
        ("https://A.example:443/x/y?q=1&r=%20", "a.example", 443, "a.example", "/x/y?q=1&r=%20"),
        ("http://[::1]:8080/mcp#part", "::1", 8080, "[::1]:8080", "/mcp"),
        ("https://b\u00fccher.example/\u00fc", "xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/%C3%BC"),
    ],
)
def test_a_url_is_split_into_its_parts(url: str, host: str, port: int, authority: str, path: str) -> None:
    assert Origin.of(url) == Origin(host, port, url.startswith("https"), authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "", "a/secret", "ftp://secret/", "http:///secret", "http://me:secret@a/", "http://a/ secret",
        "http://a/\r\nsecret", "http://a:secret/", "http://[secret/", "http://" + "secret" * 20 + "/",
        "http://a..secret/",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="the URL") as caught:
        Origin.of(url)
    assert "secret" not in str(caught.value)


def test_a_head_names_the_host_of_the_url_and_a_status_its_phrase() -> None:
    head = Origin.of("http://a:81/mcp").head("POST", None, [("Accept", "x/y")])
    assert head == b"POST /mcp HTTP/1.1\r\nhost: a:81\r\naccept-encoding: identity\r\nAccept: x/y\r\n"
    assert (status_line(404), status_line(599)) == (b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_a_header_of_the_connection_is_refused_in_any_case(name: bytes) -> None:
    with pytest.raises(ValueError, match="set by the connection"):
        Origin.of("http://a").head("POST", None, [(name.decode().title(), "x")])
    with pytest.raises(ValueError, match="set by the connection"):
        header_line(name.decode().title(), "x", reserved=RESERVED_HEADERS)


@pytest.mark.parametrize(
    ("method", "path"), [("POST /", None), ("", None), ("POST", "x"), ("POST", "/a b"), ("POST", "/\r\nx: y")]
)
def test_a_method_or_path_that_would_break_the_request_line_is_refused(method: str, path: str | None) -> None:
    with pytest.raises(ValueError, match="the method or the path"):
        Origin.of("http://a").head(method, path, [])


@pytest.mark.parametrize("value", ["secret\rx", "secret\nx: y", "secret\0", "secret\u20ac"])
def test_a_value_that_cannot_be_one_line_is_refused_without_quoting_it(value: str) -> None:
    with pytest.raises(ValueError, match="'authorization'") as caught:
        header_line("authorization", value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "\u00fc"])
def test_an_invalid_header_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a header name"):
        header_line(name, "x")


@given(name=st.text(), value=st.text())
def test_a_header_line_is_one_line_or_refused(name: str, value: str) -> None:
    try:
        line = header_line(name, value)
    except ValueError:
        return
    assert line.endswith(b"\r\n")
    assert not set(line[:-2]) & set(b"\r\n\0")


BYTES = st.lists(st.sampled_from([b"a", b"Z", b"-", b":", b" ", b"\r", b"\n", b"\0", b"\xff"])).map(b"".join)


@given(lines=st.lists(st.tuples(BYTES, BYTES), max_size=4))
def test_no_name_or_value_starts_a_line_of_its_own(lines: list[tuple[bytes, bytes]]) -> None:
    try:
        written = header_lines(lines)
    except ValueError:
        return
    assert [line.partition(b": ")[::2] for line in written.split(b"\r\n")[:-1]] == [
        (name, value) for name, value in lines
    ]
