"""What an endpoint is told: the body of a notice, rendered anew for each try.

Our own form shows the job as reading it would, at that instant, so that a link in a body that comes hours
late still opens. Another API's form is spelled by its dialect, handed in. Nothing is signed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from gateway.api.exchange import encode
from gateway.api.views import JobView, Time, Url, time_text
from policies import ids

if TYPE_CHECKING:
    from gateway.api.views import Views
    from gateway.store.contract import Notice
    from policies.model import Job

Spell = Callable[[str, "Job", Callable[["Job", str], str]], object]
"""From an event, a job, and what makes a link of a job's blob, to what a dialect's webhook is told."""
API_VERSION: Final = "v1"


class WebhookEvent(Struct, frozen=True):
    """What a webhook is sent of a job's end. `data` is the job as reading it shows it at that instant."""

    type: Literal["job.succeeded", "job.failed", "job.blocked", "job.canceled"]
    api_version: Literal["v1"]
    timestamp: Time
    data: JobView


class Bodies:
    """Renders notices. `plus` spells those of gptimage2.plus's form."""

    def __init__(self, views: Views, plus: Spell) -> None:
        self._views = views
        self._plus = plus

    def render(self, notice: Notice, now: int) -> bytes:
        """Return the body of a notice, its links those of this instant."""
        event, native = notice.delivery.event, notice.endpoint.form == "native"
        if notice.job is None:
            tested = {"webhook": ids.shown(notice.endpoint.id, ids.ENDPOINT)}
            return self._event(notice, encode(tested)) if native else encode({"event": event, "data": tested})
        if native:
            return self._event(notice, self._views.body(notice.job, now))

        def link(job: Job, key: str) -> Url:
            return self._views.link(key, now, lasting=job.links == "durable")

        return encode(self._plus(event, notice.job, link))

    def _event(self, notice: Notice, data: bytes) -> bytes:
        return encode(
            {
                "type": notice.delivery.event,
                "api_version": API_VERSION,
                "timestamp": time_text(notice.delivery.created_at),
                "data": msgspec.Raw(data),
            }
        )
