"""Page as a whole: title, three tabs, style sheet."""

from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from flows.page.browse_tab import build_browse_tab
from flows.page.compare_tab import build_compare_tab
from flows.page.doors import MAX_UPLOAD, TOO_LARGE
from flows.page.edit_tab import build_edit_tab
from flows.page.shelf import Shelf

if TYPE_CHECKING:
    from fastapi import FastAPI

STYLE_SHEET = Path(__file__).parent / "page.css"
CLEAN_EVERY_S, KEEP_FILES_S = 600, 3600  # uploads
WORKERS = 2  # handlers of one kind at a time; each keeps a core busy
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif")  # the reader's own
# Gradio gives every drop zone the same name for a screen reader, each time that it is drawn.
NAME_DROPS = """() => { const name = () => { for (const drop of document.querySelectorAll('.drop')) {
  const button = drop.querySelector('button'), label = drop.querySelector('label');
  if (button && label && button.ariaLabel !== label.innerText) button.ariaLabel = label.innerText; } };
  name(); new MutationObserver(name).observe(document.body, {childList: true, subtree: true}); }"""
# Gradio refuses a large file in a corner of the page; as a small one, it is refused as other pictures are.
SEND_SMALL = """() => { const limit = LIMIT, small = (files) => { const kept = new DataTransfer();
  for (const f of files) kept.items.add(f.size > limit ? new File(['MARK' + f.size], f.name, {type: f.type}) : f);
  return kept.files; };
  const large = (files) => [...files].some((f) => f.size > limit);
  document.addEventListener('change', (e) => {
    if (e.target.matches('.drop input[type=file]') && large(e.target.files)) e.target.files = small(e.target.files);
  }, true);
  document.addEventListener('drop', (e) => { const input = e.target.closest('.drop')?.querySelector('input[type=file]');
    if (!input || !large(e.dataTransfer.files)) return;
    e.preventDefault(); e.stopPropagation();
    input.files = small(e.dataTransfer.files); input.dispatchEvent(new Event('change', {bubbles: true}));
  }, true); }""".replace("LIMIT", str(MAX_UPLOAD)).replace("MARK", TOO_LARGE.decode())
NO_STUDENT = "There is no student here yet. `stillroom distill` trains one; load this page again then."


def build_page(shelf: Shelf) -> gr.Blocks:
    """Build the page. Without a student, its tabs say how to get one."""
    students, settings = bool(shelf.choices()), shelf.workspace.settings
    with gr.Blocks(title="stillroom", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_FILES_S)) as page:
        gr.HTML(
            "<header><h1>stillroom</h1>"
            "<p>Pick a portrait, say what to change, and look at the edited head from any side.</p></header>"
        )
        with gr.Tabs():
            with gr.Tab("Edit", id="edit"):
                if students:
                    build_edit_tab(shelf, settings, page)
                else:
                    gr.Markdown(NO_STUDENT)
            with gr.Tab("Browse", id="browse") as browse:
                build_browse_tab(shelf.workspace.root, browse)
            with gr.Tab("Compare", id="compare") as compare:
                if students:
                    build_compare_tab(shelf, settings, compare)
                else:
                    gr.Markdown(NO_STUDENT)
        page.load(None, None, None, js=NAME_DROPS)
        page.load(None, None, None, js=SEND_SMALL)
    page.queue(default_concurrency_limit=WORKERS, max_size=64)
    return page


def mount_page(app: "FastAPI", shelf: Shelf) -> "FastAPI":
    """Put the page on an application, at its root."""
    if choices := shelf.choices():
        shelf.open(choices[0].key)  # the first visitor need not wait for loading
    theme = gr.themes.Default(
        primary_hue="amber", neutral_hue="stone", radius_size="sm", font=FONTS, font_mono=("ui-monospace", "monospace")
    ).set(body_text_color_subdued="*neutral_500")
    page = build_page(shelf)
    # Gradio restricts requests to uploaded files, but not on a mounted page, which counts as not launched.
    page.has_launched = True
    return gr.mount_gradio_app(
        app,
        page,
        "/",
        allowed_paths=[],
        footer_links=[],
        run_history=False,
        show_error=False,  # a visitor's mistakes are shown on the page; other errors only in the log
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        theme=theme,
        css=STYLE_SHEET.read_text(encoding="utf-8"),
    )
