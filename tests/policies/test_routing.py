"""Which provider and model, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.bundle import Bundle, Model, Plan, PriceRow, SizeRow, Style, Target
from policies.model import Deny, Flaw, InputRef, JobRequest, Reason, Step
from policies.routing import Capabilities, Offer, Resolved, Router, resolve, resolve_size, split

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (
    SizeRow("1024x1024", "1:1", "1K"),
    SizeRow("1536x1024", "3:2", "1K"),
    SizeRow("2048x2048", "1:1", "2K"),
    SizeRow("2304x1536", "3:2", "2K"),
    SizeRow("512x2048", "1:4", "1K"),
)
ROUTE = (
    Target("kind:openai", "gpt"),
    Target("own", "mine"),
    Target("kind:ratio", "r"),
    Target("kind:sandbox", "s"),
)
PLAN = msgspec.convert(
    {
        "credits_per_month": 1,
        "monthly_cap": 1,
        "submit_per_hour": {"user": 1, "tenant": 1},
        "in_flight": {"user": 1, "tenant": 1},
        "streams": 1,
        "count": 10,
        "prompt": 4000,
        "models": ["standard", "quick"],
    },
    Plan,
)
BUNDLE = Bundle(
    plans={"free": PLAN},
    tenants={},
    models={
        "standard": Model(SIZES, ROUTE, operations=("generate", "edit")),
        "quick": Model(SIZES[:1], (Target("kind:sandbox", "s"), Target("box", "s"))),
        "fine": Model(SIZES, ROUTE),
    },
    prices=(PriceRow(10),),
    styles={"grain": Style("film grain")},
)
ALL = Capabilities(
    operations=frozenset({"generate", "edit"}),
    sizes=frozenset(row.size for row in SIZES[:4]),
    formats=frozenset({"png", "jpeg", "webp"}),
    backgrounds=frozenset({"auto", "opaque", "transparent"}),
    native=frozenset({"seed"}),
    max_count=10,
    inputs="bytes",
    max_inputs=3,
    mask="white",
)
PLAIN = Capabilities(sizes=frozenset({"1024x1024"}), max_count=4)
RATIO = Capabilities(ratios=frozenset({"1:1"}), qualities=frozenset({"medium"}), max_count=3, max_prompt=20)
ANY = Capabilities()

ONE = (InputRef(upload="u"),)
UPLOADED = InputRef(upload="m")
LINKED = InputRef(url="https://example.com/a.png")
OPENAI = Offer("main", "openai", PLAIN)
BOX = Offer("box", "sandbox", ALL)


def ask(offers: Sequence[Offer], plan: Plan = PLAN, /, **fields: Any) -> Resolved | Deny:
    """Resolve a request for a cat."""
    return resolve(JobRequest(**{"prompt": "a cat"} | fields), plan, BUNDLE, offers)


def entries(found: Resolved | Deny) -> list[str]:
    """Return the entries of a route."""
    assert isinstance(found, Resolved), found
    return [step.entry for step in found.steps]


def refused(found: Resolved | Deny, pointer: str) -> str:
    """Return the detail of an unsupported option at a place."""
    assert isinstance(found, Deny), found
    assert found.reason is Reason.UNSUPPORTED_OPTION
    assert found.flaws == (Flaw(pointer, found.detail),)
    return found.detail


def test_defaults_resolve_to_firsts() -> None:
    """Without model and size, the plan's first model and that model's first size are meant."""
    request = JobRequest("a cat", count=9)
    assert resolve(request, PLAN, BUNDLE, [OPENAI]) == Resolved(
        model="standard",
        size="1024x1024",
        ratio="1:1",
        quality="medium",
        steps=(Step("main", "openai", "gpt"),),
        slots=(4, 4, 1),
        request=request,
    )


@pytest.mark.parametrize(
    ("offers", "order"),
    [
        ([OPENAI, Offer("back", "openai", ALL), BOX], ["back", "main"]),
        ([Offer("own", "openai", ALL), OPENAI], ["main", "own", "own"]),
        ([Offer("own", "ratio", ANY), Offer("zeta", "ratio", ANY), OPENAI], ["main", "own", "own", "zeta"]),
        ([Offer("stray", "other", ALL), BOX], ["box"]),
        ([Offer("sand", "sandbox", ALL), BOX], ["box", "sand"]),
    ],
)
def test_route_keeps_its_order(offers: list[Offer], order: list[str]) -> None:
    """Targets are tried in order, a kind's entries by name; the sandbox only where it is alone."""
    assert entries(ask(offers)) == order


