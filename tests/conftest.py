"""What tests of every room may ask for: a real object storage, one a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.fakes.storage import NAMED, Storage

settings.register_profile("house", deadline=None)  # no test is about how fast this machine is just now
settings.load_profile("house")


def pytest_report_header() -> str:
    """Say which object storage the tests ran against."""
    return f"object storage: {NAMED}"


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A running S3 server. Who kills it or sets CORS rules makes a bucket or a server of its own."""
    with Storage(tmp_path_factory.mktemp("storage")) as running:
        yield running
