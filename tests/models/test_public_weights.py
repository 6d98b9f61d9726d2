"""Public checkpoints: read without running them, checked key by key, every fault said in words, converted once."""

import argparse
import copyreg
import dataclasses
import io
import os
import pickle
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import checkpoints
from models.checkpoints import CONVERTED, SUMS, WeightsError, read_checkpoint
from models.three_d import mae
from models.three_d.live3d import EMBEDDED as LT
from models.three_d.live3d import Live3D
from models.three_d.student import StudentConfig
from models.zoo import public
from models.zoo.random_weights import write_alexnet, write_identity

NORMAL = dataclasses.replace(LT, encoder=dataclasses.replace(LT.encoder, low_blocks=5))
TINY_MAE = mae.MaeConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2)


def parts_of(network: torch.nn.Module) -> dict[str, Any]:
    """Return a checkpoint as Live3D and 3DPE save it."""
    encoder, renderer = network.get_submodule("encoder"), network.get_submodule("renderer")
    return {"encoder_state_dict": encoder.state_dict(), "renderer_state_dict": renderer.state_dict(), "step": 90000}


@pytest.fixture
def teacher() -> Live3D:
    torch.manual_seed(0)
    return Live3D(LT).eval()


@pytest.fixture
def saved(teacher: Live3D, tmp_path: Path) -> Path:
    torch.save(parts_of(teacher), tmp_path / "encoder_render.pt")
    return tmp_path / "encoder_render.pt"


def load(path: Path) -> Live3D:
    return public.load_live3d(path, LT, NORMAL)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_public_file_becomes_the_network_that_was_saved(saved: Path, teacher: Live3D) -> None:
    loaded = load(saved)
    assert same(loaded, teacher)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded.encode(torch.zeros(1, 3, 64, 64)), teacher.encode(torch.zeros(1, 3, 64, 64)))


@pytest.mark.parametrize("config", [LT, NORMAL], ids=["lt", "normal"])
def test_the_variant_is_told_from_the_keys(config: Any, tmp_path: Path) -> None:
    torch.save(parts_of(Live3D(config)), tmp_path / "file.pt")
    assert load(tmp_path / "file.pt").config == config


def test_weights_of_parallel_training_lose_their_prefix(teacher: Live3D, tmp_path: Path) -> None:
    content = parts_of(teacher)
    content["encoder_state_dict"] = {f"module.{key}": value for key, value in content["encoder_state_dict"].items()}
    torch.save(content, tmp_path / "parallel.pt")
    assert same(load(tmp_path / "parallel.pt"), teacher)


def test_it_is_converted_once_beside_the_sums_of_both_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(saved)
    converted, sums = saved.with_name(saved.name + CONVERTED), saved.with_name(saved.name + SUMS)
    checked = subprocess.run(["sha256sum", "--check", sums.name], cwd=saved.parent, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout.count("OK")) == (0, 2)
    assert converted.stat().st_mode == saved.stat().st_mode
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was read again"))
        assert same(load(saved), first)


@pytest.mark.parametrize("what", ["the file", "its conversion"])
def test_a_changed_file_is_converted_anew(what: str, saved: Path) -> None:
    before = load(saved)
    if what == "the file":
        torch.manual_seed(1)
        torch.save(parts_of(Live3D(LT)), saved)
        assert not same(load(saved), before)
        return
    converted = saved.with_name(saved.name + CONVERTED)
    data = bytearray(converted.read_bytes())
    data[-1] ^= 1
    converted.write_bytes(data)
    assert same(load(saved), before)
    assert converted.read_bytes() != data


def test_a_folder_that_cannot_be_written_keeps_nothing(
    saved: Path, teacher: Live3D, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)  # root may write anywhere, so the disk itself has to refuse
    assert same(load(saved), teacher)
    assert "Read-only file system" in caplog.text
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name]


