"""The real stages, as declared: what a changed style, setting, file of code or record makes run, and what it says."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.store.stage import Partition
from data_catalog.store.store import RECORD
from tests.worlds.declared import STAGES, Workshop

STEPS = load_settings("demo").edit.steps  # of the profile, which these tests change

JOINED = ["dataset/all", "distill/all", "evaluate/all"]  # one partition for all styles


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="module")
def with_code(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Built, from a copy of the code that each test leaves as it was."""
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    shop.copy_code()
    shop.build()
    return shop


def reasons(shop: Workshop, key: str, **options: object) -> list[str]:
    return [str(reason) for reason in shop.plan(**options).steps[key].reasons]


def styles_of(keys: list[str]) -> set[str | None]:
    return {Partition.parse(key).style for key in keys if key not in JOINED}


def add(shop: Workshop) -> None:
    shop.add_style("neon")


def edit_one_line(shop: Workshop) -> None:
    path = shop.styles / "zombie.txt"
    path.write_text(path.read_text().replace("Make it zombie", "Make it a hungry zombie"))


def rename(shop: Workshop) -> None:
    (shop.styles / "zombie.txt").rename(shop.styles / "undead.txt")


def remove(shop: Workshop) -> None:
    (shop.styles / "zombie.txt").unlink()


@pytest.mark.parametrize(
    ("change", "style"), [(add, "neon"), (edit_one_line, "zombie"), (rename, "undead"), (remove, None)]
)
def test_a_changed_style_file_runs_only_that_styles_partitions(
    shop: Workshop, change: Callable[[Workshop], None], style: str | None
) -> None:
    shop.build()
    stored = sorted((shop.root / "store").rglob(RECORD))
    change(shop)
    ran = shop.build()
    assert styles_of(ran) == ({style} if style else set())
    assert len(ran) == (1 + 2 + 2 + 1 + 2 if style else 0) + len(JOINED)
    assert set(stored) <= set((shop.root / "store").rglob(RECORD)), "what is not needed now stays in the store"
    assert shop.build() == []


def test_a_removed_style_leaves_the_dataset_and_comes_back_for_nothing(shop: Workshop) -> None:
    shop.build()
    text = (shop.styles / "zombie.txt").read_text()
    remove(shop)
    assert shop.build() == JOINED
    assert "zombie" not in str(shop.plan().now(shop.plan().steps["dataset/all"]))
    (shop.styles / "zombie.txt").write_text(text)
    assert shop.build() == []


def test_a_comment_in_a_style_file_runs_its_prompts_and_stops_there(shop: Workshop) -> None:
    shop.build()
    (shop.styles / "zombie.txt").write_text("# for Halloween\n" + (shop.styles / "zombie.txt").read_text())
    plan = shop.plan()
    assert plan.steps["prompts/zombie"].reasons[0].what == "file zombie.txt"
    assert plan.steps["edit/zombie/0000"].state == "maybe"
    assert plan.steps["edit/red-hair/0000"].state == "cached"
    assert shop.build() == ["prompts/zombie"]


def test_each_kind_of_change_is_told_with_its_old_and_new_value(shop: Workshop) -> None:
    shop.build()
    shop.overrides = ["edit.steps=7"]
    assert reasons(shop, "edit/zombie/0001") == [f"setting steps: {STEPS} -> 7"]
    assert f"setting recipe.edit.steps: {STEPS} -> 7" in reasons(shop, "dataset/all")
    shop.overrides, shop.weights = [], {"editor": "other"}
    assert reasons(shop, "edit/zombie/0001") == ["weights editor: weights of e -> other"]
    assert reasons(shop, "teach/zombie/0001") == ["upstream edit/zombie/0001 and 2 more run"]
    shop.weights = {}
    entry = shop.plan().steps["align/0001"].entry
    assert entry is not None
    (shop.root / "store" / "align" / "0001" / entry.fingerprint[:16] / "told.json").unlink()
    assert reasons(shop, "align/0001") == ["damaged: told.json is missing"]