def test_sandbox_never_stands_in() -> None:
    """Where a real provider is configured but cannot make it, the sandbox is not asked instead."""
    assert refused(ask([OPENAI, BOX], size="2048x2048"), "/size").endswith("Choose from: 1024x1024.")
    assert entries(ask([BOX], size="2048x2048")) == ["box"]


def test_same_step_stands_once() -> None:
    """An entry named by itself and by its kind is one step."""
    assert entries(ask([BOX], model="quick")) == ["box"]
    assert [way.step.entry for way in Router(BUNDLE, [BOX]).ways("quick")] == ["box"]
    assert Router(BUNDLE, [BOX]).ways("nothing") == ()


@pytest.mark.parametrize("offers", [[], [Offer("stray", "other", ALL)]])
def test_nothing_configured_is_unavailable(offers: list[Offer]) -> None:
    """A model no configured entry makes is not the caller's mistake."""
    found = ask(offers)
    assert isinstance(found, Deny)
    assert found.reason is Reason.NO_PROVIDER_AVAILABLE


@pytest.mark.parametrize(
    ("fields", "pointer", "said"),
    [
        ({"model": "standart"}, "/model", "There is no model standart. Did you mean standard?"),
        ({"model": "zzz"}, "/model", "Choose from: standard, quick."),
        ({"size": "640x480"}, "/size", "Choose from: 1024x1024, 1536x1024, 2048x2048, 2304x1536, 512x2048."),
        ({"aspect_ratio": "7:1"}, "/aspect_ratio", "Choose from: 1:1, 3:2, 1:4."),
        ({"size": "1536x1024"}, "/size", "Choose from: 1024x1024."),
        ({"aspect_ratio": "1:4"}, "/aspect_ratio", "Choose from: 1:1."),
        ({"format": "webp"}, "/format", "Choose from: png."),
        ({"background": "opaque"}, "/background", "Choose from: auto."),
        ({"seed": 0}, "/seed", "takes a seed. Leave it out."),
        ({"prompt": "x" * 32_001}, "/prompt", "is over the 32000 characters that fit."),
        ({"prompt": "x" * 31_990, "camera": "wide angle"}, "/prompt", "is over the 32000"),
        ({"operation": "edit", "inputs": ONE}, "/operation", "Choose from: generate."),
    ],
)
def test_unsupported_says_what_to_change(fields: dict[str, Any], pointer: str, said: str) -> None:
    """What no configured entry offers names the field, and what would do instead."""
    assert said in refused(ask([OPENAI], **fields), pointer)


NONE_SENT = "An edit needs one to 4 images: upload them at POST /v1/uploads or give their https URLs."
ONE_OF = "Send upload or url, one of them."
MASK_BY_UPLOAD = "Send the upload of a mask: upload it at POST /v1/uploads."
NO_EDIT = "Only an edit takes images. Send operation edit, or leave them out."
NO_MASK = "Only an edit takes a mask. Send operation edit, or leave it out."