class EasyDict(dict[str, Any]):
    """Dictionary with attributes, like dnnlib's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.fixture
def dnnlib() -> Iterator[type]:
    """The class under the name it has in the public file; gone when it is read, as for most users."""
    module = types.ModuleType("dnnlib.util")
    kept = EasyDict.__module__
    EasyDict.__module__ = "dnnlib.util"
    module.EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules.update({"dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": module})
    yield EasyDict
    EasyDict.__module__ = kept
    for name in ("dnnlib", "dnnlib.util"):
        sys.modules.pop(name, None)


def test_dictionaries_with_attributes_and_options_are_read_as_plain_values(dnnlib: type, tmp_path: Path) -> None:
    content = {
        "G": {"a": torch.ones(2)},
        "G_init_kwargs": dnnlib(rendering_kwargs=dnnlib(depth_resolution=48), z_dim=512),
        "opts": argparse.Namespace(lr=5e-5),
        "best_val_loss": np.float64(0.25),
        "step": 7,
    }
    torch.save(content, tmp_path / "eg3d.pth")
    del sys.modules["dnnlib"], sys.modules["dnnlib.util"]
    read = read_checkpoint(tmp_path / "eg3d.pth")
    assert type(read["G_init_kwargs"]) is dict
    assert read["G_init_kwargs"] == {"rendering_kwargs": {"depth_resolution": 48}, "z_dim": 512}
    assert (read["step"], read["opts"].lr) == (7, 5e-5)


class Malicious:
    """Makes a file when it is unpickled, by whatever function it is given."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.call, self.arguments)


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
@pytest.mark.parametrize("call", [os.system, eval, copyreg.add_extension, Path.touch], ids=lambda call: call.__name__)
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    call: Callable[..., Any], form: str, teacher: Live3D, tmp_path: Path
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "encoder_render.pt"
    arguments = {"system": (f"touch {mark}",), "eval": (f"open({str(mark)!r}, 'w')",), "touch": (mark,)}
    content = parts_of(teacher) | {"opts": Malicious(call, *arguments.get(call.__name__, ("a", "b", 1)))}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"opts": content["opts"]}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="is refused: reading it would call ") as error:
        load(path)
    assert "take the file from its publisher again" in str(error.value)
    assert not mark.exists()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_stand_in_cannot_be_used_to_reach_further(tmp_path: Path) -> None:
    """A hand-written pickle that sets an attribute of a class that is allowed, and one that calls a method of it."""
    for name in ("argparse\nNamespace", "dnnlib.util\nEasyDict"):
        module, attribute = name.split("\n")
        program = f"\x80\x02c{module}\n{attribute}.__init__.__globals__\nq\x00.".encode("latin1")
        (tmp_path / "odd.pt").write_bytes(program)
        with pytest.raises(WeightsError, match=r"is refused|is damaged"):
            read_checkpoint(tmp_path / "odd.pt")


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "is empty"),
        (truncated, "is damaged or no checkpoint"),
        (lambda data: b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning", "is a web page, not weights"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "is a Git LFS pointer"),
        (lambda data: b"\x89PNG\r\n\x1a\n" + bytes(100), "is damaged or no checkpoint"),
        (lambda data: pickle.dumps([1, 2], protocol=2), "is damaged or no checkpoint"),
    ],
    ids=["empty", "truncated", "web page", "lfs", "png", "a pickled list"],
)
def test_a_file_that_is_no_checkpoint_is_said_to_be_what_it_is(
    spoil: Callable[[bytes], bytes], message: str, saved: Path
) -> None:
    saved.write_bytes(spoil(saved.read_bytes()))
    with pytest.raises(WeightsError, match=message) as error:
        load(saved)
    assert f"file      {saved}" in str(error.value)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no file"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match="is a folder"):
        load(tmp_path)


def test_a_checkpoint_that_is_no_dictionary_is_said(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"list\.pt is not a checkpoint") as error:
        load(tmp_path / "list.pt")
    assert "found     a list" in str(error.value)


def test_a_state_dict_that_is_not_there_is_named_with_what_is(saved: Path, tmp_path: Path) -> None:
    torch.save({"G": {}, "D": {}}, tmp_path / "eg3d.pth")
    with pytest.raises(WeightsError, match="no state dict 'encoder_state_dict'; it holds G, D"):
        load(tmp_path / "eg3d.pth")


