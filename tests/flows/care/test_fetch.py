"""Fetching of published weights, from a server on loopback."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_catalog.config.errors import UserError
from data_catalog.workspace import Workspace
from flows.care.fetch import download, fetch_models
from models.zoo import zoo

CONTENT = bytes(range(256)) * 4096


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT. `/cut` breaks off in the middle of a first request, `/whole` knows no ranges."""

    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = 0 if wanted is None or self.path == "/whole" else int(re.findall(r"\d+", wanted)[0])
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) // 2 if self.path == "/cut" and not start else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Handler.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_broke_off_goes_on_from_there(address: str, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "net.pth"
    with pytest.raises(UserError, match="goes on from there"):
        download(f"{address}/cut", file)
    assert not file.exists()
    assert download(f"{address}/cut", file) == sha256(CONTENT).hexdigest()
    assert file.read_bytes() == CONTENT
    assert Handler.asked == [None, f"bytes={len(CONTENT) // 2}-"]
    assert list(file.parent.iterdir()) == [file]


def test_a_server_without_ranges_sends_it_all_again_and_a_whole_part_is_not_sent_again(
    address: str, tmp_path: Path
) -> None:
    for path, part in (("/whole", CONTENT[:100]), ("/net.pth", CONTENT)):
        file = tmp_path / f"net{len(part)}.pth"
        file.with_name(f"{file.name}.part").write_bytes(part)
        download(f"{address}{path}", file)
        assert file.read_bytes() == CONTENT


def test_what_is_not_the_described_file_is_refused_and_deleted(address: str, tmp_path: Path) -> None:
    right = sha256(CONTENT).hexdigest()
    download(f"{address}/net.pth", tmp_path / "right.pth", right[:8])
    with pytest.raises(UserError, match="is not the file"):
        download(f"{address}/net.pth", tmp_path / "wrong.pth", "0" * 8)
    assert [file.name for file in tmp_path.iterdir()] == ["right.pth"]


def test_each_model_is_fetched_or_says_where_it_is_from(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "models.yaml"
    entries = {
        "mae": {"path": None, "url": f"{address}/mae.pth", "get": "the MAE", "licence": "X"},
        "teacher": {"path": None, "get": "Live3D's file"},
        "lpips": {"path": None, "url": "http://127.0.0.1:9/alexnet.pth", "get": "AlexNet"},
    }
    registry.write_text(yaml.safe_dump({"paper": entries}))
    monkeypatch.setenv("STILLROOM_MODELS", str(registry))
    monkeypatch.setattr(zoo, "FETCHED", tmp_path / "fetched")
    workspace = Workspace.open("paper", [])
    before = {row["name"]: row["state"] for row in zoo.describe("paper")}
    assert before == {"mae": "missing", "teacher": "missing", "lpips": "missing"}
    found = {row["model"]: row for row in fetch_models([], workspace)["models"]}
    assert {name: row["state"] for name, row in found.items()} == {
        "mae": "ready", "teacher": "by hand", "lpips": "failed"
    }  # fmt: skip
    assert found["teacher"]["get"] == "Live3D's file (models.yaml, paper.teacher.path)"
    assert "http://127.0.0.1:9/alexnet.pth cannot be fetched" in found["lpips"]["get"]
    after = {row["name"]: row for row in zoo.describe("paper")}
    assert (after["mae"]["state"], after["mae"]["bytes"]) == ("ready", len(CONTENT))
    assert after["mae"]["digest"] == zoo.digest("mae", "paper")
    Handler.asked.clear()
    assert fetch_models(["mae"], workspace)["models"][0]["state"] == "ready"
    assert Handler.asked == []
    with pytest.raises(UserError, match="no model 'vae'"):
        fetch_models(["vae"], workspace)


def test_a_hub_out_of_reach_is_a_message_and_its_weights_are_not_called_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no weights can be fetched: huggingface\.co cannot be reached") as caught:
        fetch_models(["clip", "teacher"], Workspace.open("paper", []))
    assert caught.value.fields == {"cause": "HF_HUB_OFFLINE is set", "models": "clip"}
    states = {each["name"]: each["state"] for each in zoo.describe("paper")}
    assert states["clip"] == "not fetched"
    assert fetch_models(["teacher"], Workspace.open("paper", []))["models"][0]["state"] == "by hand"


def test_a_snapshot_that_is_not_whole_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, revision = "me/pipeline", "a" * 40
    snapshot, blobs = (tmp_path / "models--me--pipeline" / name for name in (f"snapshots/{revision}", "blobs"))
    blobs.mkdir(parents=True)

    def write(name: str, content: str = "{}") -> None:
        blob, link = blobs / name.replace("/", "-"), snapshot / name
        blob.write_text(content)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)

    assert zoo.hub_folder(repository, revision) is None
    write(
        "model_index.json", json.dumps({"_class_name": "P", "unet": ["d", "U"], "vae": ["d", "V"], "x": [None, None]})
    )
    write("unet/config.json")
    write("unet/diffusion_pytorch_model.safetensors")
    assert zoo.hub_folder(repository, revision) is None, "there is no vae yet"
    write("vae/config.json")
    assert zoo.hub_folder(repository, revision) is None, "its weights are missing"
    write("vae/diffusion_pytorch_model.safetensors")
    assert zoo.hub_folder(repository, revision) == snapshot
    assert zoo.hub_folder(repository, "b" * 40) is None
    (blobs / "unet-diffusion_pytorch_model.safetensors").unlink()
    assert zoo.hub_folder(repository, revision) is None, "a link that leads nowhere"
