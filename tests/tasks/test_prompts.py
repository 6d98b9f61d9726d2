"""Prompts: the built-in paraphraser, what is no prompt for a face, deduplication and the frozen split."""

import itertools
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.styles import StyleFile, list_styles, read_style, style_path
from data_catalog.store.stage import Partition
from tasks import edit, prompts
from tasks.language.checks import unfit
from tasks.language.collection import Collection
from tasks.language.paraphrase import captions, paraphrases, parse
from tasks.language.wording import clean, normalise, rouge_l


@pytest.mark.parametrize(
    ("instruction", "kind", "phrase"),
    [
        ("turn her into a bronze statue", "become", "a bronze statue"),
        ("Turn the person into an old wizard.", "become", "an old wizard"),
        ("make him look like a zombie", "become", "a zombie"),
        ("bronze statue style portrait", "become", "a bronze statue"),
        ("clown", "become", "a clown"),
        ("make it a pencil sketch", "medium", "a pencil sketch"),
        ("make it look like a Van Gogh painting", "medium", "a Van Gogh painting"),
        ("give him red hair", "have", "red hair"),
        ("make her hair blue", "have", "blue hair"),
        ("add elf ears", "have", "elf ears"),
        ("add a hat to him", "have", "a hat"),
        ("remove her glasses", "lose", "glasses"),
        ("make it neon", "adjective", "neon"),
        ("paint her in the style of Van Gogh", "manner", "the style of Van Gogh"),
        ("open his mouth", "other", "open his mouth"),
    ],
)
def test_the_grammar_understands_an_instruction(instruction: str, kind: str, phrase: str) -> None:
    assert parse(instruction) == (kind, phrase)


ASKED = (
    "turn her into a bronze statue", "give him red hair", "make it a pencil sketch", "add elf ears", "make it neon",
    "remove her glasses", "paint her in the style of Van Gogh", "open his mouth", "turn him into an old wizard",
    "give her a clown nose", "make his eyes green", "zombie",
)  # fmt: skip


@pytest.mark.parametrize("instruction", ASKED)
def test_paraphrases_are_distinct_and_well_formed(instruction: str) -> None:
    texts = paraphrases(instruction, 26, seed=0)
    assert len(texts) == 26
    assert len({text.casefold() for text in texts} | {instruction.casefold()}) == 27
    phrase = parse(instruction).phrase.split()[-1]
    for text in texts:
        assert not re.search(r"[{}]|\s\s|^\s|\s$", text), text
        assert not re.search(r"\ba (?=[aeio])|\ban (?=[^aeiou])", text), text
        assert not re.search(r"\b(a|an|the) (a|an|the)\b", text), text
        assert not re.search(r"(?<!would )\b(he|she) (have|look|are)\b|\bthey (has|looks|is)\b", text), text
        assert phrase in text or {"statue", "sketch", "eyes"} & set(instruction.split()), text


@pytest.mark.parametrize("instruction", ASKED)
def test_paraphrases_are_the_same_each_time_and_their_start_does_not_depend_on_the_count(instruction: str) -> None:
    assert paraphrases(instruction, 30, seed=3) == paraphrases(instruction, 30, seed=3)
    assert paraphrases(instruction, 10, seed=3) == paraphrases(instruction, 30, seed=3)[:10]
    assert paraphrases(instruction, 30, seed=3) != paraphrases(instruction, 30, seed=4)


def test_captions_say_what_is_seen_before_and_after() -> None:
    before = "a photo of a person"
    assert captions("turn him into a zombie") == (before, "a photo of a zombie")
    assert captions("give her red hair") == (before, "a photo of a person with red hair")
    assert captions("make it a pencil sketch") == (before, "a pencil sketch of a person")


def builtin_book(style: StyleFile, *overrides: str) -> dict[str, Any]:
    book, exchanges = prompts.make_book(style, load_settings("demo", list(overrides)), Path("no answers"))
    assert exchanges == []
    return book


DEMO = ["bronze-statue", "clown", "elf-ears", "marble-statue", "neon", "pencil-sketch", "red-hair", "zombie"]