@pytest.mark.parametrize(
    ("fields", "flaws"),
    [
        ({"operation": "edit"}, [("/inputs", NONE_SENT)]),
        ({"operation": "edit", "mask": UPLOADED}, [("/inputs", NONE_SENT)]),
        ({"inputs": ONE}, [("/inputs", NO_EDIT)]),
        ({"mask": UPLOADED}, [("/mask", NO_MASK)]),
        ({"inputs": ONE, "mask": UPLOADED}, [("/inputs", NO_EDIT), ("/mask", NO_MASK)]),
        ({"operation": "edit", "inputs": (LINKED, InputRef())}, [("/inputs/1", ONE_OF)]),
        ({"operation": "edit", "inputs": (replace(LINKED, upload="u"),)}, [("/inputs/0", ONE_OF)]),
        ({"operation": "edit", "inputs": ONE, "mask": LINKED}, [("/mask", MASK_BY_UPLOAD)]),
        ({"operation": "edit", "inputs": ONE, "mask": InputRef()}, [("/mask", MASK_BY_UPLOAD)]),
        (
            {"operation": "edit", "inputs": ONE, "mask": replace(LINKED, upload="u")},
            [("/mask", MASK_BY_UPLOAD)],
        ),
        (
            {"operation": "edit", "size": "1024x1024", "aspect_ratio": "1:1"},
            [("/aspect_ratio", "Send size or aspect_ratio, not both."), ("/inputs", NONE_SENT)],
        ),
    ],
)
def test_contradictions_are_all_told(fields: dict[str, Any], flaws: list[tuple[str, str]]) -> None:
    """What no provider could make sense of is refused before any is looked at, each place with its fix."""
    found = ask([], **fields)
    assert isinstance(found, Deny)
    assert (found.reason, found.detail) == (Reason.INVALID_REQUEST, flaws[0][1])
    assert [(flaw.pointer, flaw.detail) for flaw in found.flaws] == flaws


@pytest.mark.parametrize(
    ("most", "count", "expected"),
    [
        (4, 5, (Reason.PLAN_REQUIRED, "The plan allows 4 images an edit.")),
        (0, 1, (Reason.PLAN_REQUIRED, "The plan allows no edits.")),
        (
            1,
            0,
            (
                Reason.INVALID_REQUEST,
                "An edit needs one image: upload them at POST /v1/uploads or give their https URLs.",
            ),
        ),
    ],
)
def test_plan_bounds_the_inputs(most: int, count: int, expected: tuple[Reason, str]) -> None:
    """How many images an edit may begin from is the plan's to give, and none means no edits."""
    found = ask([BOX], replace(PLAN, inputs=most), operation="edit", inputs=ONE * count)
    assert isinstance(found, Deny)
    assert (found.reason, found.detail) == expected


def test_edits_go_where_they_can() -> None:
    """An edit's route has only the ways that take its images, their number, and its mask."""
    few = Offer("few", "openai", replace(ALL, max_inputs=1, mask=None))
    offers = [few, OPENAI, Offer("own", "other", ALL)]
    assert entries(ask(offers)) == ["few", "main", "own"]
    assert entries(ask(offers, operation="edit", inputs=(UPLOADED,))) == ["few", "own"]
    assert entries(ask(offers, operation="edit", inputs=ONE * 2)) == ["own"]
    assert entries(ask(offers, operation="edit", inputs=ONE, mask=UPLOADED)) == ["own"]
    assert entries(ask([BOX], operation="edit", inputs=(LINKED, UPLOADED))) == ["box"]


@pytest.mark.parametrize("drop", ["refuse", "drop"])
@pytest.mark.parametrize(
    ("fields", "pointer", "said"),
    [
        ({"inputs": ONE * 2}, "/inputs", "No configured provider of standard takes over 1 images here."),
        (
            {"inputs": ONE, "mask": UPLOADED},
            "/mask",
            "Leave it out, and say in the prompt what is to change.",
        ),
    ],
)
def test_meaning_is_never_dropped(fields: dict[str, Any], pointer: str, said: str, drop: str) -> None:
    """Images and a mask that nobody takes are refused, also where what is unsupported may be dropped."""
    few = Offer("few", "openai", replace(ALL, max_inputs=1, mask=None))
    assert said in refused(ask([few], operation="edit", on_unsupported=drop, **fields), pointer)


def test_model_must_offer_edits() -> None:
    """A model whose document lists no edits has none, whatever its providers can do."""
    found = ask([BOX], operation="edit", inputs=ONE, model="quick")
    assert refused(found, "/operation").endswith("with operation edit here. Choose from: generate.")


