"""Pages for people: the documents of the API and one page for every problem code.

All files come from this machine: our own under `static`, the viewer's from its package. No page has an
inline script, and each has a policy of its own that says so. Files are read when the API is built.
"""

from __future__ import annotations

import functools
import html
import re
import string
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler

from gateway.api.collection import collection
from gateway.api.exchange import JSON, Answer, encode
from gateway.api.gate import PUBLIC
from gateway.api.llms import llms
from gateway.api.problems import view
from gateway.errors import CATALOGUE, Problem
from policies.model import Flaw

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VIEWER: Final = "vendor/swagger-ui-4.15.5"
VIEWER_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
OWN_FILES: Final = ("page.css", "docs.js")
MEDIA_TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "png": b"image/png",
}
HTML: Final = (b"content-type", b"text/html; charset=utf-8")
SOON: Final = (b"cache-control", b"public, max-age=300")
DAY: Final = (b"cache-control", b"public, max-age=86400")
STRICT: Final = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
VIEWING: Final = (
    b"content-security-policy",
    (
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
)
"""The viewer sets styles on its elements; it has no inline script."""

SAMPLE_ID: Final = "01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0"
SAMPLE_WAIT_MS: Final = 12_000
SAMPLE_FLAW: Final = Flaw("/prompt", "is required")
SAMPLE_RULE: Final = "demo.blocked"
SAMPLE_DETAIL: Final = f"The prompt is blocked by the rule {SAMPLE_RULE}."


class PageCalls:
    """The routes of pages. `document` makes the OpenAPI document; it is asked once, when first wanted."""

    def __init__(self, public_url: Callable[[], str], document: Callable[[], dict[str, Any]]) -> None:
        self._public_url = public_url
        made = functools.cache(document)
        self._document = functools.cache(lambda: encode(made()))
        self._collection = functools.cache(lambda: encode(collection(made())))
        self._llms = functools.cache(lambda: llms(made()).encode())
        own, viewer = files("gateway.api") / "static", files("swagger_ui_bundle") / VIEWER
        self._docs = (own / "docs.html").read_bytes()
        self._problem = string.Template((own / "problem.html").read_text())
        self._files = _read(own, OWN_FILES) | _read(viewer, VIEWER_FILES)

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers; none is part of the document they show."""
        hidden: dict[str, Any] = {"opt": PUBLIC, "include_in_schema": False}
        return [
            get("/openapi.json", **hidden)(self.openapi),
            get("/postman.json", **hidden)(self.postman),
            get("/llms.txt", **hidden)(self.brief),
            get("/docs", **hidden)(self.docs),
            get("/docs/{name:str}", **hidden)(self.file),
            get("/problems/{code:str}", **hidden)(self.problem),
        ]

    async def openapi(self) -> Answer:
        """Read the OpenAPI document."""
        return Answer(200, [JSON, SOON], self._document())

    async def postman(self) -> Answer:
        """Read the Postman collection."""
        return Answer(200, [JSON, SOON], self._collection())

    async def brief(self) -> Answer:
        """Read what a language model is to know."""
        return Answer(200, [(b"content-type", b"text/plain; charset=utf-8"), SOON], self._llms())

    async def docs(self) -> Answer:
        """Read the documents."""
        return Answer(200, [HTML, VIEWING], self._docs)

    async def file(self, request: Request[Any, Any, Any]) -> Answer:
        """Read a file of the documents' page."""
        name = request.path_params["name"]
        if name not in self._files:
            raise Problem("not_found")
        return Answer(200, [(b"content-type", MEDIA_TYPES[name.rpartition(".")[2]]), DAY], self._files[name])

    async def problem(self, request: Request[Any, Any, Any]) -> Answer:
        """Read what a problem code means."""
        code = request.path_params["code"]
        if code not in CATALOGUE:
            raise Problem("not_found")
        return Answer(200, [HTML, STRICT, DAY], self._page(code).encode())

    def _page(self, code: str) -> str:
        row = CATALOGUE[code]
        again = "It may be admitted later." if row.retryable else "Not as it is: the answer will be the same."
        values = {
            "code": code,
            "status": str(row.status),
            "title": row.title,
            "kind": row.kind,
            "meaning": row.meaning,
            "again": again,
        }
        sample = msgspec.json.format(encode(example(code, self._public_url()))).decode()
        texts = {name: _marked(value) for name, value in values.items()}
        return self._problem.substitute(texts, example=html.escape(sample))


def _marked(text: str) -> str:
    """Return a text as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def example(code: str, base_url: str) -> Any:
    """Return what a client may be sent for a code."""
    row = CATALOGUE[code]
    blocked = row.kind == "blocked"
    sample = Problem(
        code,
        SAMPLE_DETAIL if blocked else "",
        retry_after_ms=SAMPLE_WAIT_MS if row.kind == "limit" else None,
        rule=SAMPLE_RULE if blocked else None,
        flaws=(SAMPLE_FLAW,) if code == "invalid_request" else (),
    )
    return view(sample, base_url, SAMPLE_ID)


def _read(folder: Traversable, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}
