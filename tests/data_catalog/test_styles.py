"""Style files, and the message for each way to get one wrong."""

import re
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles, read_style, style_gates, style_path, style_paths
from data_catalog.store.stage import Partition
from tasks import select


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zombie.txt").write_text("# the undead\n\nTurn the  person into a zombie\nMake it a zombie \n")
    (tmp_path / "red-hair.yaml").write_text(
        "prompts: [Make the hair red]\ntarget_caption: a portrait with red hair\nguidance_scale: 5\n"
    )
    (tmp_path / "README.md").write_text("not a style")
    (tmp_path / ".hidden.txt").write_text("")
    return tmp_path


def settings(folder: Path, styles: list[str] | None = None) -> Settings:
    return Settings.model_validate({"prompts": {"styles_dir": str(folder), "styles": styles}})


def said(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_style(path)
    return str(caught.value)


def test_a_text_file_is_a_style(folder: Path) -> None:
    style = read_style(folder / "zombie.txt")
    assert style.slug == "zombie"
    assert style.prompts == ["Turn the person into a zombie", "Make it a zombie"]
    assert style.seed_prompt == style.prompts[0]


def test_a_yaml_file_says_more(folder: Path) -> None:
    style = read_style(folder / "red-hair.yaml")
    assert (style.seed_prompt, style.guidance_scale) == ("Make the hair red", 5.0)
    assert style.target_caption == "a portrait with red hair"


def test_a_yaml_file_may_freeze_the_split(folder: Path) -> None:
    (folder / "neon.yaml").write_text("train: [Make it neon, Neon lights]\ntest: [In neon]\n")
    style = read_style(folder / "neon.yaml")
    assert (style.seed_prompt, style.train, style.test) == (
        "Make it neon",
        ["Make it neon", "Neon lights"],
        ["In neon"],
    )


def test_styles_are_listed_by_slug(folder: Path) -> None:
    assert list_styles(settings(folder)) == ["red-hair", "zombie"]
    assert list_styles(settings(folder, ["zombie"])) == ["zombie"]
    assert style_path(settings(folder), "zombie") == folder / "zombie.txt"


def test_an_unknown_style_is_said_with_a_guess(folder: Path) -> None:
    with pytest.raises(UserError, match="there is no style 'zombi'; did you mean 'zombie'"):
        list_styles(settings(folder, ["zombi"]))


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_said(folder: Path, content: str) -> None:
    (folder / "neon.txt").write_text(content)
    assert "neon.txt holds no prompt" in said(folder / "neon.txt")


def test_a_file_that_is_not_utf8_is_said(folder: Path) -> None:
    (folder / "neon.txt").write_bytes("Néon".encode("latin-1"))
    assert "neon.txt is not UTF-8" in said(folder / "neon.txt")
    (folder / "neon.yaml").write_bytes("prompts: [Néon]".encode("latin-1"))
    assert "neon.yaml is not UTF-8" in said(folder / "neon.yaml")


def test_a_byte_order_mark_does_not_matter(folder: Path) -> None:
    (folder / "neon.txt").write_bytes(b"\xef\xbb\xbfMake it neon\r\n")
    assert read_style(folder / "neon.txt").prompts == ["Make it neon"]


@pytest.mark.parametrize("name", ["Red Hair", "red_hair", "-red", "red--hair", "1red", "rouge-é", "all", "r" * 41])
def test_a_name_that_is_no_slug_is_said(folder: Path, name: str) -> None:
    (folder / f"{name}.txt").write_text("Make it so")
    with pytest.raises(UserError, match="is not named by a slug"):
        style_paths(folder)


def test_the_hint_names_the_slug(folder: Path) -> None:
    (folder / "Bronze Statue.txt").write_text("Make it bronze")
    assert "hint      rename it to bronze-statue.txt" in said(folder / "Bronze Statue.txt")


def test_two_files_for_one_style_are_said(folder: Path) -> None:
    (folder / "zombie.yaml").write_text("prompts: [a]")
    with pytest.raises(UserError, match="two files for the style 'zombie'") as caught:
        style_paths(folder)
    assert set(caught.value.fields) == {"first", "second"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("promts: [a]", "unknown key 'promts'; did you mean 'prompts'?"),
        ("prompts: [a\n", "this is not YAML"),
        ("- a", "expected keys with values"),
        ("prompts: a", "prompts: input should be a valid list"),
        ("prompts: [a, '']", "prompts: a prompt is empty"),
        ("prompts: [a]\nguidance_scale: 0.5", "guidance_scale: input should be greater than or equal to 1"),
        ("prompts: [a]\ntrain: [b]\ntest: [b]", "is in both train and test"),
        ("prompts: [a]\nprompts: [b]", "the key 'prompts' occurs twice"),
    ],
)
def test_a_yaml_mistake_is_said_with_the_file(folder: Path, content: str, message: str) -> None:
    (folder / "neon.yaml").write_text(content)
    assert "neon.yaml" in said(folder / "neon.yaml").splitlines()[0]
    assert message in said(folder / "neon.yaml")