@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_every_shipped_style_has_8_training_and_5_test_prompts_that_differ(profile: str) -> None:
    settings = load_settings(profile, ["prompts.backend=builtin", "prompts.max_clip_text=null"])
    styles = list_styles(settings)
    assert set(DEMO) <= set(styles) if profile == "demo" else len(styles) == 20
    met: dict[str, str] = {}
    for slug in styles:
        style = read_style(style_path(settings, slug))
        book, _ = prompts.make_book(style, settings, Path("no answers"))
        chosen = [*book["train"], *book["test"]]
        assert [prompt["number"] for prompt in chosen] == list(range(13))
        assert (len(book["train"]), len(book["test"])) == (8, 5)
        for one, other in itertools.combinations(chosen, 2):
            assert rouge_l(one["text"], other["text"]) < 0.7
        assert book["seed_prompt"] in [prompt["text"] for prompt in chosen]
        for split in ("train", "test"):
            for prompt in book[split]:
                assert met.setdefault(normalise(prompt["text"]), split) == split
                assert unfit(prompt["text"], style) == ""


def test_a_book_is_the_same_each_time() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"])
    assert builtin_book(style) == builtin_book(style)


def test_given_lines_are_taken_as_they_are() -> None:
    lines = ["turn him into a zombie", "turn her into a zombie", "make him a rotten corpse"]
    book = builtin_book(StyleFile(slug="zombie", prompts=lines))
    origins = {prompt["text"]: prompt["origin"] for prompt in [*book["train"], *book["test"]]}
    assert [origins[line] for line in lines] == ["seed", "given", "given"]


def test_a_style_file_can_fix_the_split() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"], train=["rot him"], test=["undead, please"])
    book = builtin_book(style)
    assert book["train"][0] == {"number": 0, "text": "rot him", "origin": "given"}
    assert book["test"][0] == {"number": 8, "text": "undead, please", "origin": "given"}
    with pytest.raises(UserError, match="more test prompts"):
        builtin_book(style.model_copy(update={"test": ["one", "two two", "three"]}), "prompts.test=2")


def test_the_words_of_a_prompt_decide_its_split_not_its_place() -> None:
    lines = [
        f"{word} him into a zombie at once" for word in ["turn", "make", "change", "convert", "push", "pull", "drag"]
    ]
    lines += [f"a {word} zombie portrait of her" for word in ["green", "blue", "rotten", "old", "fresh", "dusty"]]
    one = builtin_book(StyleFile(slug="zombie", prompts=lines))
    other = builtin_book(StyleFile(slug="zombie", prompts=lines[::-1]))
    assert [prompt["text"] for prompt in one["test"]] == [prompt["text"] for prompt in other["test"]]


def test_too_few_distinct_prompts_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="distinct prompts of 400"):
        builtin_book(StyleFile(slug="odd", prompts=["do the thing"]), "prompts.train=395")


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [('"make him old."', "make him old"), ("1. make him old", "make him old"), ("- make\n him old", "make him old"),
     ("what if he were old?", "what if he were old?")],
)  # fmt: skip
def test_a_prompt_is_cleaned(given: str, cleaned: str) -> None:
    assert clean(given) == cleaned


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert rouge_l("turn him into a zombie", "turn her into a zombie") == pytest.approx(0.8)
    assert rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert rouge_l("one", "two") == 0.0


def test_a_style_files_own_guidance_is_in_its_book_alone() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"])
    plain = builtin_book(style)
    assert not {"guidance_scale", "image_guidance_scale", "missing"} & set(plain)
    own = builtin_book(style.model_copy(update={"guidance_scale": 4.0}))
    assert own == plain | {"guidance_scale": 4.0}
    profiles = load_settings("demo").edit
    assert edit.adjust_to_style(profiles, own) == profiles.model_copy(update={"guidance_scale": 4.0})


