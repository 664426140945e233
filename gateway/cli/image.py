"""`safelight image`: one job from prompt to file, by a server that runs or, without one, in this process.

The way is the same for both: submit, show the states while waiting, save, show the picture. A command
that is broken off cancels its job, so that nothing is made that nobody waits for.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from gateway import dev
from gateway.cli.client import Client, Maker, Seen, Shown, answers
from gateway.cli.screen import Screen, Waiting, size_text
from gateway.cli.sources import secret_in
from gateway.errors import Fault, Problem, Refusal
from policies.model import Principal

FORMATS: Final = {".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
"""File endings that ask for a format; PNG is what is made without one."""
SUFFIXES: Final = {"image/png": ".png", "image/webp": ".webp", "image/jpeg": ".jpg"}
LONGEST_SLUG: Final = 60
STOPPED: Final = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


class Order(Struct, frozen=True):
    """What is asked for, where it goes, and who is asked. `options` are fields of a job's request."""

    prompt: str
    options: Mapping[str, object]
    output: Path | None
    url: str | None
    token: str | None
    data: Path


def run_image(order: Order, environ: Mapping[str, str], screen: Screen, log: BinaryIO) -> int:
    """Make, save and show the pictures of an order; return the exit code."""
    _savable(order)
    try:
        with maker_of(order, environ, log) as maker:
            with screen.waiting("asking") as waiting:
                shown = make(maker, asked(order), waiting)
            return _saved(maker, shown, order, screen) if shown.job.outputs else _told(shown.job, screen)
    except KeyboardInterrupt:
        screen.complain("Stopped", ("", "The job is canceled, unless it was done already."))
        return STOPPED


@contextlib.contextmanager
def maker_of(order: Order, environ: Mapping[str, str], log: BinaryIO) -> Iterator[Maker]:
    """Give whoever makes the job: the server named, else the data folder's, else this process."""
    url = order.url or dev.read_run(order.data)
    if order.url is None and (url is None or not answers(url)):
        from gateway.cli.inprocess import Inprocess

        with Inprocess(order.data, environ, log) as maker:
            yield maker
        return
    token = order.token
    if token is None:
        if order.url is not None:
            raise Refusal("--url needs a token: give --token, or set SAFELIGHT_TOKEN")
        token = dev.token(
            secret_in(order.data), Principal(dev.TENANT, dev.SUBJECT), time.time_ns() // 1_000_000
        )
    yield Client(str(url), token)


def asked(order: Order) -> dict[str, object]:
    """Return the fields of the request, only those that were given."""
    fields = {name: value for name, value in order.options.items() if value is not None}
    if order.output is not None and (kind := FORMATS.get(order.output.suffix.lower())):
        fields["format"] = kind
    return {"prompt": order.prompt, **fields}


def make(maker: Maker, fields: Mapping[str, object], waiting: Waiting) -> Shown:
    """Submit a job and wait for its end. Broken off, the job is canceled."""
    shown = maker.submit(fields)
    try:
        while not shown.job.ended:
            waiting(words_of(shown.job))
            shown = maker.wait(shown.job)
    except KeyboardInterrupt:
        with contextlib.suppress(Problem, Refusal, Fault):
            maker.cancel(shown.job)
        raise
    except Refusal as reason:
        raise Refusal(f"{reason}. The job {shown.job.id} is kept and goes on there.") from reason
    return shown


def words_of(job: Seen) -> str:
    """Return a job's state in words."""
    before = 0 if job.queue is None else job.queue.position
    return f"{job.state}, {before} before it" if before else job.state


def names(order: Order, media_types: list[str]) -> list[Path]:
    """Return the files to write: the one asked for, else one named by the prompt that is not there yet.

    More than one are numbered from 1 before the ending.
    """
    many = len(media_types) > 1
    if order.output is not None:
        base = order.output
        return [base.with_stem(f"{base.stem}-{n}") if many else base for n in range(1, len(media_types) + 1)]
    found: list[Path] = []
    n = 1 if many else 0
    for media_type in media_types:
        while (path := _named(order.prompt, n, SUFFIXES[media_type])).exists():
            n += 1
        found.append(path)
        n += 1
    return found


def _savable(order: Order) -> None:
    """Refuse a file that cannot be, before anything is spent on it."""
    if order.output is None:
        return
    if order.output.suffix.lower() not in ("", ".png", *FORMATS):
        raise Refusal(f"{order.output}: pictures are saved as .png, .webp or .jpg")
    if not order.output.parent.is_dir():
        raise Refusal(f"{order.output} cannot be written: there is no folder {order.output.parent}")


def _named(prompt: str, n: int, suffix: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:LONGEST_SLUG].strip("-") or "picture"
    return Path(f"{slug}-{n}{suffix}" if n else f"{slug}{suffix}")


def _saved(maker: Maker, shown: Shown, order: Order, screen: Screen) -> int:
    job = shown.job
    paths = names(order, [picture.media_type for picture in job.outputs])
    for path, picture in zip(paths, job.outputs, strict=True):
        data = maker.picture(picture)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise Refusal(
                f"{path} cannot be written: {error.strerror}. The picture is in {job.id}."
            ) from error
        screen.picture(path)
        screen.say(f"{path}  {picture.width}x{picture.height}  {size_text(len(data))}")
    for words in job.adjustments:
        screen.note(words)
    for code, count in Counter(short.code for short in job.shortfall).items():
        missing = "one picture was" if count == 1 else f"{count} pictures were"
        screen.complain(f"{missing} not delivered ({code}); the credits came back")
    left = "" if shown.credits is None else f", {shown.credits:,} left"
    screen.say(f"{job.cost.charged:,} credits charged{left}", style="dim")
    return 0


def _told(job: Seen, screen: Screen) -> int:
    code, detail = (job.state, "") if job.error is None else (job.error.code, job.error.detail)
    money = f"{job.cost.charged:,} credits charged, {job.cost.refunded:,} came back"
    lines = [("", detail)] if detail else []
    screen.complain(f"No picture: {job.state}", *lines, ("code", code), ("money", money), ("job", job.id))
    return 1
