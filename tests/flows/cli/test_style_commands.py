"""`stillroom styles`: listed with counts, state and yield; added; checked. And what a change of one file touches."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from data_catalog.config.plain_text import not_plain
from data_catalog.config.profiles import load_settings
from data_catalog.config.styles import read_style, style_paths
from data_catalog.plan.plan import Plan
from data_catalog.store.execute import execute
from data_catalog.store.record import Record
from data_catalog.store.store import Store
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.ask.style_check import check_styles
from flows.ask.styles import add_style, describe_styles, slug_of
from tasks.language.wording import clean, normalise
from tests.flows.cli.test_cli import stillroom
from tests.worlds.fake_llm import GOOD, KEY, FakeServer, says


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A styles folder with two styles; the data root lies beside it."""
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "zombie.txt").write_text("turn him into a zombie\n")
    (tmp_path / "styles" / "marble-statue.txt").write_text("make him a marble statue\n")
    return tmp_path / "styles"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = FakeServer([says(*GOOD)])
    yield server
    server.stop()


def chosen(folder: Path) -> list[str]:
    return [f"prompts.styles_dir={folder}"]


def make_prompts(folder: Path, *overrides: str) -> tuple[Plan, list[str]]:
    """Make what the stage `prompts` has to make; returns the plan and the partitions that ran."""
    root = folder.parent / "data"
    plan = open_plan(load_settings("demo", [*chosen(folder), *overrides]), root)
    jobs = plan.resolve("prompts")
    for job in jobs:
        plan.finish(execute(job, root))
    plan.save()
    return plan, [job.key for job in jobs]


def problems(folder: Path, *overrides: str) -> dict[str, list[str]]:
    """Problems by style, without those of words that the embedded editor has not learned."""
    found: dict[str, list[str]] = {}
    for problem in check_styles(Workspace.open("demo", [*chosen(folder), *overrides]))["problems"]:
        if "does not know" not in problem["what"]:
            found.setdefault(problem["style"], []).append(f"{problem['level']}: {problem['what']}")
    return found


@pytest.mark.parametrize(
    ("instruction", "slug"),
    [
        ("make her a porcelain doll", "porcelain-doll"),
        ("Give him RED hair", "red-hair"),
        ("open his mouth", "open-his-mouth"),
        ("make it all", "style-all"),
        ("turn her into a 1920s film star", "style-1920s-film-star"),
        ("turn him into a creature of the deepest darkest ocean trenches", "creature-of-the-deepest-darkest-ocean"),
    ],
)
def test_a_style_is_named_by_what_it_asks_for(instruction: str, slug: str) -> None:
    assert slug_of(instruction) == slug


def test_a_style_is_added_once(folder: Path) -> None:
    added = add_style("make her a porcelain doll.", None, Workspace.open("demo", chosen(folder)))
    assert (added["style"], added["next"]) == ("porcelain-doll", "stillroom build")
    assert (folder / "porcelain-doll.txt").read_text() == "make her a porcelain doll\n"
    with pytest.raises(UserError, match="'porcelain-doll' already"):
        add_style("turn him into a porcelain doll", None, Workspace.open("demo", chosen(folder)))
    with pytest.raises(UserError, match="'porcelain-doll' already has the same instruction"):
        add_style("Make her a porcelain doll", "doll", Workspace.open("demo", chosen(folder)))
    with pytest.raises(UserError, match=r"'My Doll' cannot be a style's name[^$]*for example my-doll"):
        add_style("make her a doll", "My Doll", Workspace.open("demo", chosen(folder)))
    assert len(list(folder.iterdir())) == 3


def test_words_that_the_editor_does_not_know_are_said(folder: Path) -> None:
    assert "note" not in add_style("give her an afro", None, Workspace.open("demo", chosen(folder)))
    added = add_style("make her a porcelain doll", None, Workspace.open("demo", chosen(folder)))
    assert added["note"].startswith("the text encoder does not know: porcelain, doll; ")


def test_a_style_that_the_profile_does_not_list_says_so(folder: Path) -> None:
    added = add_style(
        "make her a porcelain doll", None, Workspace.open("demo", [*chosen(folder), "prompts.styles=[zombie]"])
    )
    assert added["next"] == "name it in prompts.styles, which lists zombie"