def test_two_changes_at_once_are_both_told(shop: Workshop) -> None:
    shop.build()
    shop.overrides, shop.weights = ["edit.steps=7", "edit.seed=3"], {"editor": "other"}
    told = ["setting seed: 0 -> 3", f"setting steps: {STEPS} -> 7", "weights editor: weights of e -> other"]
    assert reasons(shop, "edit/zombie/0001") == told
    edit_one_line(shop)  # its upstream runs as well
    assert reasons(shop, "edit/zombie/0001") == [*told, "upstream prompts/zombie runs"]


@pytest.mark.parametrize(
    ("force", "ran"),
    [
        ("select/zombie", ["select/zombie"]),
        ("teach/zombie/0001", ["teach/zombie/0001"]),
        ("edit/red-hair", ["edit/red-hair/0000", "edit/red-hair/0001"]),
        ("align", ["align/0000", "align/0001"]),
    ],
)
def test_force_makes_again_what_it_names_and_the_same_bytes_stop_there(
    shop: Workshop, force: str, ran: list[str]
) -> None:
    shop.build()
    assert {str(reason) for key in ran for reason in shop.plan(force=[force]).steps[key].reasons} == {"forced"}
    assert shop.build(force=[force]) == ran


def test_a_new_style_is_the_datasets_only_reason(shop: Workshop) -> None:
    shop.build()
    shop.add_style("neon")
    assert reasons(shop, "edit/neon/0000") == ["new"]
    assert reasons(shop, "dataset/all") == ["upstream prompts/neon and 7 more are new"]


def test_force_that_names_nothing_is_refused_with_what_comes_near(shop: Workshop) -> None:
    with pytest.raises(UserError, match="--force teach/zombi: no partition is named so") as caught:
        shop.plan(force=["edit/zombie", "teach/zombi"])
    assert "teach/zombie" in str(caught.value.hint)


def test_the_whole_code_without_comments_docstrings_and_formatting_is_the_same_code(with_code: Workshop) -> None:
    before = {path: path.read_text() for path in with_code.project.rglob("*.py")}
    try:
        for path, text in before.items():
            path.write_text(ast.unparse(_without_docstrings(ast.parse(text))))
        assert {step.state for step in with_code.plan().steps.values()} == {"cached"}
        for path, text in before.items():
            path.write_text("# A comment.\n" + re.sub(r"\n(def |class )", r"\n# Another.\n\n\1", text))
        assert {step.state for step in with_code.plan().steps.values()} == {"cached"}
    finally:
        for path, text in before.items():
            path.write_text(text)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Also with the imports of each body in the opposite order."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                node.body = node.body[1:]
            imports = [part for part in node.body if _is_import(part)]
            node.body = [*reversed(imports), *(part for part in node.body if not _is_import(part))]
    return tree


def _is_import(node: ast.stmt) -> bool:
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return isinstance(node, ast.Import | ast.ImportFrom) and not future


def change_a_helper(shop: Workshop, value: str) -> None:
    """`segformer` is imported by `encoder`, that by `live3d`, that by the teacher of `teach`."""
    path = shop.project / "models" / "three_d" / "segformer.py"
    text = path.read_text()
    changed = re.sub(r"(class MixMlp.*?def forward\(.*?:\n)", rf"\1        assert {value}\n", text, flags=re.DOTALL)
    path.write_text(changed)
    assert changed != text


def test_a_changed_helper_imports_away_runs_the_stages_that_reach_it_and_is_named(with_code: Workshop) -> None:
    path = with_code.project / "models" / "three_d" / "segformer.py"
    before = path.read_text()
    try:
        change_a_helper(with_code, "1")
        plan = with_code.plan()
        states = {stage.name: {step.state for step in plan.by_stage[stage.name]} for stage in STAGES}
        reached = {name for name, found in states.items() if found != {"cached"}}
        assert reached == {"teach", "dataset", "distill", "evaluate"}
        assert states["teach"] == {"run"}
        told = re.compile(r"code models\.three_d\.segformer\.MixMlp\.forward: [0-9a-f]{12} -> [0-9a-f]{12}")
        assert told.fullmatch(reasons(with_code, "teach/zombie/0000")[0])
    finally:
        path.write_text(before)