@pytest.mark.parametrize(
    ("written", "kind"),
    [("no", "yes or no"), ("Yes", "yes or no"), ("on", "yes or no"), ("12", "a number"), ("012", "a number"),
     ("1_000", "a number"), ("1:30", "a number"), ("1.5", "a number"), (".inf", "a number"), ("2024-01-02", "a date"),
     ("~", "nothing"), ("null", "nothing")],
)  # fmt: skip
def test_a_value_that_yaml_does_not_read_as_text_is_shown_as_written(folder: Path, written: str, kind: str) -> None:
    for line in (f"prompts: [Make it neon, {written}]", f"prompts: [Make it neon]\nlicence: {written}\n"):
        (folder / "neon.yaml").write_text(line)
        if "licence" in line and kind == "nothing":
            continue
        message = said(folder / "neon.yaml")
        assert f"found     {written}, which YAML reads as {kind}" in message
        assert f'hint      quote it: "{written}"' in message
        (folder / "neon.yaml").write_text(line.replace(written, f'"{written}"'))
        assert written in (read_style(folder / "neon.yaml").prompts[-1], read_style(folder / "neon.yaml").licence)


def test_a_colon_within_a_prompt_is_said(folder: Path) -> None:
    (folder / "neon.yaml").write_text("prompts:\n- make her: a doll\n")
    message = said(folder / "neon.yaml")
    assert '{"make her": "a doll"}' in message
    assert "quote the text" in message


def test_a_text_that_a_comment_cuts_is_said(folder: Path) -> None:
    (folder / "neon.yaml").write_text("prompts: # the first\n- Make it neon   # is paraphrased\n- Make her a #1 fan\n")
    message = said(folder / "neon.yaml")
    assert "found     Make her a #1 fan" in message
    assert 'quote it: "Make her a #1 fan"' in message
    (folder / "neon.yaml").write_text(
        "prompts: # the first\n- Make it neon   # is one\n- 'Make her a #1 fan'  #so\n- C#\n"
    )
    assert read_style(folder / "neon.yaml").prompts == ["Make it neon", "Make her a #1 fan", "C#"]


@pytest.mark.parametrize(
    ("line", "message"),
    [("guidance_scale: yes", "a number is expected"), ("gates: {min_clip_text: on}", "a number is expected"),
     ("guidance_scale: .inf", "finite"), ("image_guidance_scale: .nan", "finite"),
     ("gates: {max_ssim: -.inf}", "finite"),
     ("guidance_scale: 2024-13-45", "this is not YAML")],
)  # fmt: skip
def test_only_a_finite_number_is_a_number(folder: Path, line: str, message: str) -> None:
    (folder / "neon.yaml").write_text(f"prompts: [Make it neon]\n{line}\n")
    assert message in said(folder / "neon.yaml")


def test_merge_keys_work(folder: Path) -> None:
    (folder / "neon.yaml").write_text(
        "x-usual: &usual {guidance_scale: 4, gates: {min_clip_text: 0.3}}\nprompts: [Make it neon]\n"
        "<<: *usual\nguidance_scale: 5\n"
    )
    style = read_style(folder / "neon.yaml")
    assert (style.guidance_scale, style.gates) == (5.0, {"min_clip_text": 0.3})
    (folder / "neon.yaml").write_text("prompts: [a b]\n<<: {guidance_scale: 4}\nguidance_scale: 5\nguidance_scale: 6\n")
    assert "the key 'guidance_scale' occurs twice" in said(folder / "neon.yaml")


