"""What prompt goes out, or which rule blocks it."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import Near, PromptRule, Style
from policies.model import Deny, Flaw, JobRequest, Reason, Shaping
from policies.prompts import (
    Clean,
    CompiledRules,
    Judged,
    Pair,
    clean,
    compile_rules,
    judge,
    judge_request,
    shape,
    shaping,
)

RULES = compile_rules(
    (
        PromptRule("demo", words=("safelight-blocked", "forbidden", "sex", "裸体", "!?")),
        PromptRule("near", near=(Near(("child", "kid"), ("nude",), within=3),)),
        PromptRule("shape", patterns=(r"\bkid.{1,20}gun\b", r"bomb\s(?:plan|sketch)")),
        PromptRule("later", patterns=(r"plan\sbomb",)),
    )
)
NONE = compile_rules(())

FAMILY = "👩\u200d👩\u200d👧"
WALES = "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("  a cat \n", "a cat"),
        ("e\u0301te\u0301", "été"),
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_form_is_made_even(text: str, sent: str) -> None:
    """What goes out is composed and trimmed and has one kind of line end, which needs no telling."""
    assert clean(text) == Clean(sent)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a\x00b\x1b[31m", "ab[31m"),
        ("ca\u200bt\u2060 d\u00adog\ufeff", "cat dog"),
        ("\u202egnp.exe\u202c", "gnp.exe"),
        ("cat\U000e0069\U000e0067", "cat"),
        ("c\u200dat\u200c", "cat"),
        ("a\ufe0f\u200d🙂", "a🙂"),
        ("x\ud800y", "xy"),
    ],
)
def test_hidden_characters_go(text: str, sent: str) -> None:
    """Controls, zero-width and direction marks, tags and half surrogates go, and the caller is told."""
    assert clean(text) == Clean(sent, ("invisible characters were removed",))


@pytest.mark.parametrize(
    "text",
    [
        FAMILY,
        "🏳\ufe0f\u200d🌈",
        WALES,
        "❤\ufe0f 1\ufe0f\u20e3",
        "می\u200cخواهم",  # Persian
        "क्\u200dष",  # Hindi
        "葛\U000e0100",  # a Han variant
        "\u1820\u180b",  # Mongolian
    ],
)
def test_needed_joiners_survive(text: str) -> None:
    """Emoji, flags and scripts that are spelled with joiners and selectors go out as written."""
    assert clean(text) == Clean(text)


@given(st.text(max_size=80))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """A clean text is composed, trimmed, and stays as it is."""
    once = clean(text).text
    assert clean(once).text == once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize(
    ("text", "limit", "detail"),
    [
        ("", 5, "The prompt is empty."),
        (" \u200b\n", 5, "The prompt is empty."),
        ("abcdef", 5, "The prompt has 6 characters, over the 5 allowed."),
    ],
)
def test_length_is_judged_clean(text: str, limit: int, detail: str) -> None:
    """Length is counted in code points of what would go out, from one to the limit."""
    assert judge(text, limit, NONE) == Deny(Reason.INVALID_REQUEST, detail, flaws=(Flaw("/prompt", detail),))
    assert judge(" e\u0301tes\u200b ", 4, NONE) == Clean("étes", ("invisible characters were removed",))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("safelight-blocked", "demo"),
        ("a Safelight blocked b", "demo"),
        ("sаfеlight-blосked", "demo"),  # Cyrillic
        ("f.o.r.b.i.d.d.e.n", "demo"),
        ("a f o r b i d d e n b", "demo"),
        ("f0rb1dden!", "demo"),
        ("for\u200dbidden", "demo"),
        ("می\u200c for\u200cbidden", "demo"),
        ("𝖋𝖔𝖗𝖇𝖎𝖉𝖉𝖊𝖓", "demo"),
        ("s e x", "demo"),
        ("一张裸体照片", "demo"),
        ("a kid, quite nude", "near"),
        ("nude k1d", "near"),
        ("kid with a toy gun", "shape"),
        ("kid\nwith   gun", "shape"),
        ("kіd with gun", "shape"),  # Cyrillic
        ("k1d with gun", "shape"),
        ("bomb p1an", "shape"),
        ("PLAN bomb", "later"),
    ],
)
def test_blocked_texts_name_the_rule(text: str, rule: str) -> None:
    """However a word is written, its rule is named, and never what the rule looks for."""
    found = judge(text, 100, RULES)
    assert found == Deny(Reason.PROMPT_BLOCKED, f"The prompt is blocked by the rule {rule}.", rule=rule)


@pytest.mark.parametrize(
    "text",
    [
        "unforbidden things",
        "blocked by a safelight",
        "a safelight",
        "e s s e x",
        "Essex",
        "a kid in the garden, and far away a nude statue",
        "child",
        "a nude",
        "a skid gunning",
        "体裸",
        "what!?",
        "f/1.8 at 1/250 s, ISO 100 — “quiet”",
    ],
)
def test_innocent_texts_pass(text: str) -> None:
    """A word inside a word, half a phrase and words far from each other are no offence."""
    assert judge(text, 100, RULES) == Clean(text)


@given(st.text("abcdefghij klmnopqrstuvwxyz,.'-0123456789", min_size=1, max_size=200).filter(str.strip))
def test_no_rules_block_nothing(text: str) -> None:
    """Without rules a text of the right length goes out trimmed."""
    assert judge(text, 200, NONE) == judge(text, 200, CompiledRules()) == Clean(text.strip())


def _hide(draw: st.DrawFn) -> str:
    swaps = {
        "o": "o0оο𝐨",
        "i": "iI1іⅰ",
        "e": "e3Eеé",
        "d": "dDԁ",
        "f": "fF",
        "r": "rRг",
        "b": "bBЬ",
        "n": "nո",
    }
    letters = [draw(st.sampled_from(swaps[letter])) for letter in "forbidden"]
    return draw(st.sampled_from(["", ".", "-", "\u200b", "*"])).join(letters)


@given(st.composite(_hide)(), st.text("abcdxyz ", max_size=10), st.text("abcdxyz ", max_size=10))
def test_no_disguise_hides_a_word(word: str, before: str, after: str) -> None:
    """Any mix of lookalikes, digits and separators within a blocked word is seen through."""
    found = judge(f"{before} {word} {after}", 200, RULES)
    assert isinstance(found, Deny)
    assert found.rule == "demo"


def test_all_words_of_a_request() -> None:
    """Hints are cleaned too, to one line each, and what changed is told by field."""
    request = JobRequest(
        " a cat ", style="cinematic", lighting="soft\nlight ", camera="35\u200bmm", negative="text"
    )
    expected = JobRequest("a cat", style="cinematic", lighting="soft light", camera="35mm", negative="text")
    assert judge_request(request, 100, RULES) == Judged(
        expected, ("camera: invisible characters were removed",)
    )
    assert judge_request(expected, 100, RULES) == Judged(expected)


@pytest.mark.parametrize("field", ["prompt", "style", "lighting", "camera", "negative"])
def test_every_field_is_judged(field: str) -> None:
    """A blocked word blocks in every field that goes upstream."""
    request = JobRequest(**{"prompt": "a cat", field: "safelight-blocked"})  # type: ignore[arg-type]
    found = judge_request(request, 100, RULES)
    assert found == Deny(Reason.PROMPT_BLOCKED, f"The {field} is blocked by the rule demo.", rule="demo")


def test_flaws_are_told_together() -> None:
    """All fields of a wrong length are told at once, and before any block."""
    found = judge_request(JobRequest("cats", lighting=" ", camera="forbidden"), 3, RULES)
    assert isinstance(found, Deny)
    assert found.reason is Reason.INVALID_REQUEST
    assert [flaw.pointer for flaw in found.flaws] == ["/prompt", "/lighting"]
    assert found.rule is None


@pytest.mark.parametrize(
    ("native", "prompt"),
    [
        (frozenset(), "A cup\nStyle: film grain\nLighting: dusk\nCamera: 35mm\nAvoid: text"),
        (frozenset({"style", "negative", "seed"}), "A cup\nLighting: dusk\nCamera: 35mm"),
        (frozenset({"style", "negative", "lighting", "camera"}), "A cup"),
    ],
)
def test_missing_fields_become_lines(native: frozenset[str], prompt: str) -> None:
    """Each field a provider lacks is a line of its own at the end, in a fixed order."""
    words = Shaping("A cup", "grain", "film grain", "dusk", "35mm", "text")
    assert shape(words, native) == prompt
    assert shape(Shaping("A cup"), native) == "A cup"


@pytest.mark.parametrize(
    ("style", "words"), [("grain", "film grain"), ("soft-pastel", "soft pastel"), ("---", ""), (None, None)]
)
def test_style_stands_for_words(style: str | None, words: str | None) -> None:
    """A style stands for the bundle's words, one of no words for its own name."""
    request = JobRequest("A cup", style=style, lighting="dusk", camera="35mm", negative="text")
    assert shaping(request, {"grain": Style("film grain")}) == Shaping(
        "A cup", style, words, "dusk", "35mm", "text"
    )


@given(st.lists(st.sampled_from(["kid", "nude", "both", "x"]), max_size=14), st.integers(1, 5))
def test_near_words_block_by_distance(words: list[str], within: int) -> None:
    """A pair blocks exactly where a word of one list and another word of the other are near enough."""
    one, other = frozenset({"kid", "both"}), frozenset({"nude", "both"})
    places = range(len(words))
    expected = any(
        words[i] in one and words[j] in other and 0 < abs(i - j) <= within for i in places for j in places
    )
    assert Pair("near", one, other, within).stands(words) == expected


def test_long_prompts_are_judged_quickly() -> None:
    """Thousands of words of both lists, kept apart, take a pass and not a comparison of each with each."""
    text = "kid " * 3_900 + "a b c d e f " + "nude " * 3_200
    began = time.process_time()
    assert isinstance(judge(text, 32_000, RULES), Clean)
    assert time.process_time() - began < 0.5
