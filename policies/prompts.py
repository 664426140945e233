"""Prompts: what goes out, or which rule blocks it.

`clean` decides what is sent: composed (NFC), trimmed, without what nobody can see. `judge` reads the
same text as a person would, through `lookalikes`, and asks the rules. `shape` appends what a provider
has no field for. A verdict names a rule, never what the rule looks for.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from msgspec import Struct, structs

from policies import lookalikes
from policies.model import Deny, Flaw, JobRequest, Reason, Shaping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.bundle import PromptRule, Style

FIELDS: Final = ("prompt", "style", "lighting", "camera", "negative")
HINT: Final = 1000
"""The most characters a hint may have, as the schema says."""

_BREAK: Final = re.compile("\r\n|[\r\x85\u2028\u2029]")
_EMOJI: Final = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u2328\u232b-\u23ff\u24c2\u25a0-\u27bf"
    "\u2934\u2935\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_JOINED: Final = "\u0600-\u061b\u061d-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af"
# What is hidden goes; kept are the joiner inside an emoji, the joiners that Arabic and Indic scripts
# are spelled with, the selector of a picture or a Han variant, and the tags of a regional flag.
_HIDDEN: Final = re.compile(
    f"(?P<kept>(?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d(?=[{_EMOJI}])"
    f"|(?<=[{_JOINED}])[\u200c\u200d]"
    f"|(?<=[{_EMOJI}0-9#*])[\ufe0e\ufe0f]"
    "|(?<=[\u3400-\u9fff\U00020000-\U0003ffff])[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    "|(?<=[\u1820-\u18aa])[\u180b-\u180d]"
    "|(?<=\U0001f3f4)[\U000e0020-\U000e007e]{1,16}\U000e007f)"
    f"|[{lookalikes.INVISIBLE}\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


class Phrase(Struct, frozen=True):
    """A rule's word or words, as they are compared."""

    rule: str
    words: tuple[str, ...]

    @property
    def joined(self) -> str:
        """All its words as one."""
        return "".join(self.words)


class Pair(Struct, frozen=True):
    """Words that block where they stand near each other."""

    rule: str
    one: frozenset[str]
    other: frozenset[str]
    within: int

    def stands(self, words: list[str]) -> bool:
        """Whether two of them stand near each other. One pass: the time grows with the text alone."""
        if self.one.isdisjoint(words) or self.other.isdisjoint(words):
            return False
        one = other = -self.within - 1
        for i, word in enumerate(words):
            if (word in self.one and i - other <= self.within) or (
                word in self.other and i - one <= self.within
            ):
                return True
            one = i if word in self.one else one
            other = i if word in self.other else other
        return False


class CompiledRules(Struct, frozen=True):
    """Prompt rules made ready for `judge`, once a bundle.

    A text is looked up word by word, so the time does not grow with the number of words that are
    blocked. `keys` are, as the quick look knows them, words without which nothing is blocked: the first of
    each phrase, the second list of each pair. `sieve` is all patterns as one.
    """

    keys: frozenset[str] = frozenset()
    phrases: dict[str, tuple[Phrase, ...]] = {}
    pairs: tuple[Pair, ...] = ()
    unspaced: tuple[Phrase, ...] = ()
    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    sieve: re.Pattern[str] | None = None


class Clean(Struct, frozen=True):
    """A text that may go out, and what was changed in it beyond composing and trimming."""

    text: str
    adjustments: tuple[str, ...] = ()


class Judged(Struct, frozen=True):
    """A request all of whose words may go out."""

    request: JobRequest
    adjustments: tuple[str, ...] = ()


def compile_rules(rules: tuple[PromptRule, ...]) -> CompiledRules:
    """Make rules ready for `judge`. That their patterns may run is known (`bundle.mistakes`)."""
    found = [Phrase(rule.id, lookalikes.tokens(word)) for rule in rules for word in rule.words]
    phrases: dict[str, tuple[Phrase, ...]] = {}
    for phrase in found:
        if phrase.words:
            phrases[phrase.words[0]] = (*phrases.get(phrase.words[0], ()), phrase)
    pairs = [
        Pair(rule.id, _singles(near.one), _singles(near.other), near.within)
        for rule in rules
        for near in rule.near
    ]
    patterns = [(rule.id, pattern) for rule in rules for pattern in rule.patterns]
    sieve = "|".join(f"(?:{pattern})" for _, pattern in patterns)
    return CompiledRules(
        keys=frozenset(map(lookalikes.key, itertools.chain(phrases, *[pair.other for pair in pairs]))),
        phrases=phrases,
        pairs=tuple(pairs),
        unspaced=tuple(phrase for phrase in found if lookalikes.is_unspaced(phrase.joined)),
        patterns=tuple((rule, re.compile(pattern, re.IGNORECASE)) for rule, pattern in patterns),
        sieve=re.compile(sieve, re.IGNORECASE) if sieve else None,
    )


def _singles(words: tuple[str, ...]) -> frozenset[str]:
    """Return single words as they are compared."""
    return frozenset(token for word in words for token in lookalikes.tokens(word))


