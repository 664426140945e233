"""Image bytes by key, and the links they are read by.

`keys` says how blobs are named, `contract` what is asked of a place that keeps them, `disk` and `bucket`
are such places, `links` and `doors` make and check the addresses clients get. No image is decoded here.
"""

from pathlib import Path

from gateway.blobs.contract import Blobs, BlobsUnavailable
from gateway.blobs.disk import STALE_SECONDS, UNFINISHED, FolderBlobs
from gateway.blobs.doors import Arrival, Doors
from gateway.blobs.keys import MEDIA_TYPES, file_name, folder, folders, is_key, media_type, places, probe
from gateway.blobs.links import LEAST_MS, STEP_MS, Links, Verdict
from gateway.errors import Refusal

__all__ = [
    "LEAST_MS",
    "MEDIA_TYPES",
    "STALE_SECONDS",
    "STEP_MS",
    "UNFINISHED",
    "Arrival",
    "Blobs",
    "BlobsUnavailable",
    "Doors",
    "FolderBlobs",
    "Links",
    "Verdict",
    "file_name",
    "folder",
    "folders",
    "is_key",
    "media_type",
    "open_blobs",
    "places",
    "probe",
]


def open_blobs(url: str) -> Blobs:
    """Return the place a URL names: `file:///FOLDER`, or a bucket as in `s3://BUCKET/PREFIX`.

    Raises `Refusal` where a bucket is named and what speaks to buckets is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return FolderBlobs(Path(rest))
    try:
        from gateway.blobs.bucket import BucketBlobs
    except ImportError as error:
        raise Refusal(f"blobs {url}: object storage is an extra: pip install 'safelight[s3]'") from error
    return BucketBlobs(url)
