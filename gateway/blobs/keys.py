"""How blobs are named.

A key is `<16 hex of HMAC(tenant)>/<job uuid>/<name>`: it tells nobody which tenant it is of, and no key
that is not written so reaches a file system or a bucket. A folder is all but the name. Text alone: where
blobs lie is the back ends' to know.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from policies import ids

if TYPE_CHECKING:
    from gateway.secrets import Keyring
    from gateway.store.contract import Remains

_FOLDER: Final = r"[0-9a-f]{16}/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY: Final = re.compile(
    rf"{_FOLDER}/(?:0|[1-9][0-9]{{0,3}})(?:\.[a-z]{{1,12}})?\.(?:png|jpg|webp)", re.ASCII
)
_PREFIX: Final = re.compile(_FOLDER, re.ASCII)
MEDIA_TYPES: Final = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
"""The types of blobs by the ends of their keys."""


def folder(ring: Keyring, tenant: str, job: str) -> str:
    """Return the first two parts of the keys of a job's blobs, by its UUID's text; `delete` takes them."""
    return folders(ring, tenant, job)[0]


def folders(ring: Keyring, tenant: str, job: str) -> tuple[str, ...]:
    """Return the folders a job's blobs were put into while each of the live secrets was the first."""
    marks = ring.signs("links", b"tenant\0" + tenant.encode())
    return tuple(f"{mark[:8].hex()}/{job}" for mark in marks)


def places(ring: Keyring, remains: Remains) -> set[str]:
    """Return the folders a dropped job's blobs may lie in.

    Those its outputs named, whatever secret was the first then, and those it has by the live ones: what a
    crash or a cancel left unnamed lies there, and what an upload brought.
    """
    return {*folders(ring, remains.tenant, remains.job), *remains.places}


def is_key(text: str) -> bool:
    """Say whether a text is written as a blob's key."""
    return _KEY.fullmatch(text) is not None


def media_type(key: str) -> str:
    """Return the type of what a key holds."""
    return MEDIA_TYPES[key.rpartition(".")[2]]


def file_name(key: str) -> str:
    """Return what a browser is told to call it: `job_…-0.png`."""
    _, job, name = key.split("/")
    return f"{ids.shown(job)}-{name}"


def probe() -> tuple[str, str]:
    """Return a job's folder that no tenant has, and a key in it: what checks write to."""
    place = f"{'0' * 16}/{uuid.uuid4()}"
    return place, f"{place}/0.png"


def checked(key: str) -> str:
    """Return a key as it is; `ValueError` for what is none."""
    if not is_key(key):
        raise ValueError(f"not a blob's key: {key!r}")
    return key


def checked_folder(prefix: str) -> str:
    """Return a job's folder as it is; `ValueError` for what is none: wider, narrower or elsewhere."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not a job's folder: {prefix!r}")
    return prefix