def clean(text: str) -> Clean:
    r"""Return a text as it may be sent: composed, trimmed, its line ends `\n`, nothing hidden in it."""
    if text.isascii() and text.isprintable():
        return Clean(text.strip())
    text = unicodedata.normalize("NFC", _BREAK.sub("\n", text))
    shown = _HIDDEN.sub(lambda found: found["kept"] or "", text)
    notes = () if shown == text else ("invisible characters were removed",)
    return Clean(unicodedata.normalize("NFC", shown).strip(), notes)


def blocking(text: str, rules: CompiledRules) -> str | None:
    """Return the id of a rule that forbids a clean text; None where none does."""
    face = lookalikes.plain(text)
    if not lookalikes.quick(face, rules.keys):
        rule = _forbidden(face, rules)
        if rule is not None:
            return rule
    if rules.sieve is not None:
        for subject in lookalikes.faces(text, face):
            if rules.sieve.search(subject):
                return next(rule for rule, pattern in rules.patterns if pattern.search(subject))
    return None


def _forbidden(face: str, rules: CompiledRules) -> str | None:
    """Return the id of a rule one of whose words stands in a text, in any reading of it."""
    for words in lookalikes.readings(face):
        rule = _standing(words, rules)
        if rule is not None:
            return rule
    for run in lookalikes.spelled(face):
        for phrase in itertools.chain.from_iterable(rules.phrases.values()):
            # A word of three letters is found in too many others that are only spelled out.
            if phrase.joined == run or (len(phrase.joined) > 3 and phrase.joined in run):
                return phrase.rule
    return None


def _standing(words: list[str], rules: CompiledRules) -> str | None:
    """Return the id of a rule that one reading of a text breaks."""
    for i, word in () if rules.phrases.keys().isdisjoint(words) else enumerate(words):
        for phrase in rules.phrases.get(word, ()):
            if tuple(words[i : i + len(phrase.words)]) == phrase.words:
                return phrase.rule
    for pair in rules.pairs:
        if pair.stands(words):
            return pair.rule
    whole = "".join(words) if rules.unspaced else ""
    return next((phrase.rule for phrase in rules.unspaced if phrase.joined in whole), None)


def judge(text: str, limit: int, rules: CompiledRules, field: str = "prompt") -> Clean | Deny:
    """Say whether a text may go out, and as what. `limit` is in code points, after cleaning."""
    found = clean(text)
    if not 0 < len(found.text) <= limit:
        size = len(found.text)
        detail = (
            f"The {field} has {size} characters, over the {limit} allowed."
            if size
            else f"The {field} is empty."
        )
        return Deny(Reason.INVALID_REQUEST, detail, flaws=(Flaw(f"/{field}", detail),))
    rule = blocking(found.text, rules)
    if rule is not None:
        return Deny(Reason.PROMPT_BLOCKED, f"The {field} is blocked by the rule {rule}.", rule=rule)
    return found


def judge_request(request: JobRequest, limit: int, rules: CompiledRules) -> Judged | Deny:
    """Judge all words of a request that go out: the prompt by the plan's limit, hints by the schema's.

    All that is too long or empty is told at once; a hint is one line.
    """
    changes: dict[str, str] = {}
    notes: list[str] = []
    denials: list[Deny] = []
    for field in FIELDS:
        text = getattr(request, field)
        if text is None:
            continue
        if field != "prompt":
            text = " ".join(text.split())
        found = judge(text, limit if field == "prompt" else HINT, rules, field)
        if isinstance(found, Deny):
            denials.append(found)
            continue
        if found.text != getattr(request, field):
            changes[field] = found.text
        notes += [f"{field}: {note}" for note in found.adjustments]
    if denials:
        return _together(denials)
    return Judged(structs.replace(request, **changes) if changes else request, tuple(notes))


def _together(denials: list[Deny]) -> Deny:
    """Return the one refusal that tells all flaws; a block is told where the form is right."""
    flaws = tuple(flaw for deny in denials for flaw in deny.flaws)
    if not flaws:
        return denials[0]
    return Deny(Reason.INVALID_REQUEST, " ".join(flaw.detail for flaw in flaws), flaws=flaws)


def shaping(request: JobRequest, styles: Mapping[str, Style]) -> Shaping:
    """Return the words of a judged request. A style without words of its own stands for its name."""
    style, words = request.style, None
    if style is not None:
        words = styles[style].words if style in styles else style.replace("-", " ").strip()
    return Shaping(request.prompt, style, words, request.lighting, request.camera, request.negative)


def shape(shaping: Shaping, native: frozenset[str]) -> str:
    """Return the prompt, and below it a line for each field that is not native. Nothing is cut."""
    lines = [shaping.prompt]
    for field, label, words in (
        ("style", "Style", shaping.style_words),
        ("lighting", "Lighting", shaping.lighting),
        ("camera", "Camera", shaping.camera),
        ("negative", "Avoid", shaping.negative),
    ):
        if words and field not in native:
            lines.append(f"{label}: {words}")
    return "\n".join(lines)