@pytest.mark.parametrize(
    ("offers", "fields", "size"),
    [
        ([Offer("own", "other", ALL)], {}, "2048x2048"),
        ([Offer("own", "other", ALL)], {"size": "1536x1024"}, "2304x1536"),
        ([Offer("own", "other", ALL)], {"size": "2304x1536"}, "2304x1536"),
        ([OPENAI], {}, "1024x1024"),
        ([OPENAI, Offer("own", "other", ALL)], {"aspect_ratio": "1:1"}, "2048x2048"),
        ([Offer("r", "ratio", RATIO)], {}, "1024x1024"),
        ([Offer("own", "other", ANY)], {"size": "512x2048"}, "512x2048"),
        ([OPENAI, Offer("own", "other", ALL)], {"count": 9}, "2048x2048"),
    ],
)
def test_class_is_taken_where_made(offers: list[Offer], fields: dict[str, Any], size: str) -> None:
    """The large class of the same ratio is made where some way can; else the size as it was asked for."""
    found = Router(BUNDLE, offers).resolve(JobRequest("a cat", **fields), PLAN, tier="2K")
    assert isinstance(found, Resolved)
    assert found.size == size
    assert entries(found) == [offer.entry for offer in offers if _draws(offer, size)]


def test_refusals_name_the_asked_size() -> None:
    """Where neither class can be made, the caller is told of the size they asked for."""
    found = Router(BUNDLE, [OPENAI]).resolve(JobRequest("a cat", size="1536x1024"), PLAN, tier="2K")
    assert "size 1536x1024" in refused(found, "/size")


def _draws(offer: Offer, size: str) -> bool:
    sizes = offer.capabilities.sizes
    return sizes is None or size in sizes


def test_qualities_need_both_sides() -> None:
    """A quality must be the model's and a provider's; what fits together with the size is offered."""
    assert refused(ask([Offer("r", "ratio", RATIO)], quality="high"), "/quality").endswith(
        "Choose from: medium."
    )


def test_transparency_needs_a_channel() -> None:
    """JPEG has no transparency, whatever a provider says; a refusal without a way out lists nothing."""
    found = ask([Offer("a", "openai", ALL)], format="jpeg", background="transparent")
    assert refused(found, "/background").endswith("Choose from: auto, opaque.")
    bare = replace(PLAIN, backgrounds=frozenset())
    assert refused(ask([Offer("a", "openai", bare)]), "/background").endswith("with background auto here.")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": "1024x1024", "aspect_ratio": "1:1"}, Reason.INVALID_REQUEST),
        ({"model": "fine"}, Reason.PLAN_REQUIRED),
        ({"count": 11}, Reason.PLAN_REQUIRED),
        ({"style": "grain"}, Reason.PLAN_REQUIRED),
    ],
)
def test_plan_bounds_the_request(fields: dict[str, Any], reason: Reason) -> None:
    """Size and ratio contradict each other; models, counts and styles are the plan's to give."""
    found = ask([OPENAI], replace(PLAN, styles=("pencil",)), **fields)
    assert isinstance(found, Deny)
    assert found.reason is reason


@pytest.mark.parametrize(
    ("fields", "kept", "note"),
    [
        ({"seed": 7}, {"seed": None}, "seed: 7 was dropped"),
        ({"format": "webp"}, {"format": "png"}, "format: webp was dropped"),
        ({"background": "opaque"}, {"background": "auto"}, "background: opaque was dropped"),
    ],
)
def test_dropped_fields_are_told(fields: dict[str, Any], kept: dict[str, Any], note: str) -> None:
    """With `on_unsupported: drop` a field nobody takes goes back to its default, and is listed."""
    found = ask([OPENAI], on_unsupported="drop", **fields)
    assert isinstance(found, Resolved)
    assert found.request == JobRequest("a cat", on_unsupported="drop", **kept)
    assert [text.partition(",")[0] for text in found.adjustments] == [note]


