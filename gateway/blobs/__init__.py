"""Image bytes by key, and the links they are read by.

`keys` says how blobs are named, `contract` what is asked of a place that keeps them, `disk` and `bucket`
are such places, `links` makes and checks the addresses clients get. No image is decoded here.
"""

from gateway.blobs.contract import Blobs, BlobsUnavailable
from gateway.blobs.disk import STALE_SECONDS, UNFINISHED, FolderBlobs
from gateway.blobs.keys import MEDIA_TYPES, folder, is_key, media_type, places
from gateway.blobs.links import LEAST_MS, STEP_MS, Links, Verdict

__all__ = [
    "LEAST_MS",
    "MEDIA_TYPES",
    "STALE_SECONDS",
    "STEP_MS",
    "UNFINISHED",
    "Blobs",
    "BlobsUnavailable",
    "FolderBlobs",
    "Links",
    "Verdict",
    "folder",
    "is_key",
    "media_type",
    "places",
]
