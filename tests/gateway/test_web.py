"""The browser's files: small, sealed, readable by everyone, and with a token for the page alone."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import inspect

from gateway.api.account import AccountView, LimitsView, ModelView
from gateway.api.jobs import JobPage, QuoteView
from gateway.api.uploads import UploadView
from gateway.api.views import JobErrorView, JobView, OutputView
from gateway.web import LIBRARY, assets, may_have_token, page, policy
from gateway.web.serving import App, library, playground
from policies.model import InputRef, JobRequest, Shortfall

ASSETS = assets()
TEXTS = {path: asset.body.decode() for path, asset in ASSETS.items()}
SCRIPTS = [path for path in TEXTS if path.endswith(".js")]
HERE = "http://127.0.0.1:8080"
Head = dict[str, str]


class Outline(HTMLParser):
    """The page's elements, in order, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(TEXTS["/"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


async def nowhere() -> None:
    """Say that pictures have no address of their own."""


async def in_a_bucket() -> str:
    """Say that pictures are read from object storage."""
    return "https://bucket.example:9000/images/a?signature=b"


async def ask(app: App, **fields: str) -> tuple[int, Head, bytes]:
    """Ask an application for its file, with these headers."""
    sent: list[dict[str, Any]] = []

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    await app({"headers": headers}, None, send)
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, sent[1]["body"]


def pages(*, dev: bool = True) -> dict[str, App]:
    """Return the playground's applications."""
    return playground(lambda: HERE, nowhere, dev=dev)


ELEMENTS = Outline().elements
IDS = [attributes["id"] for _, attributes in ELEMENTS if "id" in attributes]


def test_files_are_small() -> None:
    """What a page loads before its first picture leaves most of sixty kilobytes to the API."""
    loaded = [asset for path, asset in ASSETS.items() if not path.endswith(".ts")]
    assert sum(len(asset.packed) for asset in loaded) <= 30_000
    assert sum(len(asset.body) for asset in loaded) <= 70_000
    assert len(ASSETS["/client.js"].body) < 12_000


def test_files_have_types_and_tags() -> None:
    """Each file goes with its media type and a tag that follows its bytes, packed or not."""
    assert ASSETS["/"].media_type == "text/html; charset=utf-8"
    assert ASSETS["/client.js"].media_type == "text/javascript; charset=utf-8"
    assert ASSETS["/client.d.ts"].media_type == "text/plain; charset=utf-8"
    tags = [tag for asset in ASSETS.values() for tag in (asset.etag, asset.packed_etag)]
    assert len(set(tags)) == 2 * len(ASSETS)
    assert all(re.fullmatch('"[0-9a-f]{16}(-gzip)?"', tag) for tag in tags)


