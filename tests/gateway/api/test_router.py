"""The router is the same wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

BUILT = """
import asyncio, io, sys, tempfile
from pathlib import Path
from gateway import dev
from gateway.app import Choices, House
from gateway.cli.sources import files_of
from gateway.telemetry import Telemetry

async def build():
    settings = dev.settings_of(Path(tempfile.mkdtemp()), {}, "127.0.0.1", 0)
    telemetry = Telemetry(io.BytesIO(), lambda: 0)
    await House(settings, files_of(settings), telemetry, Choices(dev=True)).close()

asyncio.run(build())
print("pydantic" in sys.modules)
"""


def test_house_loads_no_pydantic() -> None:
    """A house is built without pydantic, though the environment of its tests has it."""
    assert find_spec("pydantic") is not None
    done = subprocess.run([sys.executable, "-c", BUILT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
