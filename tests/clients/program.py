"""A program over the client that openapi-python-client makes: submit, wait, say the picture's size and bytes.

Started by a test, with the generated package beside it.
"""

import sys
import urllib.request
import uuid

from safelight_client import AuthenticatedClient
from safelight_client.api.jobs import create_job, get_job
from safelight_client.models import JobRequest, JobRequestQuality, JobView, ProblemView


def made(client: AuthenticatedClient, request: JobRequest) -> JobView:
    """Submit a job and return it when it has ended."""
    job = create_job.sync(client=client, body=request, idempotency_key=str(uuid.uuid4()))
    while isinstance(job, JobView) and not job.ended:
        job = get_job.sync(job.id, client=client, wait=20)
    if not isinstance(job, JobView):
        raise SystemExit(f"{job}")
    return job


def main() -> None:
    """Run."""
    _, url, token = sys.argv
    client = AuthenticatedClient(base_url=url, token=token, timeout=60)
    request = JobRequest(prompt="a lighthouse at dusk", size="1536x1024", quality=JobRequestQuality.LOW)
    job = made(client, request)
    (output,) = job.outputs
    with urllib.request.urlopen(output.url) as answer:
        sys.stdout.write(f"{job.id} {output.width}x{output.height} {len(answer.read())}\n")
    refused = create_job.sync(client=client, body=JobRequest(prompt="a thing", count=99))
    sys.stdout.write(refused.code if isinstance(refused, ProblemView) else f"{refused}")


main()
