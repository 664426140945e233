"""The page: small, sealed, readable by everyone, and with a token for itself alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from gateway.web import HEADERS, assets, may_have_token

ASSETS = assets()
TEXTS = {path: asset.body.decode() for path, asset in ASSETS.items()}
SCRIPTS = [path for path in TEXTS if path.endswith(".js")]


class Outline(HTMLParser):
    """The page's elements, in order, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(TEXTS["/"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


ELEMENTS = Outline().elements
IDS = [attributes["id"] for _, attributes in ELEMENTS if "id" in attributes]


def test_page_is_small() -> None:
    """All files of the page together weigh at most forty thousand bytes."""
    assert {"/", "/page.css", "/page.js", "/calls.js", "/lamp.svg"} == set(ASSETS)
    assert sum(len(asset.body) for asset in ASSETS.values()) <= 40_000


def test_files_have_types_and_tags() -> None:
    """Each file goes with its media type and a tag that follows its bytes."""
    assert ASSETS["/"].media_type == "text/html; charset=utf-8"
    assert ASSETS["/page.js"].media_type == "text/javascript; charset=utf-8"
    assert len({asset.etag for asset in ASSETS.values()}) == len(ASSETS)
    assert all(re.fullmatch('"[0-9a-f]{16}"', asset.etag) for asset in ASSETS.values())


def test_policy_allows_nothing_inline() -> None:
    """The page's policy starts from nothing and lets in files of its own origin only."""
    rules = dict(rule.split(" ", 1) for rule in dict(HEADERS)["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in str(rules)
    assert "http" not in str(rules)


def test_page_holds_nothing_inline() -> None:
    """No element carries script or style of its own, which the policy would stop."""
    for tag, attributes in ELEMENTS:
        assert tag != "style"
        assert tag != "script" or attributes["src"]
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert re.search(r"<script[^>]*></script>", TEXTS["/"])


@pytest.mark.parametrize("path", TEXTS)
def test_nothing_comes_from_elsewhere(path: str) -> None:
    """No file names another host; all that is loaded lies beside the page."""
    text = TEXTS[path].replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert "@import" not in text


@pytest.mark.parametrize("path", SCRIPTS)
def test_scripts_make_no_markup(path: str) -> None:
    """Text from outside is set as text: no call that reads markup or code is used, nothing is kept."""
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", TEXTS[path]
    )
    assert not re.findall(r"localStorage|sessionStorage|\.cookie", TEXTS[path])


def test_scripts_find_their_elements() -> None:
    """Each id a script asks for is in the page, once."""
    asked = set(re.findall(r'\$\("([^"]+)"\)', TEXTS["/page.js"]))
    assert len(asked) > 15
    assert asked <= set(IDS)
    assert len(IDS) == len(set(IDS))


def test_every_control_has_a_label() -> None:
    """What can be typed in or chosen has a visible label, and every picture a text."""
    labels = {attributes.get("for") for tag, attributes in ELEMENTS if tag == "label"}
    controls = {attributes["id"] for tag, attributes in ELEMENTS if tag in ("textarea", "select", "input")}
    assert controls == labels
    assert all("alt" in attributes for tag, attributes in ELEMENTS if tag == "img")


def test_news_is_announced() -> None:
    """Progress, verdicts and troubles stand in live regions, so that they are heard as well as seen."""
    live = [a for _, a in ELEMENTS if a.get("role") in ("status", "alert") or a.get("aria-live")]
    assert {attributes.get("id") or attributes["class"] for attributes in live} >= {
        "said",
        "verdict",
        "trouble",
    }


@pytest.mark.parametrize(
    ("host", "site", "given"),
    [
        ("127.0.0.1:8080", "same-origin", True),
        ("localhost:8080", "same-origin", True),
        ("LOCALHOST", "same-origin", True),
        ("[::1]:8080", "same-origin", True),
        ("127.0.0.1:8080", "cross-site", False),
        ("127.0.0.1:8080", "same-site", False),
        ("127.0.0.1:8080", "none", False),
        ("127.0.0.1:8080", None, False),
        ("rebound.example.com:8080", "same-origin", False),
        ("localhost.example.com", "same-origin", False),
        ("127.0.0.1.example.com", "same-origin", False),
        ("192.168.1.5:8080", "same-origin", False),
        ("localhost:8080\n", "same-origin", False),
        ("", "same-origin", False),
    ],
)
def test_only_the_page_gets_a_token(*, host: str, site: str | None, given: bool) -> None:
    """The page's token is given to the page on this machine, not to another site or another name."""
    assert may_have_token(host, site, "127.0.0.1") is given


@pytest.mark.parametrize(
    ("peer", "given"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.5", False),
        ("::ffff:192.168.1.5", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_other_machines_get_no_token(*, peer: str, given: bool) -> None:
    """Headers are what the caller writes: a caller from another machine is told apart by its address."""
    assert may_have_token("localhost:8080", "same-origin", peer) is given