@pytest.mark.parametrize("text", ["", " . ", "turn him into a headless rider", "swap their faces", "very " * 50])
def test_what_is_no_instruction_is_not_written(text: str, folder: Path) -> None:
    with pytest.raises(UserError, match="not an instruction for a style"):
        add_style(text, "new", Workspace.open("demo", chosen(folder)))
    assert len(list(folder.iterdir())) == 2


def test_sound_files_have_no_problems(folder: Path) -> None:
    assert problems(folder) == {}


def test_the_check_says_everything_at_once(folder: Path) -> None:
    (folder / "Bad Name.txt").write_text("make him bad\n")
    (folder / "notes.md").write_text("none")
    (folder / "README.md").write_text("about the folder")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "zombie.yaml").write_text("prompts: [turn her into a zombie]\n")
    (folder / "painter.txt").write_text("paint her in the style of Van Gogh\nPaint her in the style of van gogh!\n")
    (folder / "picture.png").write_bytes(b"no picture")
    (folder / "odd.yaml").write_text(
        "prompts: [swap their faces]\ntrain: [make him odd]\ntest: [Make him odd!]\nreference_images: [picture.png]\n"
    )
    found = problems(folder)
    assert "is not named by a slug" in found["Bad Name"][0]
    assert "rename it to bad-name.txt" in found["Bad Name"][0]
    assert found["notes.md"] == ["note: no style file: its name ends neither in .txt nor in .yaml"]
    assert found.keys() == {"Bad Name", "notes.md", "empty", "zombie", "painter", "odd"}
    assert "holds no prompt" in found["empty"][0]
    assert found["zombie"][0] == "error: there are two files for this style"
    assert [line.partition(":")[0] for line in found["painter"]] == ["note"] * 4
    assert "may name a person (Van, Gogh)" in found["painter"][0]
    assert "distinct prompts of 13" in found["painter"][-1]
    assert any("asks for another person ('swap their faces')" in line for line in found["odd"])
    assert "error: train and test share a prompt: make him odd" in found["odd"]
    assert any(line.startswith("error: picture.png: ") for line in found["odd"])
    assert not check_styles(Workspace.open("demo", chosen(folder)))["ok"]


@pytest.mark.parametrize(
    "text",
    ["# 1 fan shirt", "make her {a doll}", '"so" to say', "- # x", "'tis her: a doll", "\ufeffmake it", "100 % [gold]"],
)
def test_an_added_style_reads_back_as_it_was_written(text: str, folder: Path) -> None:
    added = add_style(text, "new", Workspace.open("demo", chosen(folder)))
    path = style_paths(folder)["new"]
    assert read_style(path).prompts == [added["seed_prompt"]]
    assert added["seed_prompt"] == clean(text)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=()), max_size=80) | st.text("#-\"'{}[]:.1 a\ufeff\x85\u2028", max_size=20)
)
def test_any_text_is_added_and_reads_back_or_is_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.open("demo", chosen(Path(temporary)))
        if not_plain(clean(text)) or not normalise(text):
            with pytest.raises(UserError, match="this is not an instruction for a style"):
                add_style(text, None, workspace)
            assert list(Path(temporary).iterdir()) == []
            return
        added = add_style(text, None, workspace)
        (path,) = style_paths(Path(temporary)).values()
        assert read_style(path).prompts == [added["seed_prompt"]] == [clean(text)]


