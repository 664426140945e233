"""What an operator sees: one wide event a unit of work, metrics, alarms.

A unit of work (request, attempt, job, sweep, start, stop) ends in one line that says what was decided,
by which rule, and in its figures; nothing is told twice. What a line may hold is decided in `lines`.
Metrics have bounded labels only: a route's template, an entry's name, never a tenant, a subject, an id.
Foreign log calls come into the same lines, as the template their author wrote and never its arguments.
The room of structlog and prometheus_client.
"""

from __future__ import annotations

import atexit
import datetime
import enum
import logging
import platform
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar

import msgspec
import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from gateway.lines import FIELDS, Lines, Sink, describe, keep, place, template

if TYPE_CHECKING:
    from collections.abc import Callable

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warning", "error")
Form = Literal["json", "console", "plain"]
"""Lines for machines, for a person at a terminal, and for a person who reads a file."""
M = TypeVar("M", bound=MetricWrapperBase)

MOST_SERIES: Final = 500
"""Label sets a metric may have; later ones are counted together as `other`."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
SLOW: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 300.0, 900.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TEDIOUS: Final = frozenset({"request_id", "client", "bytes_in", "bytes_out", "tenant", "subject_ref"})
"""Fields that a person at a terminal is spared as long as all goes well."""


class Reading(enum.StrEnum):
    """A figure that is asked for when metrics are, by a callable given to `watch`."""

    IN_FLIGHT = "in_flight"
    STREAMS_OPEN = "streams_open"
    QUEUE_INTERACTIVE = "queue_interactive"
    QUEUE_BATCH = "queue_batch"
    QUEUE_INTERACTIVE_AGE = "queue_interactive_age_seconds"
    QUEUE_BATCH_AGE = "queue_batch_age_seconds"


_READINGS: Final = {
    Reading.IN_FLIGHT: "Jobs this process works on.",
    Reading.STREAMS_OPEN: "Event streams this process serves.",
    Reading.QUEUE_INTERACTIVE: "Interactive jobs of all tenants that are due and nobody works on.",
    Reading.QUEUE_BATCH: "Batch jobs of the same kind.",
    Reading.QUEUE_INTERACTIVE_AGE: "How long the first of the interactive ones has been due.",
    Reading.QUEUE_BATCH_AGE: "How long the first of batch has.",
}


class _Series(Generic[M]):
    """A metric's children by their labels: a dict look-up where the library takes a lock, and a bound."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def at(self, *labels: str) -> M:
        """Return the child of these labels."""
        return self._children.get(labels) or self._admit(labels)

    def _admit(self, labels: tuple[str, ...]) -> M:
        if len(self._children) >= MOST_SERIES:
            return self._metric.labels(*("other",) * len(labels))
        child = self._metric.labels(*labels) if labels else self._metric
        self._children[labels] = child
        return child


