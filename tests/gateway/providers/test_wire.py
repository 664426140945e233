"""Every adapter against stored exchanges: `tests/wire/<provider>/<case>.json`.

A case holds a task, a phase, an answer (`status`, `headers` and `body` as JSON or `text`, or a `cut`) and
the reading it must get; `why` says what is special. Absent fields of a reading are None. The phase `handed`
stands for the answer to an announced input.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.providers import open_adapter
from gateway.providers.adapter import Handed, Input, Reading, Task
from gateway.providers.gptimage2_plus import GptImage2Plus
from gateway.wire import Cut, Wire, WireFailure, WireResponse
from policies.retry import Phase

CASES = sorted(Path("tests/wire").resolve().glob("*/*.json"))


def task_of(stored: dict[str, Any]) -> Task:
    """Return the stored task."""
    inputs = [
        Input(**{**each, "data": base64.b64decode(each.get("data", ""))}) for each in stored.get("inputs", ())
    ]
    return Task(**{**stored, "inputs": tuple(inputs)})


def answer_of(stored: dict[str, Any]) -> Wire:
    """Return the stored answer as it would come from the wire."""
    if "cut" in stored:
        return WireFailure(Cut(stored["cut"]))
    body = stored["text"].encode() if "text" in stored else msgspec.json.encode(stored["body"])
    return WireResponse(stored["status"], stored["headers"], body)


def shown(reading: Reading | Handed) -> dict[str, Any]:
    """Return a reading as it is stored."""
    return {"is": type(reading).__name__, **_without_none(msgspec.to_builtins(reading))}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_answer_is_read(path: Path) -> None:
    """What an upstream answered means what the case says, whoever changes the adapter."""
    case = msgspec.json.decode(path.read_bytes())
    task, answer = task_of(case["task"]), answer_of(case["answer"])
    if case["phase"] == "handed":
        assert shown(GptImage2Plus().handed(answer, task, 0)) == case["reading"]
    else:
        adapter = open_adapter(path.parent.name)
        assert shown(adapter.read(answer, Phase(case["phase"]), task)) == case["reading"]


@pytest.mark.parametrize("kind", ["openai", "gptimage2_plus", "gptimage2_ai"])
def test_each_provider_has_exchanges(kind: str) -> None:
    """A provider without stored exchanges would pass the test above by saying nothing."""
    assert sum(path.parent.name == kind for path in CASES) >= 40
