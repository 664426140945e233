"""The rules of the house, checked on the syntax tree of every file.

Each rule is a function from a `Source` to complaints; a complaint says where, what, and what to do. No
test lives here: `test_house.py` holds the house to these rules, and the rules to planted breaches.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent

ROOMS: Final = {
    "PIL": ("gateway.images",),
    "aiohappyeyeballs": ("gateway.outbound",),
    "aiohttp": ("gateway.outbound",),
    "apsw": ("gateway.store.sqlite",),
    "click": ("gateway.__main__", "gateway.cli"),
    "cryptography": ("gateway.secrets",),
    "httpx": ("gateway.outbound",),
    "httpx_aiohttp": ("gateway.outbound",),
    "jwt": ("gateway.auth", "gateway.jwks"),
    "litestar": ("gateway.api",),
    "msgspec": ("gateway", "policies"),
    "multipart": ("gateway.dialects.forms",),
    "obstore": ("gateway.blobs.bucket",),
    "prometheus_client": ("gateway.telemetry",),
    "redis": ("gateway.store.redis_cluster", "gateway.store.redis_door", "gateway.store.redis_link"),
    "rich": ("gateway.__main__", "gateway.cli"),
    "structlog": ("gateway.telemetry",),
    "swagger_ui_bundle": ("gateway.api",),
    "textual_image": ("gateway.__main__", "gateway.cli"),
    "uvicorn": ("gateway.serve",),
    "uvloop": ("gateway.serve",),
    "yaml": ("gateway.documents",),
    "yarl": ("gateway.outbound",),
}
"""The room of each third-party library: a module, or a package with all that is in it."""

GUARDED: Final = {
    "_socket": (),
    "asyncio.streams": (),
    "asyncio.subprocess": (),
    "ctypes": (),
    "ftplib": (),
    "http.client": ("gateway.cli",),
    "imaplib": (),
    "logging": ("gateway.lines", "gateway.telemetry"),
    "marshal": (),
    "multiprocessing": (),
    "pickle": (),
    "poplib": (),
    "shelve": (),
    "smtplib": (),
    "socket": ("gateway.check", "gateway.cli", "gateway.outbound", "gateway.serve"),
    "sqlite3": (),
    "ssl": ("gateway.outbound", "gateway.store.redis_door"),
    "subprocess": ("gateway.cli", "gateway.trials"),
    "telnetlib": (),
    "urllib.request": ("gateway.cli",),
    "urllib.robotparser": (),
    "webbrowser": ("gateway.cli",),
    "xmlrpc": (),
}
"""Modules of the standard library that only some rooms may know."""

FLOORS: Final = (
    ("policies",),
    ("gateway",),
    (
        "gateway.deliveries",
        "gateway.jobs",
        "gateway.keys",
        "gateway.manners",
        "gateway.trail",
        "gateway.uploads",
        "gateway.webhooks",
        "gateway.worker",
    ),
    ("gateway.api", "gateway.dialects"),
    ("gateway.app", "gateway.dev"),
    ("gateway.__main__", "gateway.cli", "gateway.middleware", "gateway.serve"),
)
"""Lowest first: a module may know its own floor and those below. The longest name that fits counts."""

NEIGHBORS: Final = {
    "gateway.errors": (),
    "gateway.lifetime": (),
    "gateway.lines": (),
    "gateway.providers": ("gateway.images", "gateway.wire"),
    "gateway.store": ("gateway.audit", "gateway.crash", "gateway.errors"),
    "gateway.wire": (),
}
"""Rooms that may know only these of `gateway` besides themselves."""

VALUES: Final = frozenset(
    {"__future__", "base64", "bisect", "collections", "dataclasses", "datetime", "decimal", "difflib", "enum",
     "fractions", "functools", "graphlib", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "math",
     "operator", "re", "string", "types", "typing", "unicodedata", "urllib.parse"}
)  # fmt: skip
"""What `policies` may know of the standard library: modules that compute and touch nothing."""

IMPURE_NAMES: Final = frozenset({"open", "print", "input", "eval", "exec", "__import__", "breakpoint"})
IMPURE_ATTRIBUTES: Final = frozenset({"now", "utcnow", "today", "file_digest"})
ASYNC: Final = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
VAGUE: Final = frozenset(
    {"base", "common", "core", "handler", "helper", "manager", "misc", "service", "util"}
)
CONNECTS: Final = frozenset(
    {"PyJWKClient", "connect_accepted_socket", "connect_ex", "connect_read_pipe", "create_connection",
     "create_datagram_endpoint", "create_subprocess_exec", "create_subprocess_shell",
     "create_unix_connection", "open_connection", "open_unix_connection", "push_to_gateway",
     "pushadd_to_gateway", "sendto",
     "sock_connect", "start_tls", "subprocess_exec", "subprocess_shell"}
)  # fmt: skip
"""What dials, or starts a program that may, by whatever object it is asked for."""
HIDDEN_DOORS: Final = frozenset(
    {"__import__", "importlib.import_module", "import_module", "os.system", "os.popen", "os.posix_spawn",
     "os.execv", "os.execve", "os.execvp", "os.fork", "eval", "exec"}
)  # fmt: skip
ARTICLES: Final = frozenset({"a", "an", "the"})
"""Not counted as words of a test's name."""
MOST_LINES: Final = 500
LONGEST_FUNCTION: Final = 40
SUFFIXES: Final = frozenset({".css", ".html", ".js", ".lua", ".py", ".sql"})
SKIPS: Final = frozenset(
    {"skip", "skipif", "skipIf", "skipUnless", "xfail", "importorskip", "expectedFailure"}
)
UNMEASURED: Final = ("tests.bench", "tests.chaos", "tests.fakes")
"""Where a test's own clock may be the real one."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """A file of ours, read."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, line: int, complaint: str) -> str:
        """Return a complaint with its place."""
        return f"{self.path}:{line}: {complaint}"


