"""Names for the looks of the procedural world: the words that the embedded CLIP and editor learn from.

Each look has names; instructions and captions are a frame around a name, or a paraphrase of a base instruction as the
`prompts` stage makes them. `HELD_OUT_FRAMES` are never trained on, so that prompts in unseen words can be measured.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tasks.language.paraphrase import paraphrases

NAMES: dict[str | None, tuple[str, ...]] = {
    "bronze-statue": (
        "a bronze statue", "a bronze sculpture", "a statue made of bronze", "a bronze bust", "a bronze figure",
        "a cast bronze statue", "polished bronze", "a metal statue", "a golden brown metal bust",
    ),
    "marble-statue": (
        "a marble statue", "a marble sculpture", "a statue carved from marble", "a marble bust", "white marble",
        "a white stone statue", "a carved stone bust", "a marble figure", "an ancient greek marble statue",
    ),
    "zombie": (
        "a zombie", "an undead zombie", "a green zombie", "the living dead", "a rotting zombie", "a walking corpse",
        "a zombie from a horror film", "an undead person with green skin", "a rotten undead monster",
    ),
    "pencil-sketch": (
        "a pencil sketch", "a pencil drawing", "a sketch drawn in pencil", "a black and white pencil drawing",
        "a hand drawn sketch", "a graphite drawing", "a charcoal sketch", "a line drawing on paper", "a drawn portrait",
    ),
    "neon": (
        "a neon sign", "glowing neon", "a neon light portrait", "neon lights", "a glowing neon figure",
        "a cyberpunk neon portrait", "a neon glow at night", "a face outlined in neon light", "a glowing neon outline",
    ),
    "red-hair": (
        "red hair", "bright red hair", "a person with red hair", "hair dyed red", "ginger hair", "a redhead",
        "flaming red hair", "scarlet hair", "fiery red hair",
    ),
    "clown": (
        "a clown", "a circus clown", "a clown with a red nose", "a clown with face paint", "a funny clown",
        "a clown with an orange wig", "a jester from the circus", "a clown in make-up", "a clown with a wig",
    ),
    "elf-ears": (
        "elf ears", "pointed ears", "an elf", "long pointed elf ears", "pointy ears", "an elf with pointed ears",
        "the ears of an elf", "a fantasy elf", "big pointed ears",
    ),
    "afro": (
        "an afro", "afro hair", "a big afro", "a round afro hairstyle", "curly afro hair", "an afro haircut",
        "huge round hair", "a person with an afro", "a seventies afro",
    ),
    "bald": (
        "a bald head", "no hair", "a bald person", "a shaved head", "a hairless head",
        "a bald scalp", "a clean shaven head",
        "a head without hair", "a bald look",
    ),
    None: (
        "a person", "a photo of a person", "a portrait photo", "an ordinary person",
        "a natural portrait", "a human face",
        "the same person", "a plain photograph", "an unchanged picture",
    ),
}  # fmt: skip

BASE_INSTRUCTIONS: dict[str | None, tuple[str, ...]] = {
    "bronze-statue": ("turn her into a bronze statue", "make him a bronze bust"),
    "marble-statue": ("turn him into a marble statue", "make her a marble bust"),
    "zombie": ("turn him into a zombie", "make her an undead monster"),
    "pencil-sketch": ("make it a pencil sketch", "turn it into a pencil drawing"),
    "neon": ("turn her into a glowing neon sign", "make it neon"),
    "red-hair": ("give her red hair", "give him bright red hair"),
    "clown": ("turn him into a clown", "make her a circus clown"),
    "elf-ears": ("give him elf ears", "add pointed ears"),
    "afro": ("give her an afro", "give him afro hair"),
    "bald": ("make him bald", "make her a bald person"),
    None: ("keep the person as they are",),
}
PARAPHRASES_PER_BASE = 48

WHO = (
    *("him", "her", "them", "the person", "this person"),
    *("the face", "the portrait", "the man", "the woman", "the subject"),
)
INSTRUCTION_FRAMES = (
    "turn {who} into {name}", "make {who} {name}", "make {who} look like {name}", "change {who} to {name}",
    "transform {who} into {name}", "{name}", "give {who} {name}", "as {name}", "make it {name}", "add {name}",
    "what would {who} look like as {name}", "i want {name}", "show {who} as {name}", "edit {who} to be {name}",
    "let {who} become {name}", "put {name} on {who}", "render {who} as {name}", "let {who} have {name}",
    "with {name}", "{who} as {name}", "turn {who} to {name}", "convert {who} into {name}",
)  # fmt: skip
CAPTION_FRAMES = (
    "a portrait of {name}", "a photo of {name}", "a picture of {name}", "{name}", "the face of {name}",
    "an image of {name}",
    "a head shot of {name}", "a person as {name}", "a person with {name}", "a close up of {name}",
)  # fmt: skip
HELD_OUT_FRAMES = (
    "could you have {who} appear as {name}",
    "redo {who} so that we see {name}",
    "{name} please, for {who}",
)


def _fill(frame: str, name: str, rng: np.random.Generator) -> str:
    return frame.format(name=name, who=WHO[rng.integers(len(WHO))])


@cache
def paraphrased(look: str | None) -> tuple[str, ...]:
    """Return the built-in paraphraser's variants of a look's base instructions."""
    if look is None:
        return BASE_INSTRUCTIONS[None]
    bases = BASE_INSTRUCTIONS[look]
    return tuple(text for base in bases for text in (base, *paraphrases(base, PARAPHRASES_PER_BASE, seed=0)))


def instruction(look: str | None, rng: np.random.Generator) -> str:
    """A random way to ask for a look."""
    names = NAMES[look]
    if rng.random() < 0.5:
        texts = paraphrased(look)
        return texts[rng.integers(len(texts))]
    return _fill(INSTRUCTION_FRAMES[rng.integers(len(INSTRUCTION_FRAMES))], names[rng.integers(len(names))], rng)


def caption(look: str | None, rng: np.random.Generator) -> str:
    """A random description of a picture with a look."""
    names = NAMES[look]
    return _fill(CAPTION_FRAMES[rng.integers(len(CAPTION_FRAMES))], names[rng.integers(len(names))], rng)


def held_out_instruction(look: str | None, rng: np.random.Generator) -> str:
    """An instruction in a frame that training never uses."""
    names = NAMES[look]
    return _fill(HELD_OUT_FRAMES[rng.integers(len(HELD_OUT_FRAMES))], names[rng.integers(len(names))], rng)


def corpus() -> list[str]:
    """Return the texts that training can produce, for the tokenizer; held-out frames share its bytes, not its words."""
    texts: list[str] = []
    for look, names in NAMES.items():
        texts += paraphrased(look) * 20
        for name in names:
            texts += [frame.format(name=name, who=who) for frame in INSTRUCTION_FRAMES for who in WHO]
            texts += [frame.format(name=name) for frame in CAPTION_FRAMES]
    return texts
