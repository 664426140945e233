"""What a user must be allowed: all that the store runs, and whoever may not is told at the start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway.store
from gateway.errors import Refusal
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis import RedisBackend
from gateway.store.redis_rights import COPIED, HEARD, ON_KEYS, PLAIN, RULES, SCATTERED
from tests.fakes.cluster import one
from tests.fakes.redis import Redis, server

SOURCES = Path(gateway.store.__file__).parent
KNOWN = {*ON_KEYS, *HEARD, *(each[0] for each in PLAIN + SCATTERED + COPIED)}


def test_all_commands_are_asked_for() -> None:
    """Whatever command stands in a script or is sent is among those that a start asks for."""
    lua = "".join(path.read_text() for path in SOURCES.glob("scripts/*.lua"))
    python = "".join(path.read_text() for path in SOURCES.glob("redis*.py"))
    sent = set(re.findall(r"redis\.call\('(\w+)'", lua)) | set(
        re.findall(r'[(\[]"([A-Z]{3,})", ?[^")\]]', python)
    )
    there = {name for name in sent if server().ask("COMMAND", "INFO", name.lower())[0] is not None}
    assert there - KNOWN == set()
    assert KNOWN - there <= {"INFO", "TIME", "PING", "SELECT", "SUBSCRIBE", "ASKING"}


@pytest.fixture
def node() -> Iterator[Redis]:
    """The Redis of this process of the test run, which forgets the user afterwards."""
    yield server()
    server().ask("ACL", "DELUSER", "limited")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("-zadd -xadd", "run XADD, ZADD on keys `safelight:*`."),
        ("-publish", "run PUBLISH on the channel `safelight:wake`."),
        ("resetchannels", "run PUBLISH, SUBSCRIBE on the channel `safelight:wake`."),
        ("-wait -hset", "run HSET on keys `safelight:*`; WAIT."),
        ("-unlink -del +get", "run DEL, UNLINK on keys `safelight:*`."),
        ("resetkeys %R~safelight:*", "one of the keys"),
        ("-evalsha", "'evalsha'"),
        ("-script", "'script|load'"),
        ("-info", "'info'"),
        ("-time", "'time'"),
        ("-ping", "'ping'"),
    ],
)
async def test_missing_rule_is_told(node: Redis, rules: str, words: str) -> None:
    """A user who lacks a rule is refused at the start, by what is lacking and by rules that are enough."""
    node.ask("SCRIPT", "FLUSH")
    node.ask("ACL", "SETUSER", "limited", "on", ">hushhush", *RULES.split(), *rules.split())
    at = Place(node.url.replace("://", "://limited@"), lambda: "hushhush", replicas=1)
    backend = open_backend(at, How("me"))
    with pytest.raises(Refusal) as told:
        await backend.start()
    await backend.close()
    assert words in str(told.value)
    assert f"`{RULES}`" in str(told.value)
    assert "hush" not in f"{told.value!r}"


async def test_every_node_is_asked_for_rules() -> None:
    """At a Cluster, too, what is lacking is told, be it only to hear who has what."""
    for rule, words in (
        ("-cluster", "'cluster|slots'"),
        ("-asking", "run ASKING."),
        ("-del", "run DEL on keys"),
    ):
        one().nodes[0].ask("ACL", "SETUSER", "limited", "on", ">hushhush", *RULES.split(), rule)
        at = Place(one().url.replace("://", "://limited@"), lambda: "hushhush")
        backend = RedisBackend(at, How("me"), seconds=0.1)
        with pytest.raises(Refusal, match=re.escape(words)):
            await backend.start()
        await backend.close()
        one().nodes[0].ask("ACL", "DELUSER", "limited")