Rule = Callable[[Source], Iterator[str]]


def within(module: str, room: str) -> bool:
    """Say whether a module is a room or in it."""
    return module == room or module.startswith(f"{room}.")


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of whatever is imported, inside functions too.

    `from a import b` yields `a.b` where `a` is a package of ours, since `b` may be a module.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            ours = (ROOT / name.replace(".", "/")).is_dir()
            yield from ((node.lineno, f"{name}.{a.name}" if ours else name) for a in node.names)


def functions(source: Source) -> Iterator[Function]:
    """Yield every function, wherever it is nested."""
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def cases(source: Source) -> Iterator[Function]:
    """Yield the functions that pytest runs."""
    return (node for node in functions(source) if node.name.startswith("test_"))


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for such an expression, the empty text for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def calls(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Yield every call of a dotted name."""
    nodes = (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))
    return ((node, dotted(node.func)) for node in nodes)


def is_code(source: Source) -> bool:
    """Say whether a file is of the product."""
    return within(source.module, "gateway") or within(source.module, "policies")


def one_room(source: Source) -> Iterator[str]:
    """Each library is known in one room, and each has one."""
    if not is_code(source):
        return
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top in ("gateway", "policies", ""):
            continue
        if top not in sys.stdlib_module_names and top not in ROOMS:
            yield source.at(line, f"`{top}` has no room: give it one in ROOMS, or do without it")
        guards = {known: rooms for known, rooms in (ROOMS | GUARDED).items() if within(name, known)}
        for known, rooms in guards.items():
            if not any(within(source.module, room) for room in rooms):
                where = " or ".join(rooms) or "nowhere"
                yield source.at(line, f"`{known}` is known in {where} only: ask that room for what you need")


def no_own_connection(source: Source) -> Iterator[str]:
    """Connections are opened by the sender alone, and nobody sends another program to open one."""
    if not is_code(source) or within(source.module, "gateway.outbound"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and (name := node.attr) in CONNECTS:
            yield source.at(
                node.lineno, f"`{name}` opens a connection: send a WireRequest by `gateway.outbound`"
            )
        elif isinstance(node, ast.ImportFrom):
            for name in {alias.name for alias in node.names} & CONNECTS:
                yield source.at(node.lineno, f"`{name}` opens a connection: `gateway.outbound` does that")
    for call, name in calls(source):
        if name in HIDDEN_DOORS:
            yield source.at(call.lineno, f"`{name}` hides what it runs: say it in an import")


def floor(module: str) -> int:
    """Return the floor a module stands on."""
    fits = [(len(room), n) for n, rooms in enumerate(FLOORS) for room in rooms if within(module, room)]
    return max(fits)[1]


def arrows_down(source: Source) -> Iterator[str]:
    """A module knows its own floor and those below, and a closed room only its neighbors."""
    if not is_code(source):
        return
    for line, name in imports(source):
        if name.startswith("."):
            yield source.at(line, "imports by dots: write the module's whole name")
        elif name.partition(".")[0] in ("gateway", "policies"):
            yield from (source.at(line, complaint) for complaint in _steps(source.module, name))


def _steps(module: str, name: str) -> Iterator[str]:
    if floor(name) > floor(module):
        yield f"`{name}` is above this module: hand in what is needed by the constructor"
    for room, known in NEIGHBORS.items():
        allowed = ("policies", room, *known)
        if within(module, room) and not any(within(name, one) for one in allowed):
            yield f"`{room}` may not know `{name}`: let its caller join the two"


def policies_are_pure(source: Source) -> Iterator[str]:
    """A policy needs no clock, coin, file, socket, log or wait."""
    if not within(source.module, "policies"):
        return
    for line, name in imports(source):
        free = ("policies", "msgspec", *VALUES)
        if not any(within(name, one) for one in free):
            yield source.at(line, f"`{name}` is not a module of values: take what it gives as an argument")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)) in IMPURE_NAMES:
            yield source.at(node.lineno, f"`{name}` touches the world: do it in `gateway`")
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES:
            yield source.at(node.lineno, f"`.{node.attr}` reads the world: take the value as an argument")
        elif isinstance(node, ASYNC):
            yield source.at(node.lineno, "waits: decide here, await in `gateway`")
        elif isinstance(node, ast.Global):
            yield source.at(node.lineno, "keeps state: return it")


def small_functions(source: Source) -> Iterator[str]:
    """A function fits on a screen."""
    for node in functions(source):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > LONGEST_FUNCTION:
            yield source.at(node.lineno, f"`{node.name}` has {length} lines: split it ({LONGEST_FUNCTION})")


def has_header(source: Source) -> Iterator[str]:
    """A module begins by saying what lives in it."""
    text = ast.get_docstring(source.tree)
    if text is None:
        yield source.at(1, "has no header: say what lives here, what must not, and the one idea")
    elif is_code(source) and not 2 <= len(text.splitlines()) <= 14:
        yield source.at(1, f"has a header of {len(text.splitlines())} lines: write 3 to 10")


def idle_when_imported(source: Source) -> Iterator[str]:
    """Importing a module does nothing but name things."""
    if is_code(source):
        for node in source.tree.body:
            works = isinstance(node, ast.For | ast.While | ast.With | ast.Try)
            if works or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                yield source.at(node.lineno, "works when imported: put it into a function")


def cases_state_rules(source: Source) -> Iterator[str]:
    """A test's docstring is one sentence, its name three to six words."""
    for node in cases(source):
        text = ast.get_docstring(node) or ""
        if not text.endswith((".", "?", "!")) or len(text.split()) < 4:
            yield source.at(node.lineno, f"`{node.name}` states no rule: give it a docstring of one sentence")
        if not 3 <= len([word for word in node.name.split("_")[1:] if word not in ARTICLES]) <= 6:
            yield source.at(node.lineno, f"`{node.name}`: name the behavior in three to six words")


def cases_do_not_sleep(source: Source) -> Iterator[str]:
    """Time in a test moves by argument."""
    if is_code(source) or any(within(source.module, room) for room in UNMEASURED):
        return
    for call, name in calls(source):
        is_yield = [ast.unparse(argument) for argument in call.args] == ["0"]
        if name in ("time.sleep", "asyncio.sleep", "sleep", "anyio.sleep") and not is_yield:
            yield source.at(call.lineno, "sleeps: hand in a clock, or wait for an event")


def cases_are_not_skipped(source: Source) -> Iterator[str]:
    """A test that does not run is none."""
    named = [(node.lineno, dotted(node)) for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            named += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    for line, name in named:
        if name.startswith(("pytest.", "unittest.")) and name.rpartition(".")[2] in SKIPS:
            yield source.at(line, f"`{name}`: make it run, or delete the test")


def cases_do_not_patch(source: Source) -> Iterator[str]:
    """Doubles go in through constructors, never over our own modules."""
    ours = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).partition(".")[0] in ("gateway", "policies")
    }
    for call, name in calls(source):
        if not (name.endswith(("monkeypatch.setattr", "monkeypatch.delattr")) or "patch" in name.split(".")):
            continue
        target = call.args[0] if call.args else None
        text = target.value if isinstance(target, ast.Constant) else ""
        root = dotted(target).partition(".")[0] if target is not None else ""
        if root in ours or str(text).startswith(("gateway.", "policies.")):
            yield source.at(call.lineno, "patches a module of ours: hand a double to the constructor")


