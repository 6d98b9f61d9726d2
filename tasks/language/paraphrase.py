"""Built-in paraphraser: many ways to say an edit instruction, by grammar alone and always the same."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from data_catalog.samples.seeds import derive
from tasks.language import forms

Kind = Literal["become", "medium", "have", "lose", "adjective", "manner", "other"]


class Intent(NamedTuple):
    """Request of an instruction. `phrase` is "a bronze statue", "red hair", "neon", "the style of Van Gogh"."""

    kind: Kind
    phrase: str


ART = (
    "sketch|drawing|painting|illustration|cartoon|caricature|watercolour|watercolor|engraving|etching|mosaic|poster|"
    "portrait|woodcut|comic|anime|render|fresco|print|doodle|photo|photograph|picture|image"
)
PARTS = ("hair", "ears", "eyes", "nose", "lips", "skin", "eyebrows", "teeth", "mouth", "clothes")
# What a one-word instruction may be but the name of a style.
VERBS = ("smile", "laugh", "cry", "frown", "wink", "age", "shave", "open", "close", "remove", "change", "make", "turn")
COLOURS = (
    "red|ginger|orange|blond|blonde|golden|brown|black|white|grey|gray|silver|blue|green|purple|violet|pink|yellow|"
    "turquoise|dark|light"
)
# Another name for the head noun, where it means the same.
SYNONYMS = {"statue": "sculpture", "sculpture": "statue", "sketch": "drawing"}
MATERIALS = {
    "bronze": "cast in bronze",
    "marble": "carved from marble",
    "stone": "carved from stone",
    "ice": "made of ice",
}
SHAPES = ("statue", "sculpture", "bust")

_WHO = (
    r"(?:him|her|it|them|(?:the|this|that|his|her|their)\s+(?:whole\s+|entire\s+)?"
    r"(?:person|man|woman|face|head|portrait|photo|picture|image|subject))"
)
_GRAMMAR = {"him", "her", "his", "their", "them", "it", "the", "this", "a", "an", "to", "as", "more", "and"}
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("manner", r".*\b(?:in|into)\s+(?P<phrase>(?:the\s+)?style\s+of\s+.+)"),
    ("become", rf"(?:turn|transform|change|convert|morph)\s+{_WHO}\s+(?:in)?to\s+(?P<phrase>.+)"),
    ("become", rf"(?:make|have|let)\s+{_WHO}\s+(?:to\s+)?(?:look\s+like|become|be)\s+(?P<phrase>.+)"),
    ("have", rf"(?:make|have|let)\s+{_WHO}\s+(?:have|wear)\s+(?P<phrase>.+)"),
    ("have", rf"(?:make|change|turn|dye|colou?r|paint)\s+(?:his|her|their|the)\s+(?P<part>{'|'.join(PARTS)})\s+"
             r"(?:colou?r\s+)?(?:in)?(?:to\s+)?(?P<quality>[\w-]+(?:\s[\w-]+)?)"),
    ("adjective", rf"make\s+{_WHO}\s+look\s+(?P<phrase>.+)"),
    ("become", rf"(?:make|show|render|reimagine|depict)\s+{_WHO}\s+(?:as\s+)?(?P<phrase>(?:an?|the)\s+.+)"),
    ("adjective", rf"(?:make|turn)\s+{_WHO}\s+(?P<phrase>.+)"),
    ("have", rf"give\s+{_WHO}\s+(?P<phrase>.+)"),
    ("have", rf"(?:add|put(?:\s+on)?)\s+(?P<phrase>.+?)(?:\s+(?:to|on|onto)\s+{_WHO})?"),
    ("lose", rf"(?:remove|delete|erase|take\s+off|shave\s+off)\s+(?:(?:his|her|their|the)\s+)?(?P<phrase>.+?)"
             rf"(?:\s+from\s+{_WHO})?"),
    ("become", r"as\s+(?P<phrase>(?:an?|the)\s+.+)"),
    ("have", r"(?:(?:a|the|this)\s+(?:person|man|woman|portrait|face)\s+)?with\s+(?P<phrase>.+)"),
    ("become", r"(?P<phrase>an?\s+.+?)"),
    ("become", r"(?P<style>.+?)[\s-]+style(?:\s+(?:portrait|photo|picture))?"),
)  # fmt: skip


def parse(instruction: str) -> Intent:
    """Parse the request of an instruction; kind "other" where the grammar does not know its form."""
    text = re.sub(r"\s+", " ", instruction).strip().rstrip(".!?").strip()
    for kind, pattern in _PATTERNS:
        match = re.fullmatch(pattern, text, re.IGNORECASE)
        if match is None:
            continue
        found = match.groupdict()
        if found.get("part"):
            return Intent("have", f"{found['quality']} {found['part'].lower()}")
        phrase = found.get("phrase") or _with_article(found["style"])
        if kind == "become" and re.search(rf"\b(?:{ART})s?$", phrase, re.IGNORECASE):
            kind = "medium"
        return Intent(kind, phrase)
    words = text.lower().split()
    if len(words) <= 3 and words and words[0] not in VERBS and not _GRAMMAR.intersection(words):
        return Intent("have", text) if words[-1] in PARTS else Intent("become", _with_article(text))
    head = text[:1].lower() + text[1:] if text[1:2].islower() else text
    return Intent("other", head)


def paraphrases(instruction: str, count: int, seed: int) -> list[str]:
    """At most `count` different ways to say an instruction, none of them the instruction itself.

    The same arguments give the same list. Its start is the most varied part: every sentence form comes once before
    any comes again with other words.
    """
    said = {instruction.strip().casefold()}
    texts: list[str] = []
    for text in _sayings(parse(instruction), random.Random(derive("paraphrase", instruction, seed))):
        if len(texts) >= count:
            break
        if text.casefold() not in said:
            said.add(text.casefold())
            texts.append(text)
    return texts


def captions(instruction: str) -> tuple[str, str]:
    """Return captions of the picture before and after the edit, for directional CLIP similarity."""
    kind, phrase = parse(instruction)
    after = {
        "become": f"a photo of {phrase}",
        "medium": f"{phrase} of a person",
        "have": f"a photo of a person with {phrase}",
        "lose": f"a photo of a person without {phrase}",
        "adjective": f"{_with_article(phrase)} photo of a person",
        "manner": f"a picture of a person in {phrase}",
        "other": f"a photo of a person, {phrase}",
    }
    return "a photo of a person", after[kind]


def _sayings(intent: Intent, rng: random.Random) -> Iterator[str]:
    chosen, phrases = list(_forms(intent)), _phrasings(intent)
    for _ in range(8):
        rng.shuffle(chosen)
        for form in chosen:
            person, picture = rng.choice(forms.PEOPLE), rng.choice(forms.PICTURES)
            yield _fill(form, rng.choice(phrases), person, picture)


def _forms(intent: Intent) -> tuple[str, ...]:
    chosen = forms.BY_KIND[intent.kind]
    words = intent.phrase.lower().split()
    if intent.kind == "have" and words[-1] in PARTS and " " in intent.phrase:
        chosen += forms.HAVE_PART
        if re.fullmatch(COLOURS, words[0]) and len(words) == 2:
            chosen += forms.HAVE_COLOUR
    return chosen


def _phrasings(intent: Intent) -> list[str]:
    """The phrase, and the same thing by other names: "a bronze sculpture", "a statue cast in bronze"."""
    words = intent.phrase.split()
    phrasings = [intent.phrase]
    if intent.kind in ("become", "medium") and words[-1].lower() in SYNONYMS:
        phrasings.append(" ".join([*words[:-1], SYNONYMS[words[-1].lower()]]))
    if intent.kind == "become" and len(words) == 3 and words[1].lower() in MATERIALS and words[2].lower() in SHAPES:
        phrasings.append(f"{_with_article(words[2])} {MATERIALS[words[1].lower()]}")
    return phrasings


def _fill(form: str, phrase: str, person: forms.Person, picture: str) -> str:
    bare = re.sub(r"^(?:an?|the|his|her|their)\s+", "", phrase, flags=re.IGNORECASE)
    *quality, part = phrase.split()
    # "style portrait" and "effect" take a plain compound: not "statue cast in bronze style portrait".
    if "{bare} style" in form or "a {bare} effect" in form:
        for material, of in MATERIALS.items():
            bare = re.sub(rf"^(\w+) {of}$", rf"{material} \1", bare)
        form = form.replace("a {bare}", "{a_bare}")
    text = form.format(
        **person._asdict(), picture=picture, phrase=phrase, bare=bare, a_bare=_with_article(bare),
        a_phrase=_with_article(phrase), part=part, quality=" ".join(quality),
        subject_noun="the person" if len(person.subject) <= 4 else person.subject,
        object_noun=person.object,
    )  # fmt: skip
    return re.sub(r"\bperson's their\b", "person's", text)


def _with_article(noun: str) -> str:
    if re.match(r"(?:an?|the)\s", noun, re.IGNORECASE):
        return noun
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