@pytest.mark.parametrize(("text", "cleaned"), [
    (' "make her gold." ', "make her gold"), ('"make her gold".', "make her gold"), ('say "cheese"', 'say "cheese"'),
    ('"a" or "b"', '"a" or "b"'), ("1. - a..", "a"), ("\u201ca\u201d", "a"), ('"', '"'), ("'tis gold", "'tis gold"),
])  # fmt: skip
def test_only_what_stands_around_a_prompt_is_cleaned_away(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned == clean(cleaned)


def test_the_check_shows_what_was_found_and_what_to_type(folder: Path) -> None:
    (folder / "clown.txt").write_bytes("make him a clown with caf\u00e9".encode("latin-1"))
    (found,) = problems(folder)["clown"]
    assert "looks_like  CP1252: make him a clown with caf\u00e9" in found
    assert "iconv -f CP1252 -t UTF-8" in found


def test_braces_in_a_prompt_are_letters_wherever_they_stand(folder: Path) -> None:
    (folder / "doll.txt").write_text("make her {a doll}\n")
    (folder / "robot.txt").write_text("turn him into a {0.__class__} robot {statue}\n")
    (folder / "clown.txt").write_text("turn him into a [/b] <b>clown</b>\n")
    assert problems(folder) == {}
    make_prompts(folder)
    for slug, words in (("doll", "{a doll}"), ("robot", "{0.__class__} robot"), ("clown", "[/b] <b>clown</b>")):
        (path,) = (folder.parent / "data" / "store" / "prompts" / slug).glob("*/prompts.json")
        texts = [prompt["text"] for prompt in json.loads(path.read_text())["train"]]
        assert len(texts) == 8
        assert sum(words in text for text in texts) > 5


@pytest.mark.timeout(20)
def test_what_is_no_file_is_said_and_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "null.txt").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.txt"))
        found = problems(folder)
    for name, kind in KINDS.items():
        assert f"cannot be read: it is {kind}" in found[name][0]
        with pytest.raises(UserError, match="cannot be read"):
            describe_styles(Workspace.open("demo", chosen(folder)))


KINDS = {"pipe": "a FIFO", "folder": "a folder", "gone": "a link to nothing", "null": "a device", "socket": "a socket"}


def test_a_prompt_that_trains_one_style_and_tests_another_is_an_error(folder: Path) -> None:
    (folder / "undead.yaml").write_text("prompts: [make him undead]\ntest: [rot him]\n")
    (folder / "rotten.yaml").write_text("prompts: [make him rotten]\ntrain: [Rot him!]\n")
    assert problems(folder) == {"undead": ["error: tests a prompt that the style 'rotten' trains on: rot him"]}


def test_styles_are_listed_with_counts_and_state(folder: Path) -> None:
    rows = {row["style"]: row for row in describe_styles(Workspace.open("demo", chosen(folder)))["styles"]}
    assert (rows["zombie"]["state"], rows["zombie"]["train"], rows["zombie"]["yield"]) == ("new", None, None)
    plan, ran = make_prompts(folder)
    assert ran == ["prompts/marble-statue", "prompts/zombie"]
    rows = {row["style"]: row for row in describe_styles(Workspace.open("demo", chosen(folder)))["styles"]}
    zombie = rows["zombie"]
    assert (zombie["state"], zombie["cached"], zombie["train"], zombie["test"]) == ("outdated", 1, 8, 5)
    assert zombie["partitions"] == sum(step.partition.style == "zombie" for step in plan.steps.values())


def test_the_yield_of_the_last_selection_is_listed(folder: Path) -> None:
    plan, _ = make_prompts(folder)
    store, partition = Store(folder.parent / "data"), next(s.partition for s in plan.by_stage["select"])
    temporary = store.begin(partition, "f" * 64)
    record = Record(
        partition=partition.key,
        stage="select",
        version=1,
        fingerprint="f" * 64,
        fingerprint_inputs={},
        digest="",
        files={},
        samples=30,
        metrics={"yield": 0.75},
    )
    store.commit(temporary, record)
    row = describe_styles(Workspace.open("demo", chosen(folder)))["styles"][0]
    assert (row["style"], row["kept"], row["yield"]) == (partition.style, 30, 0.75)


def test_without_portraits_styles_are_listed_without_state(folder: Path) -> None:
    document = describe_styles(Workspace.open("demo", [*chosen(folder), "portraits.source=/no/such/folder"]))
    assert [row["state"] for row in document["styles"]] == [None, None]
    assert document["note"].startswith("no state: ")


def digests(plan: Plan) -> dict[str, Any]:
    return {step.partition.style: step.entry.digest for step in plan.by_stage["prompts"] if step.entry}


