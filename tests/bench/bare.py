"""The measure of 1: bare Litestar that decodes the same struct and answers as many bytes.

Run as a process: `python -m tests.bench.bare PORT BODY_BYTES`.
"""

from __future__ import annotations

import sys

from litestar import Litestar, Response, get, post

from policies.model import JobRequest
from tests.bench.plain import serve


def build(size: int) -> Litestar:
    """Return an application whose answers have bodies of `size` bytes."""
    body = b'{"id":"' + b"x" * (size - 9) + b'"}'

    @post("/v1/jobs", status_code=202)
    async def submit(data: JobRequest) -> Response[bytes]:
        assert data.prompt
        return Response(body, status_code=202, media_type="application/json")

    @get("/v1/jobs/{job_id:str}")
    async def read(job_id: str) -> Response[bytes]:
        assert job_id
        return Response(body, media_type="application/json")

    @get("/livez")
    async def live() -> str:
        return "ok"

    return Litestar([submit, read, live], openapi_config=None, logging_config=None)


if __name__ == "__main__":
    serve(build(int(sys.argv[2])), int(sys.argv[1]))