class _Metrics:
    """All metrics of one process, on a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("safelight_build", "What runs here.", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})

        self.requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self.request_seconds = self._histogram("request_seconds", "From request to answer.", FAST, "route")
        self.jobs = self._counter("jobs", "Jobs ended.", "state", "model")
        self.job_seconds = self._histogram("job_seconds", "From submit to end.", SLOW, "state")
        self.attempts = self._counter("attempts", "Calls to upstreams.", "entry", "phase", "outcome")
        self.attempt_seconds = self._histogram("attempt_seconds", "Length of them.", SLOW, "entry", "phase")
        self.deliveries = self._counter("deliveries", "Tries to tell webhooks.", "form", "outcome")
        self.delivery_seconds = self._histogram("delivery_seconds", "Length of them.", SLOW, "form")
        self.denials = self._counter("denials", "What policies refused.", "reason")
        self.credits = self._counter("credits", "Credits moved.", "move")
        self.alarms = self._counter("alarms", "What an operator should look at.", "alarm")
        self.bugs = self._counter("bugs", "Exceptions nobody expected.", "error")
        self.drops = self._counter("log_drops", "What did not get into the log.", "what")
        self.batch_size = self._histogram("store_batch_size", "Changes a commit holds.", SIZES)
        self.commit_seconds = self._histogram("store_commit_seconds", "Length of a commit.", FAST)

    def watch(self, reading: Reading, read: Callable[[], float]) -> None:
        gauge = Gauge(f"safelight_{reading}", _READINGS[reading], registry=self.registry)
        gauge.set_function(read)

    def _counter(self, name: str, text: str, *labels: str) -> _Series[Counter]:
        return _Series(Counter(f"safelight_{name}", text, labels, registry=self.registry))

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> _Series[Histogram]:
        metric = Histogram(f"safelight_{name}", text, labels, buckets=buckets, registry=self.registry)
        return _Series(metric)


class Telemetry:
    """The one teller of a process. Any thread may call it; nothing here waits or raises.

    `now` gives milliseconds since 1970. Between `open` and `close` lines leave by themselves and foreign
    log calls are taken in; without `open`, lines wait for `close`.
    """

    def __init__(
        self,
        sink: Sink,
        now: Callable[[], int],
        *,
        level: Level = "info",
        form: Form = "json",
        version: str = "",
    ) -> None:
        self._metrics = _Metrics(version)
        self._lines = Lines(sink, lambda count: self._drop("line", count))
        as_json = _Json(now)
        logger = structlog.wrap_logger(
            _Outlet(self._lines, form),
            processors=[as_json if form == "json" else _Console(now, colors=form == "console")],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ).bind()
        self._say = {name: getattr(logger, name) for name in LEVELS}
        self._quick: Callable[[dict[str, object]], None] | None = None
        if form == "json" and level in ("debug", "info"):
            put = self._lines.put
            self._quick = lambda fields: put(as_json(None, "info", {"event": "request", "fields": fields}))
        self._foreign = _Foreign(self)
        self._before: tuple[list[logging.Handler], int] | None = None

    def open(self) -> Self:
        """Begin: lines leave, and the standard library's log comes in from warning level on."""
        root = logging.getLogger()
        self._before = (root.handlers[:], root.level)
        root.handlers[:] = [self._foreign]
        root.setLevel(logging.WARNING)
        self._lines.open()
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Write what is left and give the standard library's log back. May be called again."""
        if self._before is not None:
            root = logging.getLogger()
            root.handlers[:], level = self._before
            root.setLevel(level)
            self._before = None
            atexit.unregister(self.close)
        self._lines.close()

    def event(self, event: str, /, *, level: Level = "info", **fields: object) -> None:
        """Tell of one unit of work: a word, and fields of `lines.FIELDS`. Others are dropped and counted."""
        kept, dropped = keep(fields)
        if dropped:
            kept["dropped"] = dropped
            self._drop("field", dropped)
        self._tell(level, event, kept)

    def alarm(self, alarm: str, /, **fields: object) -> None:
        """Tell of something an operator should look at now. `alarm` is a constant word: it is a label."""
        self._metrics.alarms.at(alarm).inc()
        kept, _ = keep(fields)
        self._tell("error", "alarm", {"alarm": alarm, **kept})

    def bug(self, error: BaseException, /, **fields: object) -> None:
        """Tell of an exception nobody expected: its type and where it was, not what it says."""
        kept, _ = keep(fields)
        kept |= describe(error)
        self._metrics.bugs.at(type(error).__qualname__).inc()
        self._tell("error", "bug", kept)

    def foreign(self, record: logging.LogRecord) -> None:
        """Tell of a log call of a library: who, where, and the words before its arguments."""
        fields: dict[str, object] = {
            "logger": record.name,
            "template": template(record),
            "where": place(record.pathname, record.lineno, record.funcName or "?"),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields |= describe(record.exc_info[1])
        self._tell("error" if record.levelno >= logging.ERROR else "warning", "log", fields)

    def request(
        self, *, route: str, method: str, status: int, seconds: float, level: Level = "info", **fields: object
    ) -> None:
        """Tell of and count an answered request. `route` is the matched template, not the path.

        This is the line of every request: its caller writes fields that are ids, names and figures of our
        own, so they go out as they are, past the looks and the chain that other lines take.
        """
        verb = method if method in METHODS else "OTHER"
        self._metrics.requests.at(route, verb, f"{status // 100}xx").inc()
        self._metrics.request_seconds.at(route).observe(seconds)
        fields = {"route": route, "method": verb, "status": status, "seconds": round(seconds, 6), **fields}
        if self._quick is None or level != "info" or not FIELDS.issuperset(fields):
            self.event("request", level=level, **fields)
        else:
            self._quick({name: value for name, value in fields.items() if value is not None})

    def attempt(
        self, *, entry: str, phase: str, outcome: str, seconds: float, level: Level = "info", **fields: object
    ) -> None:
        """Tell of and count one call to an upstream."""
        self._metrics.attempts.at(entry, phase, outcome).inc()
        self._metrics.attempt_seconds.at(entry, phase).observe(seconds)
        self.event(
            "attempt", level=level, entry=entry, phase=phase, outcome=outcome, seconds=seconds, **fields
        )

    def job(
        self, *, state: str, model: str, seconds: float, charged: int, level: Level = "info", **fields: object
    ) -> None:
        """Tell of and count a job's end, `seconds` after its submit."""
        self._metrics.jobs.at(state, model).inc()
        self._metrics.job_seconds.at(state).observe(seconds)
        self._metrics.credits.at("charged").inc(charged)
        self.event("job", level=level, state=state, model=model, seconds=seconds, charged=charged, **fields)

    def delivery(
        self, *, form: str, outcome: str, seconds: float, level: Level = "info", **fields: object
    ) -> None:
        """Tell of and count one try to tell a webhook."""
        self._metrics.deliveries.at(form, outcome).inc()
        self._metrics.delivery_seconds.at(form).observe(seconds)
        self.event("delivery", level=level, form=form, outcome=outcome, seconds=seconds, **fields)

    def held(self, credit: int) -> None:
        """Count credits set aside for an admitted job."""
        self._metrics.credits.at("held").inc(credit)

    def denied(self, reason: str) -> None:
        """Count what a policy refused. Its line is that of the request."""
        self._metrics.denials.at(reason).inc()

    def committed(self, size: int, seconds: float) -> None:
        """Count one commit of the store and how many changes shared it."""
        self._metrics.batch_size.at().observe(size)
        self._metrics.commit_seconds.at().observe(seconds)

    def watch(self, reading: Reading, read: Callable[[], float]) -> None:
        """Give a figure its source, once. `read` is quick, waits for nothing and does not raise."""
        self._metrics.watch(reading, read)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in the Prometheus text format, and its media type."""
        return generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST

    def _tell(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        self._say[level](event, fields=fields)

    def _drop(self, what: str, count: int) -> None:
        self._metrics.drops.at(what).inc(count)


class _Foreign(logging.Handler):
    """Hands the standard library's log calls to a `Telemetry`."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        self._telemetry.foreign(record)


class _Outlet:
    """What structlog writes to: a method a level. Errors, and what a person watches, do not wait."""

    __slots__ = ("debug", "error", "info", "warning")

    def __init__(self, lines: Lines, form: Form) -> None:
        self.error = lines.put_now
        self.debug = self.info = self.warning = lines.put if form == "json" else lines.put_now


class _Json:
    """One JSON object a line: `at`, `level`, `event`, then the fields as they were given."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._encode = msgspec.json.Encoder().encode
        self._second = (-1, "")

    def __call__(self, _: object, level: str, said: Any) -> bytes:
        """Return the line, as the last processor of structlog's chain."""
        line = {"at": self._stamp(self._now()), "level": level, "event": said["event"]}
        line |= said["fields"]
        return self._encode(line) + b"\n"

    def _stamp(self, now: int) -> str:
        second, milli = divmod(now, 1000)
        cached, text = self._second
        if cached != second:
            text = datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{milli:03d}Z"


class _Console:
    """A short line for a person: local time, the word, the fields; a trace below it."""

    def __init__(self, now: Callable[[], int], *, colors: bool) -> None:
        self._now = now
        self._render = structlog.dev.ConsoleRenderer(columns=_columns(colors=colors), sort_keys=False)

    def __call__(self, logger: Any, level: str, said: Any) -> bytes:
        """Return the line, as the last processor of structlog's chain."""
        local = datetime.datetime.fromtimestamp(self._now() / 1000).astimezone()
        trace = said["fields"].pop("trace", ())
        head = {"at": local.strftime("%H:%M:%S"), "level": level, "event": said["event"]}
        hidden = TEDIOUS if level in ("debug", "info") else ()
        shown = {name: value for name, value in said["fields"].items() if name not in hidden}
        line = self._render(logger, level, head | shown)
        return "".join([line, *(f"\n    {step}" for step in trace), "\n"]).encode()


def _columns(*, colors: bool) -> list[structlog.dev.Column]:
    codes = (structlog.dev.DIM, structlog.dev.BRIGHT, structlog.dev.RESET_ALL)
    dim, bold, plain = codes if colors else ("", "", "")
    styles = structlog.dev.ConsoleRenderer.get_default_level_styles(colors=colors)
    value = structlog.dev.KeyValueColumnFormatter
    return [
        structlog.dev.Column("at", value(None, dim, plain, str)),
        structlog.dev.Column("level", structlog.dev.LogLevelColumnFormatter(styles, plain)),
        structlog.dev.Column("event", value(None, bold, plain, str, width=8)),
        structlog.dev.Column("", value(dim, "", plain, str)),
    ]