def test_missing_unexpected_and_misshapen_keys_are_named(teacher: Live3D, tmp_path: Path) -> None:
    content = parts_of(teacher)
    encoder = dict(content["encoder_state_dict"])
    first, second, *_ = encoder
    encoder["surplus.weight"] = encoder.pop(first)
    encoder[second] = torch.zeros(3, 1)
    torch.save(content | {"encoder_state_dict": encoder}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"odd\.pt does not hold Live3D \(LT\)") as error:
        load(tmp_path / "odd.pt")
    told = str(error.value)
    assert f"missing   encoder.{first}" in told
    assert "unexpected encoder.surplus.weight" in told
    assert f"shapes    encoder.{second} (3, 1) for" in told
    assert not (tmp_path / f"odd.pt{CONVERTED}").exists()


def test_a_network_of_another_kind_is_named_shortly(teacher: Live3D, tmp_path: Path) -> None:
    torch.save(
        parts_of(torch.nn.ModuleDict({"encoder": torch.nn.Linear(1, 1), "renderer": teacher.renderer})),
        tmp_path / "x.pt",
    )
    with pytest.raises(WeightsError, match=r"unexpected encoder\.weight, encoder\.bias") as error:
        load(tmp_path / "x.pt")
    assert " more" in str(error.value)
    assert len(str(error.value)) < 1000


def test_numbers_that_are_not_finite_are_refused(teacher: Live3D, tmp_path: Path) -> None:
    with torch.no_grad():
        teacher.renderer.const[0, 0, 0] = float("nan")
    torch.save(parts_of(teacher), tmp_path / "nan.pt")
    with pytest.raises(WeightsError, match=r"not finite[\s\S]*renderer\.const"):
        load(tmp_path / "nan.pt")


def test_a_safetensors_file_is_taken_as_it_is(saved: Path, teacher: Live3D, tmp_path: Path) -> None:
    load(saved)
    other = tmp_path / "moved.safetensors"
    saved.with_name(saved.name + CONVERTED).rename(other)
    assert same(load(other), teacher)
    other.write_bytes(other.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is damaged"):
        load(other)


def test_a_public_student_keeps_what_may_learn(tmp_path: Path) -> None:
    config = StudentConfig(
        live3d=LT, pre_channels=32, query_size=16, query_kernel=3, text_token_size=16, image_token_size=16, mae=TINY_MAE
    )
    torch.manual_seed(0)
    student = public.Student(config)
    torch.save(parts_of(student), tmp_path / "3dpe.pt")
    loaded = public.load_student(tmp_path / "3dpe.pt", config)
    assert same(loaded, student)
    learning = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in learning} == {"Ref_encoder", "Final_encoder"}


def test_an_mae_is_read_with_or_without_its_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = mae.MaeEncoder(TINY_MAE)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    tokens = mae.Mae(encoder).tokens(pictures)
    for extra in ({}, {"decoder_embed.weight": torch.ones(2, 2), "mask_token": torch.ones(1, 1, 2)}):
        torch.save({"model": encoder.state_dict() | extra}, tmp_path / "mae.pth")
        assert torch.equal(public.load_mae(tmp_path / "mae.pth", TINY_MAE).tokens(pictures), tokens)


@pytest.mark.parametrize("name", ["identity", "lpips"])
def test_the_papers_judges_are_read_once_and_strictly(name: str, tmp_path: Path) -> None:
    write, load, more, lost = {
        "identity": (
            write_identity,
            public.load_arcface,
            "input_layer.1.num_batches_tracked",
            "body.0.res_layer.2.weight",
        ),
        "lpips": (write_alexnet, public.load_lpips, "classifier.1.weight", "features.8.bias"),
    }[name]
    path = tmp_path / "judge.pth"
    write(path, torch.Generator().manual_seed(0))
    state = torch.load(path, weights_only=True)
    torch.save(state | {more: torch.zeros(())}, path)
    first = load(path)
    sums = path.with_name(path.name + SUMS).read_text()
    assert path.with_name(path.name + CONVERTED).name in sums
    assert same(load(path), first)
    assert not any(parameter.requires_grad for parameter in first.parameters())
    torch.save({key: value for key, value in state.items() if key != lost}, path)
    with pytest.raises(WeightsError, match=rf"missing +{re.escape(lost)}"):
        load(path)


def test_reading_leaves_no_door_open_behind_it(saved: Path) -> None:
    load(saved)
    assert checkpoints.STAND_INS[0] not in torch.serialization.get_safe_globals()
    buffer = io.BytesIO()
    torch.save({"opts": argparse.Namespace(lr=1)}, buffer)
    buffer.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(buffer, weights_only=True)