def test_guidance_enters_the_fingerprints_of_its_style_alone(folder: Path) -> None:
    before, _ = make_prompts(folder)
    (folder / "zombie.txt").unlink()
    (folder / "zombie.yaml").write_text("prompts: [turn him into a zombie]\nguidance_scale: 4\n")
    after, ran = make_prompts(folder)
    assert ran == ["prompts/zombie"]
    changed = {style for style, digest in digests(before).items() if digests(after)[style] != digest}
    assert changed == {"zombie"}  # and with its digest, the fingerprint of its edits


def test_a_gate_of_a_style_edits_nothing_again_and_asks_no_model_again(folder: Path, server: FakeServer) -> None:
    asked = ["prompts.backend=openai", f"prompts.base_url={server.url}", "select.min_clip_text=0.4"]
    before, _ = make_prompts(folder, *asked)
    requests = len(server.requests)
    (folder / "zombie.txt").unlink()
    (folder / "zombie.yaml").write_text("prompts: [turn him into a zombie]\ngates: {min_clip_text: 0.1}\n")
    after, ran = make_prompts(folder, *asked)
    assert ran == ["prompts/zombie"]
    assert (digests(after), len(server.requests)) == (digests(before), requests)
    own = {step.partition.style: after.now(step)["settings"]["min_clip_text"] for step in after.by_stage["select"]}
    assert own == {"marble-statue": 0.4, "zombie": 0.1}


def test_one_more_style_with_a_language_model_asks_for_that_style_alone(folder: Path, server: FakeServer) -> None:
    asked = ["prompts.backend=openai", f"prompts.base_url={server.url}"]
    make_prompts(folder, *asked)
    server.requests.clear()
    add_style("make her a porcelain doll", None, Workspace.open("demo", chosen(folder)))
    plan, ran = make_prompts(folder, *asked)
    assert ran == ["prompts/porcelain-doll"]
    assert all("porcelain doll" in request["messages"][1]["content"] for request in server.requests)
    assert {step.partition.style for step in plan.by_stage["prompts"] if step.state == "cached"} == {
        "marble-statue",
        "zombie",
    }


def test_the_commands_work(tmp_path: Path) -> None:
    where = ["--set", f"prompts.styles_dir={tmp_path / 'styles'}"]
    added = stillroom("styles", "add", "make her a porcelain doll", *where, "--json", root=tmp_path / "data")
    assert json.loads(added.stdout)["style"] == "porcelain-doll", added.stderr
    (tmp_path / "styles" / "empty.txt").write_text("")
    checked = stillroom("styles", "check", *where, root=tmp_path / "data")
    assert checked.returncode == 1
    assert "holds no prompt" in " ".join(checked.stdout.split())
    assert "Traceback" not in checked.stderr


def test_brackets_of_a_user_are_letters_on_the_terminal(tmp_path: Path) -> None:
    styles = tmp_path / "[b]styles"
    styles.mkdir()
    (styles / "doll.txt").write_text("make her a doll with [/b] arms\n")
    (styles / "robot.txt").write_text("make it [bold]gold[/bold]\n")
    where = ["--set", f"prompts.styles_dir={styles}"]
    listed = stillroom("styles", *where, root=tmp_path / "data")
    assert "make her a doll with [/b] arms" in listed.stdout, listed.stderr
    checked = stillroom("styles", "check", *where, root=tmp_path / "data")
    assert "[b]styles" in checked.stdout, checked.stderr
    assert "[bold]gold[/bold]" in listed.stdout


def test_an_encoding_without_a_letter_shows_it_as_an_escape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "doll.txt").write_text("make her a d\u00f6ll \U0001f9df\n", encoding="utf-8")
    where = ["--set", f"prompts.styles_dir={tmp_path / 'styles'}"]
    listed = stillroom("styles", *where, root=tmp_path / "data")
    assert "make her a d\\xf6ll \\U0001f9df" in listed.stdout, listed.stderr
    document = json.loads(stillroom("styles", *where, "--json", root=tmp_path / "data").stdout)
    assert document["styles"][0]["seed_prompt"] == "make her a d\u00f6ll \U0001f9df"
    refused = stillroom("styles", "add", "make her a d\u00f6ll", "--name", "d\u00f6ll", *where, root=tmp_path / "data")
    assert refused.stderr.startswith("error: "), refused.stderr