RULES: Final[tuple[Rule, ...]] = (
    one_room,
    no_own_connection,
    arrows_down,
    policies_are_pure,
    small_functions,
    has_header,
    idle_when_imported,
    cases_state_rules,
    cases_do_not_sleep,
    cases_are_not_skipped,
    cases_do_not_patch,
)


def name_and_size(path: str, text: str) -> Iterator[str]:
    """Complain of a file whose name says nothing, or which is too long to be one thing."""
    stem = Path(path).stem
    if stem in VAGUE or stem.removesuffix("s") in VAGUE:
        yield f"{path}:1: `{stem}` names no room: name it by what is done there"
    if (count := len(text.splitlines())) > MOST_LINES:
        yield f"{path}:{MOST_LINES}: has {count} lines, {MOST_LINES} at most: it is two files"


def repeated(sources: list[Source]) -> Iterator[str]:
    """Complain of tests that state their rule in another test's words."""
    rules = [(ast.get_docstring(node) or "", s, node) for s in sources for node in cases(s)]
    counts = Counter(text for text, _, _ in rules)
    for text, source, node in rules:
        if text and counts[text] > 1:
            yield source.at(node.lineno, f"`{node.name}` shares its docstring: say what this one shows")


def read(path: str, text: str) -> Source:
    """Return a file's text with its tree."""
    return Source(path, text, ast.parse(text, path))


def files() -> dict[str, str]:
    """Return the text of every file of ours by its path."""
    found = (p for top in ("gateway", "policies", "tests") for p in sorted((ROOT / top).rglob("*")))
    return {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in found if p.suffix in SUFFIXES}
