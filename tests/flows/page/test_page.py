"""The page of `stillroom serve`, in a real browser: what a visitor does, and what nobody may do."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from data_catalog.config.places import PROJECT
from data_catalog.samples.encoding import encode_png
from tasks.processes import free_port
from tests.tasks.test_align_photographs import two
from tests.worlds import page_world, pupil, web

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(
    not CHROMIUM, reason="NO BROWSER, THE PAGE IS NOT TESTED: install Chromium, such as `apt-get install chromium`"
)
SANDBOXLESS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WAIT_MS = 60_000  # at most; a loaded machine is slow, not wrong


@dataclass(frozen=True)
class Server:
    """The real command in a process of its own, and the empty folders that it might be tempted to write to."""

    url: str
    root: Path
    elsewhere: tuple[Path, ...]
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("page")
    root = page_world.make(base / "data")
    elsewhere = tuple(base / name for name in ("home", "tmp", "cwd"))
    for folder in elsewhere:
        folder.mkdir()
    home, temporary, cwd = (str(folder) for folder in elsewhere)
    environment = {**os.environ, "STILLROOM_DATA": str(root), "HOME": home, "TMPDIR": temporary}
    environment |= {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flows.cli", "serve", "--json", "--port", str(free_port())]
    with (base / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=cwd)
    try:
        assert process.stdout is not None
        printed = "".join(iter(process.stdout.readline, "}\n")) + "}"
        url = json.loads(printed)["url"]
        wait_for(url, process, base / "log")
        yield Server(url, root, elsewhere, process)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.communicate()


def wait_for(url: str, process: "subprocess.Popen[str]", log: Path) -> None:
    ends = time.monotonic() + 180
    while time.monotonic() < ends and process.poll() is None:
        with suppress(httpx.HTTPError):
            if web.get(url).status_code == 200:
                return
        time.sleep(0.2)
    pytest.fail(f"the page did not come up:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=SANDBOXLESS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def visits(browser: Any, server: Server) -> Iterator[Callable[[], Any]]:
    """Opens the page for one more visitor; where each of its requests went is in `requested` of the page."""
    contexts = []

    def visit() -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 940}))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        page.requested, page.mistakes = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("pageerror", lambda error: page.mistakes.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#depth img")
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page(visits: Callable[[], Any]) -> Any:
    """Visit the page once, for several tests: each states its own starting point."""
    return visits()


def source(page: Any, where: str) -> str:
    return str(page.get_attribute(f"{where} img >> nth=-1", "src"))


def becomes_another(page: Any, where: str, act: Callable[[], Any]) -> None:
    """Do something and wait until the last picture there is another."""
    before = source(page, where)
    act()
    script = "([where, before]) => { const last = [...document.querySelectorAll(where + ' img')].pop();"
    page.wait_for_function(script + " return last && last.src !== before; }", arg=[where, before])


def keep(page: Any, name: str) -> None:
    """A screenshot, for people, where STILLROOM_SCREENSHOTS names a folder."""
    if folder := os.environ.get("STILLROOM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}.png")


def drop(page: Any, where: str, data: bytes) -> None:
    """Choose a file for a drop zone."""
    page.set_input_files(f"{where} input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": data})


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Any, where: str, text: "str | re.Pattern[str]") -> None:
    """Pick an option of a menu."""
    page.click(f"{where} input")
    page.get_by_role("option", name=text).first.click()


def say(page: Any, prompt: str) -> None:
    open_tab(page, "Edit")
    page.locator("#edit-way").get_by_label("In words").check()
    page.fill("#edit-prompt textarea", prompt)
    page.press("#edit-prompt textarea", "Enter")


@pytest.mark.browser
@needs_browser
def test_the_page_opens_with_an_edited_portrait_and_asks_nobody_else(page: Any, server: Server) -> None:
    assert page.title() == "stillroom"
    assert page.locator("#edit-portraits img").count() >= 4
    assert page.locator("#still img").count() == 2
    assert re.search(r"Portrait to picture \d+\.\d\d s", page.inner_text("#facts"))
    asked = [url for url in page.requested if not url.startswith((server.url, "data:", "blob:"))]
    assert asked == []
    assert page.mistakes == []
    keep(page, "edit")


@pytest.mark.browser
@needs_browser
def test_words_a_picked_prompt_and_a_picture_each_edit(page: Any) -> None:
    becomes_another(page, "#still", lambda: say(page, "make the hair red"))
    becomes_another(page, "#still", lambda: page.get_by_role("button", name="turn him into a zombie").first.click())
    assert page.input_value("#edit-prompt textarea") == "turn him into a zombie"
    page.locator("#edit-way").get_by_label("By a picture").check()
    becomes_another(page, "#still", lambda: page.click("#edit-references button >> nth=1"))
    keep(page, "edit-by-picture")
    photo = {"name": "me.png", "mimeType": "image/png", "buffer": encode_png(pupil.aligned_portrait(5))}
    becomes_another(page, "#still", lambda: page.set_input_files("#edit-portrait input[type=file]", photo))


@pytest.mark.browser
@needs_browser
def test_a_group_photograph_on_its_side_shows_its_faces_and_lets_one_be_chosen(page: Any) -> None:
    becomes_another(page, "#still", lambda: say(page, "make the hair red"))
    group = encode_png(np.ascontiguousarray(np.rot90(two())))
    photo = {"name": "group.png", "mimeType": "image/png", "buffer": group}
    becomes_another(page, "#still", lambda: page.set_input_files("#edit-portrait input[type=file]", photo))
    page.wait_for_selector("#edit-seen img")
    assert "2 faces were found" in page.inner_text("#edit-seen")
    assert "2 faces were found: the largest was cut out" in page.inner_text("#facts")
    keep(page, "group")
    drawn = source(page, "#edit-seen")
    becomes_another(page, "#still", lambda: page.locator("#edit-face").get_by_label("Face 2").check())
    assert source(page, "#edit-seen") != drawn
    assert "faces were found" not in page.inner_text("#facts")
    keep(page, "group-chosen")
    becomes_another(page, "#still", lambda: page.click("#edit-portraits button >> nth=1"))
    page.wait_for_function("() => !document.querySelector('#edit-seen img')")
    assert page.locator("#edit-face").is_hidden()


@pytest.mark.browser
@needs_browser
def test_dragging_a_slider_turns_the_head_and_edits_nothing(page: Any) -> None:
    open_tab(page, "Edit")
    still, facts, slider = (
        source(page, "#still"),
        page.inner_text("#facts"),
        page.locator("#edit-yaw input[type=range]"),
    )
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.5, 0.3, 0.1):
        point = box["x"] + box["width"] * share, box["y"] + box["height"] / 2
        becomes_another(page, "#view", lambda point=point: page.mouse.move(*point))
    page.mouse.up()
    assert float(page.input_value("#edit-yaw input[type=number]")) < -20
    assert (source(page, "#still"), page.inner_text("#facts")) == (still, facts)
    keep(page, "turned")


@pytest.mark.browser
@needs_browser
def test_another_student_makes_another_picture(page: Any) -> None:
    becomes_another(page, "#still", lambda: say(page, "as a sad zombie"))
    becomes_another(page, "#still", lambda: choose(page, "#edit-student", re.compile("^student")))
    becomes_another(page, "#still", lambda: choose(page, "#edit-student", re.compile("^newest")))


@pytest.mark.browser
@needs_browser
def test_the_styles_that_a_student_knows_are_offered(page: Any) -> None:
    open_tab(page, "Edit")
    known = ["turn her into a bronze statue", "make her look lost", "give her red hair", "turn him into a zombie"]
    assert page.locator("#edit-chips button").all_inner_texts() == known
    becomes_another(page, "#still", lambda: choose(page, "#edit-student", re.compile("^student")))
    page.wait_for_function("() => document.querySelectorAll('#edit-chips button').length === 1")
    assert page.inner_text("#edit-chips button") == "turn her into a glowing neon sign"
    becomes_another(page, "#still", lambda: page.click("#edit-chips button"))
    page.locator("#edit-way").get_by_label("By a picture").check()
    page.wait_for_function("() => document.querySelectorAll('#edit-references img').length === 1")
    becomes_another(page, "#still", lambda: choose(page, "#edit-student", re.compile("^newest")))
    page.wait_for_function("() => document.querySelectorAll('#edit-references img').length === 3")
    page.locator("#edit-way").get_by_label("In words").check()


@pytest.mark.browser
@needs_browser
def test_a_refused_picture_takes_the_place_of_the_earlier_one_and_the_reason_stands_below_it(page: Any) -> None:
    for data, said in (
        (b"no picture at all", "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC is not read"),
        (encode_png(pupil.aligned_portrait())[:500], "truncated|corrupt"),
        (huge_png(60_000), "too large"),
        (
            encode_png(pupil.aligned_portrait()) + bytes(21_000_000),
            "of 21 MB is too large[^]*20 MB at most[^]*smaller",
        ),
        (encode_png(np.zeros((64, 64, 3), np.uint8)), "shows nothing"),
        (encode_png(np.full((900, 700, 3), 255, np.uint8)), "shows nothing"),
    ):
        page.click("#edit-portraits button >> nth=0")
        page.wait_for_selector("#still img")
        drop(page, "#edit-portrait", data)
        page.wait_for_function(
            "(said) => new RegExp(said).test(document.querySelector('#edit-portrait-problem').innerText)", arg=said
        )
        page.wait_for_function("() => !document.querySelector('#still img, #view img, #depth img, #edit-seen img')")
        assert "There is no portrait" in page.inner_text("#view")
    keep(page, "bad-upload")
    page.locator("#edit-way").get_by_label("By a picture").check()
    drop(page, "#edit-reference", encode_png(pupil.aligned_portrait(3)))
    page.wait_for_selector("#edit-taken img")
    drop(page, "#edit-reference", b"no picture at all")
    page.wait_for_selector("#edit-reference-problem .problem")
    page.wait_for_function("() => !document.querySelector('#edit-taken img')")
    page.click("#edit-portraits button >> nth=0")
    page.wait_for_function(
        "() => document.querySelector('#edit-problem').innerText.includes('no picture of the style')"
    )
    say(page, "as a statue")
    page.wait_for_selector("#still img")
    assert page.locator("#edit-portrait-problem .problem, #edit-problem .problem").count() == 0


@pytest.mark.browser
@needs_browser
def test_a_picture_without_a_face_is_edited_under_a_warning(page: Any) -> None:
    becomes_another(page, "#still", lambda: say(page, "as a sad clown"))
    stripes = np.tile(np.linspace(0, 255, 96, dtype=np.uint8)[:, None, None], (1, 96, 3))
    becomes_another(page, "#still", lambda: drop(page, "#edit-portrait", encode_png(stripes)))
    page.wait_for_selector("#edit-warned .warning")
    assert page.inner_text("#edit-warned").startswith("No face was found")
    keep(page, "no-face")
    becomes_another(page, "#still", lambda: page.click("#edit-portraits button >> nth=0"))
    page.wait_for_function("() => !document.querySelector('#edit-warned .warning')")


@pytest.mark.browser
@needs_browser
def test_a_wrong_prompt_is_said_and_changes_nothing(page: Any) -> None:
    becomes_another(page, "#still", lambda: say(page, "give her a beard"))
    still = source(page, "#still")
    say(page, "   ")
    page.wait_for_function("() => document.querySelector('#edit-problem').innerText.includes('prompt is empty')")
    assert source(page, "#still") == still
    becomes_another(page, "#still", lambda: say(page, "as a sad statue"))
    assert page.locator("#edit-problem .problem").count() == 0


@pytest.mark.browser
@needs_browser
def test_an_error_of_the_server_is_said_below_the_buttons_which_work_afterwards(page: Any, server: Server) -> None:
    becomes_another(page, "#still", lambda: say(page, "as a happy statue"))
    (folder,) = server.root.glob("page/run-*")
    away = folder.rename(folder.parent / "away")
    page.click("#save-turntable")
    page.wait_for_function("() => document.querySelector('#edit-saved').innerText.includes('server could not do this')")
    away.rename(folder)
    with page.expect_download() as download:
        page.click("#save-picture")
    assert download.value.suggested_filename == "edited.png"
    assert page.locator("#edit-saved .problem").count() == 0


@pytest.mark.browser
@needs_browser
def test_two_visitors_do_not_meet(page: Any, visits: Callable[[], Any]) -> None:
    other = visits()
    becomes_another(page, "#still", lambda: say(page, "as a clown, please"))
    mine = source(page, "#still")
    becomes_another(other, "#still", lambda: say(other, "as a neon sign"))
    assert source(other, "#still") != mine
    for visitor, yaw in ((page, "10"), (other, "10")):
        becomes_another(visitor, "#view", lambda visitor=visitor, yaw=yaw: turn(visitor, yaw))
    assert source(page, "#view") != source(other, "#view")
    assert source(page, "#still") == mine


def turn(page: Any, yaw: str) -> None:
    page.fill("#edit-yaw input[type=number]", yaw)
    page.press("#edit-yaw input[type=number]", "Enter")


@pytest.mark.browser
@needs_browser
def test_picture_views_turntable_and_mesh_are_saved_with_one_press(page: Any, tmp_path: Path) -> None:
    import av
    import trimesh

    becomes_another(page, "#still", lambda: say(page, "as a marble statue"))
    saved = {}
    for name in ("picture", "views", "turntable", "mesh"):
        with page.expect_download() as download:
            page.click(f"#save-{name}")
        saved[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[name])
    assert [path.name for path in saved.values()] == ["edited.png", "views.zip", "turntable.mp4", "head.glb"]
    shown = io.BytesIO(b64decode(source(page, "#still").partition(",")[2]))
    edited = np.asarray(Image.open(saved["picture"]), float)
    assert np.abs(edited - np.asarray(Image.open(shown).convert("RGB"), float)).mean() < 8  # shown as WebP
    with zipfile.ZipFile(saved["views"]) as archive:
        assert archive.namelist() == [f"view_{number:02d}.png" for number in range(4)]
        views = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()]
    assert len({view.tobytes() for view in views}) == 4
    with av.open(saved["turntable"]) as video:
        assert sum(1 for _ in video.decode(video=0)) == 72
    assert len(trimesh.load(saved["mesh"], force="mesh").faces) > 1000
    keep(page, "saved")


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_its_screen_and_the_sliders_lie_below_the_head(visits: Callable[[], Any], width: int) -> None:
    page = visits()
    page.set_viewport_size({"width": width, "height": 844})
    for tab, shown in (("Edit", "#depth img"), ("Browse", "#browse-rows article"), ("Compare", "#sheet img")):
        open_tab(page, tab)
        page.wait_for_selector(shown)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == width, tab
        assert page.evaluate(BEYOND) == [], tab
        assert page.evaluate(SMALL) == [], tab
        keep(page, f"{tab.lower()}-{width}")
    open_tab(page, "Edit")
    head, yaw, pitch = (page.locator(each).bounding_box() for each in ("#view img", "#edit-yaw", "#edit-pitch"))
    for slider in (yaw, pitch):
        assert slider["y"] >= head["y"] + head["height"]
        assert slider["y"] + slider["height"] - head["y"] < 700
        assert head["x"] - 1 <= slider["x"] < head["x"] + head["width"]
    assert min(each["width"] for each in boxes(page, "#edit-portraits img")) >= 36
    if width == 390:
        page.click("#edit-go")
        page.wait_for_function("() => document.querySelector('#view').getBoundingClientRect().top < 60")


# Elements that a visitor sees beyond the screen's sides, and texts too small to read.
BEYOND = """() => [...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width && box.height && getComputedStyle(each).visibility != 'hidden'
    && (box.right > innerWidth + 1 || box.left < -1); }).map(each => each.outerHTML.slice(0, 80))"""
SMALL = """() => [...document.querySelectorAll('body *')].filter(each => each.checkVisibility()
  && [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())
  && getComputedStyle(each).visibility != 'hidden' && parseFloat(getComputedStyle(each).fontSize) < 12
  ).map(each => each.outerHTML.slice(0, 80))"""


def boxes(page: Any, where: str) -> list[dict[str, float]]:
    return [each.bounding_box() for each in page.locator(where).all()]


@pytest.mark.browser
@needs_browser
def test_every_control_has_a_name_and_shows_when_it_has_the_focus(visits: Callable[[], Any]) -> None:
    page = visits()
    assert page.locator("img:not([alt]), main img[alt='']").count() == 0
    seen = {}
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement == document.body"):
            break
        name, outline = page.evaluate(FOCUSED)
        seen[name] = outline
    named = {"Edit", "Prompt", "Student", "Picture", "Mesh", "number input for Turn left or right"}
    assert named | {"Or drop a picture of yours here, or click to choose one"} <= set(seen)
    assert [name for name, outline in seen.items() if outline != "solid 2px"] == []
    assert "" not in seen


FOCUSED = """() => { const it = document.activeElement, style = getComputedStyle(it);
  const name = it.ariaLabel || [...(it.labels ?? [])].map(each => each.innerText.trim()).join() || it.innerText.trim();
  return [name, `${style.outlineStyle} ${style.outlineWidth}`]; }"""


@pytest.mark.browser
@needs_browser
def test_datasets_are_browsed_by_style_split_and_score_and_the_rejected_have_reasons(page: Any) -> None:
    open_tab(page, "Browse")
    page.wait_for_selector("#browse-rows article")
    counted = "(text) => document.querySelector('#browse-count').innerText.includes(text)"
    page.wait_for_function(counted, arg="1 to 8 of 14")
    keep(page, "browse")
    page.click("#browse-next")
    page.wait_for_function(counted, arg="9 to 14 of 14")
    choose(page, "#browse-style", "clown")
    page.wait_for_function(counted, arg="of 7")
    choose(page, "#browse-split", "test")
    page.wait_for_function(counted, arg="of 2")
    choose(page, "#browse-split", "any")
    choose(page, "#browse-order", "identity")
    page.fill("#browse-low input", "0.18")
    page.press("#browse-low input", "Enter")
    page.wait_for_function(counted, arg="of 3")
    page.locator("#browse-which").get_by_label("Rejected").check()
    page.fill("#browse-low input", "")
    page.press("#browse-low input", "Enter")
    page.wait_for_selector("#browse-rows .reason")
    assert "identity 0.02 below 0.1" in page.inner_text("#browse-rows")
    assert "landmarks" not in page.inner_text("#browse-rows")  # of a portrait, which has no style
    keep(page, "browse-rejected")


@pytest.mark.browser
@needs_browser
def test_two_students_are_compared_on_the_same_portrait_and_prompt(page: Any) -> None:
    open_tab(page, "Compare")
    page.wait_for_selector("#sheet img")
    pictures = page.eval_on_selector_all("#sheet img", "all => all.map(each => each.src)")
    assert len(set(pictures)) == len(pictures) == 5
    becomes_another(page, "#sheet", lambda: page.press("#compare-yaw input[type=range]", "ArrowLeft"))
    turned = page.eval_on_selector_all("#sheet img", "all => all.map(each => each.src)")
    assert [a == b for a, b in zip(pictures, turned, strict=True)] == [True, True, True, False, False]
    keep(page, "compare")


def test_no_file_of_the_machine_can_be_read_through_the_page(server: Server) -> None:
    secret = server.root / "store" / "secret.txt"
    secret.write_text("secret")
    record = next(server.root.glob("datasets/*/manifest.json"))
    upload = web.post(f"{server.url}/gradio_api/upload", files={"files": ("a.png", b"mine")}).json()[0]
    known = web.get(f"{server.url}/gradio_api/file={upload}")
    assert (known.status_code, known.content) == (200, b"mine")
    inside = Path(upload).parents[1]
    for path in ("/etc/passwd", secret, record, f"{inside}/../../../store/secret.txt", PROJECT / "pyproject.toml"):
        for route in ("file=", "file/", "proxy=", "stream/", ""):
            answer = web.get(f"{server.url}/gradio_api/{route}{path}")
            assert answer.status_code in (403, 404), (route, path)
    for address in ("http://example.org/", "https://127.0.0.1/"):
        assert web.get(f"{server.url}/gradio_api/file={address}").status_code == 404
    config = web.get(f"{server.url}/config").json()
    drops = [each["id"] for each in config["components"] if each["type"] == "file"]
    handlers = [each["id"] for each in config["dependencies"] if each["inputs"][:1] == drops[:1]]
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    for handler in handlers:
        body = {"data": [given], "fn_index": handler, "session_hash": "stranger"}
        answer = web.post(f"{server.url}/gradio_api/run/predict", json=body)
        assert answer.status_code >= 400, answer.text
    assert handlers


def test_uploads_are_bounded(server: Server) -> None:
    from flows.page.doors import MAX_UPLOAD

    large = {"files": ("a.png", bytes(MAX_UPLOAD + 1))}
    assert web.post(f"{server.url}/gradio_api/upload", files=large).status_code == 413
    body = {"data": ["x" * (MAX_UPLOAD + 200_000)]}
    assert web.post(f"{server.url}/gradio_api/run/predict", json=body).status_code == 413


def test_nothing_is_written_outside_the_data_root_and_uploads_go_with_the_process(server: Server) -> None:
    """Last: it ends the server."""
    web.post(f"{server.url}/gradio_api/upload", files={"files": ("a.png", b"mine")})
    assert list(server.root.glob("page/run-*/files/*/a.png"))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(300)
    assert [path for folder in server.elsewhere for path in folder.rglob("*")] == []
    assert list(server.root.glob("page/run-*")) == []


def huge_png(side: int) -> bytes:
    """The beginning of a picture of side x side pixels: what it would take to decode stands in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
