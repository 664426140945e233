"""The house keeps its rules, and each rule notices when it is broken."""

from __future__ import annotations

from typing import Final

import pytest

from tests.house import RULES, Rule, Source, files, name_and_size, read, repeated


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The text of every file of the house by its path."""
    return files()


@pytest.fixture(scope="module")
def sources(texts: dict[str, str]) -> list[Source]:
    """Every Python file of the house, read."""
    return [read(path, text) for path, text in texts.items() if path.endswith(".py")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_its_rules(rule: Rule, sources: list[Source]) -> None:
    """Every file of the house keeps every rule that is written down in this one."""
    complaints = [complaint for source in sources for complaint in rule(source)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_files_are_small_and_named(texts: dict[str, str]) -> None:
    """A file has a name that says what is in it, and at most five hundred lines."""
    complaints = [complaint for path, text in texts.items() for complaint in name_and_size(path, text)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_rules_are_stated_once(sources: list[Source]) -> None:
    """No two tests state the same rule in the same words."""
    complaints = list(repeated(sources))
    assert not complaints, "\n" + "\n".join(complaints)


def test_house_was_found(texts: dict[str, str]) -> None:
    """The walk sees the product and its tests; an empty house would keep every rule."""
    assert {"gateway/errors.py", "policies/model.py", "tests/test_house.py"} <= set(texts)


HEADER: Final = '"""What lives here.\n\nAnd what must not.\n"""\n'
CASE: Final = 'def test_three_short_words():\n    """The rule is a sentence."""\n    '

BREACHES: Final = [
    # rule, path, text of the file, line of the complaint, words in it
    ("one_room", "gateway/jobs.py", "import httpx", 1, "gateway.outbound"),
    ("one_room", "gateway/app.py", "def f():\n    from PIL import Image", 2, "gateway.images"),
    ("one_room", "gateway/auth.py", "from cryptography.hazmat import x", 1, "gateway.secrets"),
    ("one_room", "gateway/outbounds.py", "import aiohttp.web", 1, "gateway.outbound"),
    ("one_room", "gateway/blobs.py", "import boto3", 1, "no room"),
    ("one_room", "gateway/blobs.py", "import urllib.request", 1, "gateway.cli"),
    ("one_room", "gateway/jobs.py", "import logging.config", 1, "gateway.telemetry"),
    ("one_room", "gateway/store/rows.py", "import pickle", 1, "nowhere"),
    ("one_room", "policies/quota.py", "import structlog", 1, "gateway.telemetry"),
    ("no_own_connection", "gateway/jobs.py", "asyncio.open_connection('h', 1)", 1, "WireRequest"),
    ("no_own_connection", "gateway/jobs.py", "from asyncio import open_connection", 1, "outbound"),
    ("no_own_connection", "gateway/jobs.py", "dial = loop.sock_connect", 1, "WireRequest"),
    ("no_own_connection", "gateway/auth.py", "jwt.PyJWKClient(url)", 1, "WireRequest"),
    ("no_own_connection", "gateway/jobs.py", "asyncio.create_subprocess_exec('curl')", 1, "WireRequest"),
    ("no_own_connection", "gateway/jobs.py", "importlib.import_module('httpx')", 1, "hides"),
    ("no_own_connection", "gateway/app.py", "os.system('curl x')", 1, "hides"),
    ("one_room", "gateway/jobs.py", "import _socket", 1, "nowhere"),
    ("one_room", "gateway/jobs.py", "import ctypes.util", 1, "nowhere"),
    ("arrows_down", "policies/quota.py", "from gateway.errors import Problem", 1, "above"),
    ("arrows_down", "gateway/blobs.py", "if 1:\n    from gateway.jobs import Jobs", 2, "above"),
    ("arrows_down", "gateway/images/thumb.py", "from gateway import worker", 1, "above"),
    ("arrows_down", "gateway/jobs.py", "import gateway.api.views", 1, "above"),
    ("arrows_down", "gateway/api/jobs.py", "from gateway.app import build", 1, "above"),
    ("arrows_down", "gateway/app.py", "from gateway.cli import dev", 1, "above"),
    ("arrows_down", "gateway/providers/openai.py", "from gateway.outbound import Outbound", 1, "may not"),
    ("arrows_down", "gateway/store/engine.py", "from gateway.blobs import Links", 1, "may not"),
    ("arrows_down", "gateway/api/jobs.py", "from . import views", 1, "whole name"),
    ("policies_are_pure", "policies/quota.py", "import time", 1, "`time`"),
    ("policies_are_pure", "policies/quota.py", "from random import choice", 1, "`random`"),
    ("policies_are_pure", "policies/quota.py", "import os.path", 1, "`os.path`"),
    ("policies_are_pure", "policies/quota.py", "import urllib.request", 1, "values"),
    ("policies_are_pure", "policies/quota.py", "def f():\n    print(1)", 2, "`print`"),
    ("policies_are_pure", "policies/quota.py", "def f(p):\n    return open(p)", 2, "`open`"),
    ("policies_are_pure", "policies/quota.py", "def f():\n    datetime.now()", 2, "`.now`"),
    ("policies_are_pure", "policies/quota.py", "async def f(): ...", 1, "waits"),
    ("policies_are_pure", "policies/quota.py", "def f():\n    global x", 2, "state"),
    ("small_functions", "gateway/jobs.py", "def f():\n" + "    x = 1\n" * 40, 1, "41 lines"),
    ("small_functions", "tests/x.py", "class A:\n  async def f():\n" + "    x = 1\n" * 40, 2, "split"),
    ("has_header", "gateway/jobs.py", "x = 1", 1, "no header"),
    ("has_header", "gateway/jobs.py", '"""One line."""', 1, "1 lines"),
    ("has_header", "gateway/jobs.py", '"""' + "Too long.\n" * 15 + '"""', 1, "15 lines"),
    ("has_header", "tests/x.py", "x = 1", 1, "no header"),
    ("idle_when_imported", "gateway/jobs.py", "x = 1\nstart(x)", 2, "function"),
    ("idle_when_imported", "policies/quota.py", "for x in y: pass", 1, "function"),
    ("cases_state_rules", "tests/x.py", "def test_one_two_three(): ...", 1, "no rule"),
    ("cases_state_rules", "tests/x.py", 'async def test_one_two_six():\n    """It has no stop"""', 1, "rule"),
    ("cases_state_rules", "tests/x.py", 'def test_one_two_three():\n    """Too short."""', 1, "rule"),
    ("cases_state_rules", "tests/x.py", 'def test_it():\n    """A good one stands here."""', 1, "words"),
    ("cases_do_not_sleep", "tests/x.py", CASE + "time.sleep(0.1)", 3, "sleeps"),
    ("cases_do_not_sleep", "tests/x.py", CASE + "await asyncio.sleep(delay=1)", 3, "sleeps"),
    ("cases_are_not_skipped", "tests/x.py", CASE + "pytest.skip('no')", 3, "pytest.skip"),
    ("cases_are_not_skipped", "tests/x.py", "from pytest import importorskip", 1, "importorskip"),
    ("cases_are_not_skipped", "tests/x.py", "@pytest.mark.xfail\n" + CASE + "f()", 1, "xfail"),
    ("cases_do_not_patch", "tests/x.py", "monkeypatch.setattr('gateway.jobs.now', f)", 1, "patches"),
    ("cases_do_not_patch", "tests/x.py", "import gateway.a\nmonkeypatch.setattr(gateway.a, 'x')", 2, "patch"),
    ("cases_do_not_patch", "tests/x.py", "from policies import x as q\nmock.patch.object(q, 'x')", 2, "ours"),
    ("cases_do_not_patch", "tests/x.py", "mock.patch('policies.quota.admit')", 1, "patches"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "text", "line", "words"), BREACHES)
def test_planted_breach_is_found(name: str, path: str, text: str, line: int, words: str) -> None:
    """A breach of a rule is found once, at its line, and the complaint says what to do."""
    (rule,) = (rule for rule in RULES if rule.__name__ == name)
    (complaint,) = rule(read(path, text))
    assert complaint.startswith(f"{path}:{line}: ")
    assert words in complaint


def test_every_rule_can_fail() -> None:
    """Each rule has a planted breach."""
    assert {rule.__name__ for rule in RULES} == {name for name, *_ in BREACHES}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "gateway/outbound/connector.py",
            "import socket\n\nimport aiohttp\n\nfrom gateway.wire import Cut\n",
        ),
        ("gateway/app.py", "from gateway.api import build_api\nfrom gateway.worker import Worker\n"),
        ("gateway/cli/dev.py", "import click\n\nfrom gateway.app import build\n"),
        ("gateway/jobs.py", "from gateway import errors\nfrom policies.quota import admit\nNOW = 1\n"),
        ("policies/quota.py", "import re\nfrom urllib.parse import quote\n\nWORD = re.compile('a')\n"),
        ("tests/x.py", CASE + "await asyncio.sleep(0)\n    monkeypatch.setattr(os, 'environ', {})\n"),
        ("tests/chaos/serve.py", "def wait(): time.sleep(1)\n"),
    ],
)
def test_good_files_are_left_alone(path: str, text: str) -> None:
    """What the house allows draws no complaint from any rule."""
    source = read(path, HEADER + text)
    assert [complaint for rule in RULES for complaint in rule(source)] == []


@pytest.mark.parametrize(
    ("path", "text", "complaints"),
    [
        ("gateway/utils.py", "", 1),
        ("gateway/store/base.py", "", 1),
        ("gateway/api/services.py", "", 1),
        ("gateway/web/page.js", "x\n" * 501, 1),
        ("gateway/helpers.sql", "x\n" * 501, 2),
        ("gateway/jobs.py", "x\n" * 500, 0),
        ("gateway/database.py", "", 0),
    ],
)
def test_vague_names_are_found(path: str, text: str, complaints: int) -> None:
    """A file is complained of for a name that fits anything, and for a line past the ceiling."""
    assert len(list(name_and_size(path, text))) == complaints


def test_borrowed_docstrings_are_found() -> None:
    """A docstring that two tests share is complained of at both."""
    shared = [read("tests/a.py", CASE), read("tests/b.py", CASE)]
    assert [complaint.partition(": ")[0] for complaint in repeated(shared)] == [
        "tests/a.py:1",
        "tests/b.py:1",
    ]
    assert list(repeated(shared[:1])) == []
