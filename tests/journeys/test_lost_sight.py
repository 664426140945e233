"""A store that goes away after it has taken a job: whoever asked is not told that nothing was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.behavior import Behavior

if TYPE_CHECKING:
    from tests.fakes.server import Fake
    from tests.journeys.stage import Stage

GENERATE = "/v1/images/generations"
WISH = {"prompt": "a lighthouse"}


async def test_submit_outlives_its_place(stage: Stage) -> None:
    """A job that was taken is answered with 202, and read, also while nobody can tell its place in line."""
    ann = stage.visit()
    stage.sick.verb = "position"
    made = await ann.post("/v1/jobs", WISH)
    assert (made.status, made.json["queue"]) == (202, None)
    assert (await ann.get("/v1/jobs")).json["data"][0]["id"] == made.json["id"]


async def test_waiting_call_outlives_store(stage: Stage, upstream: Fake) -> None:
    """OpenAI's call whose job is taken is told that it is still made; its repeat brings the picture, once."""
    upstream.script.add(Behavior(do="hold", match="lighthouse"))
    ann = stage.visit()
    stage.sick.verb = "get_job"
    late = await ann.post(GENERATE, WISH)
    assert (late.status, late.json["error"]["code"]) == (504, "still_running")
    assert late.headers["x-should-retry"] == "true"
    stage.sick.verb = ""
    upstream.release()
    again = await ann.post(GENERATE, WISH, X_Stainless_Retry_Count="1")
    assert (again.status, len(upstream.seen("create"))) == (200, 1)
    assert len((await ann.get("/v1/jobs")).json["data"]) == 1
