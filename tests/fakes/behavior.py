"""What a fake can be told to do wrong, as data: in a test a value, for a process a line of JSON.

A behavior waits in the script until a request of its part comes (and, with `match`, one whose body holds
that text), is used up `times` times, and is gone. Before the work: `status`, `refusal`, `reset_before`.
All others come after it: the image is made or the job accepted, and paid for, and only then it goes wrong.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

Part = Literal["create", "poll", "image", "upload", "put"]
"""`upload` announces an input, `put` brings its bytes to storage, which has no key."""
Deed = Literal[
    "status",  # answers `status` with `body` and `headers`, or with the upstream's own error body
    "refusal",  # says no as the upstream does it: at create an error, at a poll a state
    "failed",  # at a poll: the job has failed, with `code`
    "reset_before",  # cuts the connection before the body is read
    "reset_after",  # does the work, then cuts the connection
    "half",  # does the work, sends half the answer
    "hang",  # does the work, answers never
    "hold",  # does the work, answers once it is told to
    "slow",  # does the work, waits `seconds`, answers
    "drip",  # does the work, sends one byte every `seconds`
    "malformed",  # JSON that stops in the middle
    "huge",  # `size` bytes of JSON
    "deep",  # 100,000 levels of JSON
    "wrong_type",  # JSON with every value of another type
    "not_json",  # a page of HTML with the same status
    "fewer",  # only `count` images of those asked for; 0 for an empty list
    "links",  # OpenAI only: links instead of bytes
    "no_image",  # bytes that are no image
    "truncated",  # half an image
    "bomb",  # an image that claims to be enormous
]


class Behavior(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One misdeed. `times` 0 means for ever."""

    do: Deed
    on: Part = "create"
    times: int = 1
    match: str = ""
    status: int = 500
    body: str | None = None
    headers: dict[str, str] = {}
    seconds: float = 0.05
    size: int = 256 * 2**20
    count: int = 0
    stage: Literal["input", "output"] = "input"
    code: str = "image_generation_failed"


class Call(Struct, frozen=True):
    """One request the fake saw. `paid` is 1 where it made an image or accepted a job.

    `inputs` and `mask` are the SHA-256 of what an edit was made from.
    """

    at: int
    part: Part | Literal["other"]
    method: str
    path: str
    key: str | None
    idempotency_key: str | None
    outcome: str
    paid: int = 0
    prompt: str = ""
    inputs: tuple[str, ...] = ()
    mask: str | None = None


class Script:
    """The behaviors still to come, in order."""

    def __init__(self, behaviors: list[Behavior]) -> None:
        self._left = [(each, each.times) for each in behaviors]

    def add(self, *behaviors: Behavior) -> None:
        """Append behaviors."""
        self._left += [(each, each.times) for each in behaviors]

    def clear(self) -> None:
        """Behave from now on."""
        self._left.clear()

    def peek(self, part: str) -> Behavior | None:
        """Return the first behavior of a part, whatever it matches."""
        return next((each for each, _ in self._left if each.on == part), None)

    def take(self, part: str, body: bytes) -> Behavior | None:
        """Return what to do to this request, and count it as done."""
        for at, (each, times) in enumerate(self._left):
            if each.on == part and each.match.encode() in body:
                if times == 1:
                    del self._left[at]
                else:
                    self._left[at] = (each, times - 1 if times else 0)
                return each
        return None


def parse(text: str | bytes) -> list[Behavior]:
    """Return the behaviors of a JSON list."""
    return msgspec.json.decode(text, type=list[Behavior])