def test_too_few_prompts_make_a_short_book_and_are_said(caplog: pytest.LogCaptureFixture) -> None:
    style = StyleFile(slug="van-gogh", prompts=["paint her in the style of Van Gogh"])
    with caplog.at_level(logging.WARNING):
        book = builtin_book(style)
    found = len(book["train"]) + len(book["test"])
    assert book["missing"] == 13 - found > 0
    assert f"van-gogh: only {found} distinct prompts of 13" in caplog.text
    assert len(book["test"]) == found * 5 // 13
    assert [prompt["number"] for prompt in book["test"]] == list(range(8, 8 + len(book["test"])))
    for one, other in itertools.combinations([*book["train"], *book["test"]], 2):
        assert rouge_l(one["text"], other["text"]) < 0.7


LIKE_CLIP = {"rot him": (1.0, 0.0), "let him rot": (0.99, 0.14), "undead, please": (0.0, 1.0)}


def test_clip_tells_apart_what_words_do_not() -> None:
    style = StyleFile(slug="zombie", prompts=["rot him"])

    def embed(text: str) -> np.ndarray:
        return np.array(LIKE_CLIP[text])

    collection = Collection(style, 3, embed, 0.95)
    collection.offer("rot him", "seed")
    for text in ("let him rot", "undead, please"):
        collection.offer(text, "openai")
    collection.close()
    assert [prompt.text for prompt in collection.accepted] == ["rot him", "undead, please"]
    assert collection.rejected[0]["reason"] == "too similar: CLIP 0.99 to 'rot him'"


def test_clip_is_a_weight_of_the_stage_only_where_the_profile_asks_for_it() -> None:
    demo, paper = load_settings("demo"), load_settings("paper")
    partition = Partition("prompts", "zombie")
    assert prompts.STAGE.models(demo) == ()
    assert set(prompts.reads(demo, partition)) == {"backend", "train", "test", "seed"}
    assert prompts.STAGE.models(paper) == ("clip",)
    assert prompts.reads(paper, partition)["max_clip_text"] == 0.95


def test_the_embedded_clip_can_be_asked() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"])
    with pytest.raises(UserError, match="distinct prompts"):  # To it they are all one: see the settings.
        builtin_book(style, "prompts.max_clip_text=0.95")


ZOMBIE = StyleFile(slug="zombie", prompts=["turn him into a zombie"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("make him look undead", ""),
        ("turn this person into a Victorian zombie", ""),
        ("what would he look like? A zombie. I want it", ""),
        ("turn him into a naked zombie", "not face-safe: nudity"),
        ("decapitate him", "not face-safe: gore"),
        ("hide her face behind rags", "not face-safe: the face is hidden"),
        ("show the zombie from behind", "not face-safe: the face is hidden"),
        ("turn her head to the left", "not face-safe: the head or the camera turns"),
        ("a full-body zombie", "not face-safe: the head or the camera turns"),
        ("make him a different person", "changes who it is: 'a different person'"),
        ("swap their faces", "changes who it is: 'swap their faces'"),
        ("a zombie like Taylor Swift", "names a person: Taylor, Swift"),
        ("make him rembrandt's zombie", "names a person: rembrandt's"),
        ("Einstein, but dead", "names a person: Einstein"),
    ],
)
def test_a_paraphrase_that_is_not_for_a_face_is_refused(text: str, reason: str) -> None:
    assert unfit(text, ZOMBIE) == reason


def test_what_the_style_itself_says_is_allowed() -> None:
    painter = StyleFile(slug="van-gogh", prompts=["paint her like Van Gogh"])
    assert unfit("a portrait by Van Gogh", painter) == ""
    stranger = StyleFile(slug="stranger", prompts=["make her another person"], changes_identity=True)
    assert unfit("turn her into someone else", stranger) == ""


@pytest.mark.parametrize("line", ["turn him into a headless horseman", "make her another person"])
def test_an_instruction_that_is_not_for_a_face_is_the_authors_to_change(line: str) -> None:
    with pytest.raises(UserError, match="asks for an edit that is not allowed") as caught:
        builtin_book(StyleFile(slug="odd", prompts=[line]))
    assert caught.value.fields["prompt"] == line


def test_the_builtin_prompts_pass_the_same_checks() -> None:
    for instruction in ASKED:
        style = StyleFile(slug="any", prompts=[instruction])
        assert not [text for text in paraphrases(instruction, 60, 0) if unfit(text, style)]