@pytest.mark.parametrize("path", sorted(ASSETS))
async def test_files_are_kept_and_asked_after(path: str) -> None:
    """A file is sent packed to who can unpack it, and not at all to who has it."""
    app = (library() | pages())[path]
    status, head, body = await ask(app)
    assert (status, head["content-type"]) == (200, ASSETS[path].media_type)
    assert head["cache-control"] == "no-cache"
    assert "content-encoding" not in head
    status, packed_head, packed = await ask(app, accept_encoding="gzip, br")
    assert (status, packed_head["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(packed) == body
    assert len(packed) < len(body)
    assert packed_head["etag"] != head["etag"]
    assert (await ask(app, if_none_match=head["etag"]))[::2] == (304, b"")
    assert (await ask(app, if_none_match=head["etag"], accept_encoding="gzip"))[0] == 200


async def test_client_is_for_every_origin() -> None:
    """Programs of any origin may load the client and its types; nobody else may load the playground's."""
    for path, app in (library() | pages()).items():
        _, head, _ = await ask(app)
        given = path in LIBRARY
        assert head.get("access-control-allow-origin") == ("*" if given else None)
        assert head["cross-origin-resource-policy"] == ("cross-origin" if given else "same-origin")


@pytest.mark.parametrize("dev", [True, False])
async def test_page_knows_its_installation(*, dev: bool) -> None:
    """The page is told where its links begin and where its token comes from, as text and not as markup."""
    _, _, body = await ask(pages(dev=dev)["/"])
    said = 'data-token="dev"' if dev else 'data-token="typed"'
    assert f'<html lang="en" {said} data-address="{HERE}">' in body.decode()
    odd = page(ASSETS["/"], 'http://x"><script>', dev=dev).body.decode()
    assert 'data-address="http://x&quot;&gt;&lt;script&gt;"' in odd


async def test_page_may_reach_its_pictures() -> None:
    """Where pictures are kept elsewhere, that origin is let in for pictures and uploads, and for no more."""
    _, head, _ = await ask(playground(lambda: HERE, in_a_bucket, dev=False)["/"])
    rules = dict(rule.split(" ", 1) for rule in head["content-security-policy"].split("; "))
    assert rules["connect-src"] == "'self' https://bucket.example:9000"
    assert rules["img-src"] == "'self' blob: data: https://bucket.example:9000"
    assert [name for name, value in rules.items() if "bucket" in value] == ["img-src", "connect-src"]


def test_policy_allows_nothing_inline() -> None:
    """The page's policy starts from nothing and lets in files of its own origin only."""
    rules = dict(rule.split(" ", 1) for rule in policy().split("; "))
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
    text = re.sub(r"http://www.w3.org/2000/svg|https://images.example.com", "", TEXTS[path])
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert "@import" not in text


@pytest.mark.parametrize("path", SCRIPTS)
def test_scripts_make_no_markup(path: str) -> None:
    """Text from outside is set as text: no call that reads markup or code is used."""
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", TEXTS[path]
    )


def test_token_stays_in_its_tab() -> None:
    """A token is kept where the tab's end ends it, by one file; nothing is kept anywhere else."""
    assert not [path for path in SCRIPTS if re.search(r"localStorage|indexedDB|\.cookie", TEXTS[path])]
    assert [path for path in SCRIPTS if "sessionStorage" in TEXTS[path]] == ["/session.js"]


def test_scripts_find_their_elements() -> None:
    """Each id a script asks for is in the page, once."""
    asked = {name for path in SCRIPTS for name in re.findall(r'\$\("([^"]+)"\)', TEXTS[path])}
    assert len(asked) > 30
    assert asked <= set(IDS)
    assert len(IDS) == len(set(IDS))


class Field(NamedTuple):
    """A field of an answer: whether it may be absent, and whether it may be null."""

    name: str
    absent: bool
    null: bool


def typed(name: str) -> list[Field]:
    """Return the fields of an interface of the client's types, in order."""
    text = re.sub(r"/\*.*?\*/", "", TEXTS["/client.d.ts"], flags=re.DOTALL)
    body = text.partition(f"export interface {name} {{")[2].partition("\n}")[0]
    while (plain := re.sub(r"\{[^{}]*\}|<[^<>]*>", "object", body)) != body:
        body = plain
    found = re.findall(r"^  (\w+)(\??): (.+);$", body, re.MULTILINE)
    return [Field(field, bool(mark), "null" in kind.split(" | ")) for field, mark, kind in found]


def fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """Return the fields of a struct, in order."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("Job", JobView),
        ("Output", OutputView),
        ("JobError", JobErrorView),
        ("Shortfall", Shortfall),
        ("JobPage", JobPage),
        ("Limits", LimitsView),
        ("Quote", QuoteView),
        ("Model", ModelView),
        ("Account", AccountView),
        ("Upload", UploadView),
    ],
)
def test_types_tell_every_field(name: str, struct: type[msgspec.Struct]) -> None:
    """The client's types have the fields of the API's answers, and say which may be absent or null."""
    assert typed(name) == [
        Field(each.name, not each.required, getattr(each.type, "includes_none", False))
        for each in fields(struct)
    ]


@pytest.mark.parametrize(("name", "struct"), [("JobRequest", JobRequest), ("InputRef", InputRef)])
def test_types_take_every_field(name: str, struct: type[msgspec.Struct]) -> None:
    """The client's types take the fields of the API's requests, and want those without a default."""
    asked = [(each.name, not each.required) for each in fields(struct)]
    assert [(field.name, field.absent) for field in typed(name)] == asked


def test_types_name_every_call() -> None:
    """Each public method of the client has a type, and nothing else has one."""
    called = re.findall(r"^  (?:async )?\*?([a-z]\w*)\(.*\{$", TEXTS["/client.js"], re.MULTILINE)
    typed = re.findall(r"^  ([a-z]\w*)\(", TEXTS["/client.d.ts"], re.MULTILINE)
    assert set(called) == set(typed)
    assert len(typed) == len(set(typed)) > 10


def test_every_control_has_a_label() -> None:
    """What can be typed in or chosen has a visible label, and every picture a text."""
    labels = {attributes.get("for") for tag, attributes in ELEMENTS if tag == "label"}
    controls = {
        attributes.get("id", "") for tag, attributes in ELEMENTS if tag in ("textarea", "select", "input")
    }
    wrapped = [attributes for _, attributes in ELEMENTS if attributes.get("type") == "radio"]
    assert controls - {""} == labels - {None}
    assert len(wrapped) == 3
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
