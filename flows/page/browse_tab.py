"""Second tab: browse the datasets of the data root."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr

from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import Snapshot, list_snapshots
from flows.page import figures
from flows.page.inputs import QUIET
from tasks.datasets.browse import Browser, Wanted, title
from tasks.tables.scores import MEASURES

ROWS = 8  # on a page
ANY = "any"
KEPT, REJECTED = "In the dataset", "Rejected"
SPLITS = (ANY, "train", "val", "test")
SHORT = 8  # characters of a digest on the page
ORDERS = [("name", "key")] + [(title(name), name) for name in MEASURES]


def build_browse_tab(root: Path, tab: gr.Tab) -> None:
    """Lay the tab out and connect it. Datasets are listed when the tab is opened, so that new ones appear."""
    with gr.Row(elem_classes="filters"):
        dataset = gr.Dropdown([], label="Dataset", scale=2, elem_id="browse-dataset")
        which = gr.Radio([KEPT, REJECTED], value=KEPT, label="Samples", scale=2, elem_id="browse-which")
        style = gr.Dropdown([ANY], value=ANY, label="Style", elem_id="browse-style")
        split = gr.Dropdown(list(SPLITS), value=ANY, label="Split", elem_id="browse-split")
        reason = gr.Dropdown([ANY], value=ANY, label="Reason", visible=False, elem_id="browse-reason")
    with gr.Row(elem_classes="filters"):
        order = gr.Dropdown(ORDERS, value="key", label="Order by", elem_id="browse-order")
        descending = gr.Checkbox(False, label="Highest first", elem_id="browse-descending")
        low = gr.Textbox("", placeholder="any", max_lines=1, label="Score at least", elem_id="browse-low")
        high = gr.Textbox("", placeholder="any", max_lines=1, label="Score at most", elem_id="browse-high")
    with gr.Row(elem_classes="pager"):
        back = gr.Button("Back", size="sm", scale=0, elem_id="browse-back")
        forth = gr.Button("Next", size="sm", scale=0, elem_id="browse-next")
        count = gr.HTML(elem_id="browse-count")
    rows = gr.HTML(elem_id="browse-rows")
    start = gr.State(0)

    # What they look at lies below the data root.
    menu, menus = partial(list_datasets, root), partial(list_filters, root)
    page, first = partial(show_page, root), partial(show_page, root, 0)  # after a change of the filters, from the start
    filters = [dataset, which, style, split, reason, order, descending, low, high]
    shown = [start, count, rows]
    tab.select(menu, None, dataset, **QUIET).then(menus, dataset, [style, reason], **QUIET).then(
        page, [start, *filters], shown, **QUIET
    )
    dataset.input(menus, dataset, [style, reason], **QUIET).then(first, filters, shown, **QUIET)
    which.input(lambda chosen: gr.Dropdown(visible=chosen == REJECTED), which, reason, **QUIET)
    others: list[Any] = filters[1:]
    changes = [*(each.input for each in others), low.submit, high.submit]
    gr.on(changes, first, filters, shown, trigger_mode="always_last", **QUIET)
    back.click(lambda at, *asked: page(at - ROWS, *asked), [start, *filters], shown, **QUIET)
    forth.click(lambda at, *asked: page(at + ROWS, *asked), [start, *filters], shown, **QUIET)


def list_datasets(root: Path) -> Any:
    """The menu of datasets, the newest first."""
    options = [(_label(snapshot), str(snapshot.digest)) for snapshot in reversed(list_snapshots(root))]
    return gr.Dropdown(options, value=options[0][1] if options else None)


def list_filters(root: Path, dataset: str | None) -> tuple[Any, Any]:
    """The menus of a dataset's styles and of the reasons why samples were rejected."""
    browser = _open(root, dataset) if dataset else None
    styles, reasons = (browser.styles(), browser.reasons()) if browser else ([], [])
    return gr.Dropdown([ANY, *styles], value=ANY), gr.Dropdown([ANY, *reasons], value=ANY)


def show_page(
    root: Path,
    start: int,
    dataset: str | None,
    which: str,
    style: str,
    split: str,
    reason: str,
    order: str,
    descending: bool,
    low: str,
    high: str,
) -> tuple[int, str, str]:
    """Return the page's start, its position in the whole, and its rows."""
    if dataset is None:
        return 0, "", figures.note("There is no dataset here yet: `stillroom build` makes one.")
    rejected = which == REJECTED
    browser = _open(root, dataset)
    try:
        wanted = Wanted(
            rejected=rejected,
            style=_chosen(style),
            split=_chosen(split),
            reason=_chosen(reason),
            order=order,
            descending=descending,
            low=_bound(low),
            high=_bound(high),
        )
    except ValueError:
        return 0, "", figures.problem(UserError("a score's bounds are numbers", expected="such as 0.5, or nothing"))
    start = max(0, start)
    total, found = browser.find(wanted, start, ROWS)
    if start > 0 and not found:  # beyond the end
        start = max(0, (total - 1) // ROWS * ROWS)
        total, found = browser.find(wanted, start, ROWS)
    told = f"{start + 1} to {start + len(found)} of {total}" if found else "0 samples"
    return start, figures.note(told), browser.show(found, rejected)


def _chosen(value: str) -> str | None:
    return None if value == ANY else value


def _bound(text: str) -> float | None:
    return float(text) if text.strip() else None


def _label(snapshot: Snapshot) -> str:
    manifest = snapshot.manifest
    return f"{manifest['name']} · {manifest['profile']} · {manifest['samples']} samples · {snapshot.digest[:SHORT]}"


@lru_cache(8)
def _open(root: Path, digest: str) -> Browser:
    return Browser(root, next(each for each in list_snapshots(root) if each.digest == digest))