@pytest.mark.parametrize("name", ["zombie.TXT", "neon.YAML", "neon.yml", "neon.Yml"])
def test_the_suffix_counts_in_any_case(folder: Path, name: str) -> None:
    (folder / "zombie.txt").unlink()
    (folder / name).write_text("Make it so" if name.endswith("TXT") else "prompts: [Make it so]")
    slug = name.partition(".")[0]
    assert style_path(settings(folder), slug) == style_paths(folder)[slug] == folder / name
    assert read_style(folder / name).prompts == ["Make it so"]


@pytest.mark.parametrize("suffix", [".txt", ".yaml"])
@pytest.mark.parametrize(
    ("encoding", "guess"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32"),
     ("cp1252", "CP1252")],
)  # fmt: skip
def test_another_encoding_is_guessed_and_the_next_step_said(
    folder: Path, suffix: str, encoding: str, guess: str
) -> None:
    line = "Make it n\u00e9on" if suffix == ".txt" else "prompts: [Make it n\u00e9on]"
    (folder / f"neon{suffix}").write_bytes(f"# ok\n{line}\n".encode(encoding))
    message = said(folder / f"neon{suffix}")
    assert f"looks_like  {guess}: " in message
    assert f"iconv -f {guess} -t UTF-8 neon{suffix} > new{suffix}" in message
    if encoding == "cp1252":
        assert f"line 2, byte {5 + line.index(chr(233))}" in message
        assert line in message


def test_a_byte_order_mark_in_yaml_does_not_matter(folder: Path) -> None:
    (folder / "neon.yaml").write_bytes(b"\xef\xbb\xbfprompts: [Make it neon]\n")
    assert read_style(folder / "neon.yaml").prompts == ["Make it neon"]


@pytest.mark.parametrize(("suffix", "text"), [(".txt", "Make \x1b[31m it"), (".yaml", 'prompts: ["a\\0b"]'),
                                              (".yaml", 'prompts: ["a \\ud800"]'), (".txt", "b" * 5000)])  # fmt: skip
def test_a_prompt_that_is_not_plain_text_is_said(folder: Path, suffix: str, text: str) -> None:
    (folder / f"neon{suffix}").write_text(text)
    message = said(folder / f"neon{suffix}")
    assert re.search("a character that no text has|a word of 5000 letters|invalid Unicode character", message)


def test_no_folder_and_no_style_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_styles(settings(tmp_path / "gone"))
    with pytest.raises(UserError, match="there is no style file"):
        list_styles(settings(tmp_path))


UNUSED = {"quantile", "calibration_blocks", "keep", "attempts"}  # without calibration and top-up


def test_a_yaml_file_sets_gates_of_its_style_alone(folder: Path) -> None:
    (folder / "neon.yaml").write_text("prompts: [Make it neon]\ngates: {min_clip_text: 0.3, max_ssim: null}\n")
    given = settings(folder)
    assert (style_gates(given, "neon").min_clip_text, style_gates(given, "neon").max_ssim) == (0.3, None)
    assert style_gates(given, "zombie") == given.select
    assert select.reads(given, Partition("select", "neon"))["min_clip_text"] == 0.3
    assert select.reads(given, Partition("select", "zombie")) == given.select.model_dump(exclude=UNUSED)


def test_reference_images_and_licence_are_read(folder: Path) -> None:
    (folder / "neon.png").write_bytes(b"")
    (folder / "neon.yaml").write_text("prompts: [Make it neon]\nreference_images: [neon.png]\nlicence: CC0\n")
    style = read_style(folder / "neon.yaml")
    assert (style.reference_images, style.licence, style.changes_identity) == (["neon.png"], "CC0", False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gates: {min_clip_txt: 0.3}", "there is no gate 'min_clip_txt'; gates: min_clip_image"),
        ("gates: {min_clip_text: 3}", "min_clip_text: input should be less than or equal to 1"),
        ("gates: {min_yield: 0.3}", "there is no gate 'min_yield'"),
        ("reference_images: [gone.png]", "reference_images: there is no file gone.png"),
    ],
)
def test_a_wrong_gate_or_picture_is_said(folder: Path, line: str, message: str) -> None:
    (folder / "neon.yaml").write_text(f"prompts: [Make it neon]\n{line}\n")
    assert message in said(folder / "neon.yaml")
