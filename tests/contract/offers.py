"""The scripts of the contract's backends: the same items from each, but for the URIs."""

from collections.abc import Iterable
from typing import Final

from tests.contract.stand import KINDS, script_of
from tests.peers.backend import Act, Offer, Script, prompt, resource, template, tool

SHARED: Final = "file:///shared%20notes.txt"
"""A URI that every backend lists."""
SHARED_TEMPLATE: Final = "rows://{table}/{row}"
UNLISTED: Final = "hidden://{server}/linked"
"""A URI that is not listed, but linked to in results."""
ERROR: Final = (
    '{ "message" : "gr\\u00fc\\/\u00dfe" , "code":-32001,"data":{"n":12345678901234567890123,"x":null},"x":1.50}'
)
FAILED: Final = '{"content":[{"type":"text","text":"it broke"}],"isError":true,"x-why":{"code":1.50}}'
ODD: Final = '{"content":[{"type":"hologram","z":[1.50,null]}],"x-vendor":{"big":12345678901234567890123},"n":1e2}'
ODD_MEMBERS: Final = '"x-unknown":{"a":[null,1.50],"big":12345678901234567890123}'


def offering(server: str) -> Script:
    """The script of a server of that kind (its name up to an underscore)."""
    unlisted = UNLISTED.replace("{server}", server)
    link = '{"type":"resource_link","uri":"URI","name":"n"}'
    block = '{"type":"resource","resource":{"uri":"URI","text":"t"}}'.replace("URI", SHARED)
    links = ",".join((link.replace("URI", unlisted), link.replace("URI", SHARED), block))
    return script_of(
        server,
        instructions=f"Ask {server} first.",
        tools=(
            tool("echo"),
            tool("mirror", Act("mirror")),
            tool("hang", Act("hang")),
            tool("progress", Act("progress", n=3)),
            tool("error", Act("error", ERROR)),
            tool("failed", Act("raw", FAILED)),
            Offer(f'{{"name":"odd","inputSchema":{{"type":"object"}},{ODD_MEMBERS}}}', Act("raw", ODD)),
            tool("links", Act("raw", f'{{"content":[{links}]}}')),
            tool(f"only_{server}"),
        ),
        resources=(resource(f"note://{server}/1"), resource(SHARED), resource(f"broken://{server}", _gone())),
        templates=(template(f"row://{server}/{{id}}"), template(SHARED_TEMPLATE)),
        prompts=(
            prompt("greet", arguments=[{"name": "who"}]),
            prompt("quote", Act("raw", f'{{"messages":[{{"role":"user","content":{block}}}]}}')),
        ),
    )


def _gone() -> Act:
    return Act("error", '{"code":-32603,"message":"gone for now"}')


def offerings(servers: Iterable[str] = KINDS) -> dict[str, Script]:
    """The scripts of these servers."""
    return {server: offering(server) for server in servers}