def test_priced_fields_are_never_dropped() -> None:
    """Size and quality decide the price, and a default nobody makes either is no way out."""
    offer = Offer("r", "ratio", RATIO)
    refused(ask([offer], quality="low", on_unsupported="drop"), "/quality")
    refused(ask([offer], size="2048x2048", on_unsupported="drop"), "/size")
    odd = replace(RATIO, formats=frozenset({"jpeg"}))
    refused(ask([Offer("r", "ratio", odd)], format="webp", on_unsupported="drop"), "/format")


def test_nothing_is_dropped_needlessly() -> None:
    """Where one provider takes a field, it is kept, and the others leave the route."""
    found = ask([OPENAI, Offer("own", "other", ALL)], seed=7, on_unsupported="drop")
    assert entries(found) == ["own"]
    assert isinstance(found, Resolved)
    assert found.request.seed == 7
    assert found.adjustments == ()


def test_ratio_only_means_first_class() -> None:
    """A provider that takes only a ratio is not asked for the large class; one that takes all is."""
    ratio = Offer("r", "ratio", RATIO)
    assert entries(ask([ratio, Offer("own", "other", ANY)])) == ["own", "r"]
    assert entries(ask([ratio, Offer("own", "other", ANY)], size="2048x2048")) == ["own"]


def test_appended_words_count() -> None:
    """A provider whose room the appended hints pass leaves the route; native hints take none."""
    short = Offer("r", "ratio", RATIO)
    native = Offer("n", "ratio", replace(RATIO, native=frozenset({"style"}), styles=frozenset({"grain"})))
    both = [short, native, Offer("own", "other", ANY)]
    assert entries(ask(both, style="grain")) == ["own", "n"]
    assert entries(ask(both, style="anything")) == ["own"]
    assert entries(ask(both)) == ["own", "n", "r"]


def test_unknown_style_is_told() -> None:
    """A style nobody wrote words for is sent as its name, and the caller is told."""
    found = ask([OPENAI], style="watercolor")
    assert isinstance(found, Resolved)
    assert found.adjustments == ("style: watercolor is not one of ours, its name was sent as words",)


@pytest.mark.parametrize(
    ("size", "ratio", "tier", "found"),
    [
        (None, None, None, "1024x1024"),
        ("1536x1024", None, None, "1536x1024"),
        (None, "3:2", None, "1536x1024"),
        (None, "3:2", "1K", "1536x1024"),
        (None, "3:2", "2K", "2304x1536"),
        ("1536x1024", None, "2K", "2304x1536"),
        ("512x2048", None, "2K", None),
        ("1536x1024", "1:1", None, None),
        ("640x480", None, "2K", None),
    ],
)
def test_size_and_ratio_meet(
    size: str | None, ratio: str | None, tier: Literal["1K", "2K"] | None, found: str | None
) -> None:
    """A ratio finds its first size, and a class the same ratio in that class."""
    row = resolve_size(BUNDLE.models["standard"], size, ratio, tier)
    assert (row and row.size) == found


@given(st.integers(1, 10), st.integers(1, 10))
def test_slots_make_the_count(count: int, most: int) -> None:
    """Slots add up to the count, and no call is asked for more than it can make."""
    slots = split(count, most)
    assert sum(slots) == count
    assert 0 < min(slots) <= max(slots) <= most
    assert len(slots) == -(-count // most)


@given(
    st.lists(
        st.sampled_from([OPENAI, BOX, Offer("own", "other", ALL), Offer("r", "ratio", RATIO)]), unique=True
    ),
    st.sampled_from([row.size for row in SIZES]),
    st.sampled_from(["low", "medium", "high"]),
    st.integers(1, 10),
)
def test_every_step_can_make_it(offers: list[Offer], size: str, quality: str, count: int) -> None:
    """Whatever is configured, each step of a route can make each slot, and real steps stand alone."""
    found = ask(offers, size=size, quality=quality, count=count)
    if isinstance(found, Resolved):
        able = {offer.entry: offer for offer in offers}
        for step in found.steps:
            can = able[step.entry].capabilities
            assert found.quality in can.qualities
            assert can.sizes is None or size in can.sizes
            assert max(found.slots) <= can.max_count
        assert {step.kind == "sandbox" for step in found.steps} in ({True}, {False})
