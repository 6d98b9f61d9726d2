"""The documentation: generated pages are those of the code, links lead somewhere, pictures are used."""

import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import Field, create_model

from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Section, Settings
from docs import generate
from tests.worlds.chain import write_chain

FOLDERS = ("docs", "models", "configs", "tests", "benchmarks", "tasks", "flows", "data_catalog")
PAGES = sorted([*PROJECT.glob("*.md"), *(page for name in FOLDERS for page in (PROJECT / name).rglob("*.md"))])
CODE = ("*.py", "*.yaml", "*.j2")
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
MOST_LINES = 180  # of the README
MOST_WORDS = {"README.md": 1300, "CONTRIBUTING.md": 900, "docs/*.md": 7500}  # without generated pages


def without_code(text: str) -> str:
    """A page without its blocks of code, in which a bracket is no link."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {generate.anchor(heading) for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    broken = []
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", sorted(generate.pages()))
def test_a_generated_page_is_that_of_the_code(name: str) -> None:
    written = (generate.DOCS / name).read_text(encoding="utf-8")
    assert written == generate.pages()[name], "make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_relative_link_and_anchor_exists(page: Path) -> None:
    assert not broken_links(page)


def test_a_broken_link_or_anchor_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b) [c](page.md#a-title) [d](gone.md)\n```\n[e](gone.md)\n```\n")
    assert broken_links(page) == ["#b", "gone.md"]


def test_code_names_pages_that_exist() -> None:
    files = [file for name in FOLDERS for kind in CODE for file in (PROJECT / name).rglob(kind)]
    named = {(file.name, page) for file in files for page in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text())}
    assert len(named) > 5
    assert not {(file, page) for file, page in named if not (PROJECT / page).is_file()}


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {
        (page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    assert set((PROJECT / "docs").rglob("*.png")) <= shown


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_first_edit_of_a_page_names_a_portrait_that_ships(page: str) -> None:
    (name,) = re.findall(r"^stillroom edit (\S+)", (PROJECT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert (PROJECT / name).stat().st_size <= 60_000
    with Image.open(PROJECT / name) as portrait:
        assert portrait.size == (256, 256)


@pytest.mark.parametrize("pages", sorted(MOST_WORDS))
def test_hand_written_pages_stay_short(pages: str) -> None:
    texts = [page.read_text(encoding="utf-8") for page in PROJECT.glob(pages) if page.name not in generate.pages()]
    assert 0 < sum(len(text.split()) for text in texts) <= MOST_WORDS[pages]


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_settings_page_tells_what_a_stage_reads() -> None:
    counted = generate.fingerprints()
    assert counted["edit.steps"] == ["edit", "evaluate"]
    assert counted["select.min_identity"] == ["select"]
    assert counted["run.workers"] == counted["edit.batch_size"] == []


def test_the_example_stage_of_the_concepts_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (generate.DOCS / "concepts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    stage_code, settings_code = (next(b for b in blocks if text in b) for text in ("STAGE = Stage(", "(Section):"))
    names: dict[str, Any] = {"Section": Section, "Field": Field}
    exec(settings_code, names)
    own = names["BrightnessSettings"]
    settings = create_model("WithBrightness", __base__=Settings, brightness=(own, own()))()
    (tmp_path / "example_of_a_stage.py").write_text(stage_code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    stage = importlib.import_module("example_of_a_stage").STAGE

    work = replace(write_chain(tmp_path / "chain").work(stage, "zombie", 0), settings=settings)
    made = stage.run(work)
    assert made.samples == pq.read_table(work.folder / "brightness.parquet").num_rows > 0
    assert stage.reads(settings, work.partition) == {"gamma": 1.0}
