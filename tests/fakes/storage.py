"""A real S3 server on loopback, for what object storage does and a fake would only assert: versitygw.

`tests/parts.sh` builds the pinned version. Buckets are folders of a temporary place; who asks is one root
user. It takes conditional writes, signed addresses and the CORS rules of a bucket, and can be killed.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = "v1.8.0"
PROGRAM: Final = Path(__file__).parents[2] / ".tools" / f"versitygw-{VERSION}"
NAMED: Final = f"versitygw {VERSION}"
USER: Final = "safelight-tests"
PASSWORD: Final = "not a secret at all"
REGION: Final = "us-east-1"
PATIENCE_SECONDS: Final = 20.0


class Storage:
    """The server while it runs. `endpoint` is its address; it dies with the `with`, or by `kill`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """What `BucketBlobs` is told in place of an environment."""
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": USER,
            "secret_access_key": PASSWORD,
        }

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a process that keeps its blobs here."""
        return {f"AWS_{name.upper()}": value for name, value in self.options.items()}

    def bucket(self, name: str) -> str:
        """Make a bucket, and return its URL."""
        (self.place / name).mkdir(exist_ok=True)
        return f"s3://{name}"

    def objects(self, name: str) -> list[str]:
        """Return the names of what a bucket holds, looked up behind the server's back."""
        root = self.place / name
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def allow(self, name: str, origins: Sequence[str], methods: Sequence[str] = ("GET", "PUT")) -> None:
        """Set a bucket's CORS rules: one rule, any header."""
        inner = "".join(f"<AllowedOrigin>{origin}</AllowedOrigin>" for origin in origins)
        inner += "".join(f"<AllowedMethod>{method}</AllowedMethod>" for method in methods)
        rule = (
            f"<CORSRule>{inner}<AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader></CORSRule>"
        )
        self._ask("PUT", f"/{name}", "cors=", f"<CORSConfiguration>{rule}</CORSConfiguration>".encode())

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        assert PROGRAM.exists(), f"{PROGRAM.name} is not there: run tests/parts.sh"
        environ = {"ROOT_ACCESS_KEY": USER, "ROOT_SECRET_KEY": PASSWORD, "VGW_REGION": REGION}
        self.port = _free()
        self._process = subprocess.Popen(
            [PROGRAM, "--port", f"127.0.0.1:{self.port}", "--quiet", "posix", self.place],
            env={**environ, "HOME": str(self.place), "PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._listens():
            assert self._process.poll() is None, f"{NAMED} did not start"
            assert time.monotonic() < end, f"{NAMED} does not listen"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _ask(self, method: str, path: str, query: str, body: bytes) -> None:
        """Ask as the root user, by AWS Signature Version 4."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        host = f"127.0.0.1:{self.port}"
        signed = {
            "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
            "host": host,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
        }
        lines = [method, path, query, *(f"{k}:{v}" for k, v in signed.items()), "", ";".join(signed), digest]
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = f"AWS4{PASSWORD}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{canonical}"):
            key = hmac.digest(key, part.encode(), "sha256")
        told = f"Credential={USER}/{scope}, SignedHeaders={';'.join(signed)}, Signature={key.hex()}"
        headers = {**signed, "authorization": f"AWS4-HMAC-SHA256 {told}"}
        request = urllib.request.Request(f"http://{host}{path}?{query}", body, headers, method=method)
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
