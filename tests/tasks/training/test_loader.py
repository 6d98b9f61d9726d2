"""Reads of a training: equal from memory, ahead and on demand; damage is found before the start; sources of views."""

import json
import os
import shutil
import threading
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog.care.mend import mend_indexes
from data_catalog.care.verify import verify
from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, Settings, TeachSettings
from data_catalog.samples import shard_index
from data_catalog.samples.encoding import decode_array, decode_rgb, dequantise_triplane
from data_catalog.samples.shards import read_sample, scan_shard
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from models.camera import split_label
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import Mae, MaeEncoder
from tasks.distill import make_student, reads
from tasks.processes import free_port
from tasks.training.batches import Batch, BatchMaker, Prompts, triplane_on
from tasks.training.data import Fields, Sampler, SampleRef, check_stored, read_fields, read_samples
from tasks.training.loader import Loader, Wanted
from tests.worlds import taught
from tests.worlds.tiny import tiny_clip

LOOKED_AT = Wanted(pseudo_label=False, triplane=True, views=True)
PAPER_FORM = TeachSettings(views=3, triplane="q8", view_format="jpg")


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return taught.untrained_teacher()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, teacher: torch.nn.Module) -> Path:
    folder = tmp_path_factory.mktemp("data")
    taught.write_dataset(folder, teacher, PAPER_FORM)
    return folder


def samples_of(root: Path) -> list[SampleRef]:
    (dataset,) = (root / "store" / "dataset" / "all").iterdir()
    return read_samples(dataset, root)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A data root to damage."""
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data"


def test_the_fields_are_those_that_were_written(root: Path) -> None:
    sample = samples_of(root)[2]
    stored, fields = read_sample(sample.shard, sample.entry), read_fields(sample)
    assert set(fields.arrays) == set(stored) - {"meta.json"}
    np.testing.assert_array_equal(fields.portrait, decode_rgb(stored["portrait.png"]))
    np.testing.assert_array_equal(fields.view(1), decode_rgb(stored["view_01.jpg"]))
    np.testing.assert_array_equal(fields.depths, decode_array(stored["depths.npy"]))
    assert fields.views.shape == (3, 64, 64, 3)


def test_a_triplane_made_on_the_device_has_the_bits_of_the_codec(root: Path) -> None:
    fields = read_fields(samples_of(root)[0])
    exact = dequantise_triplane(fields.arrays["triplane_q8.npy"], fields.arrays["triplane_q8_tiles.npy"])
    found = triplane_on(fields, "cpu")
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), exact)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory_mb", [0, 1, 64])
def test_a_step_gets_the_same_from_memory_ahead_and_now(root: Path, threads: int, memory_mb: int) -> None:
    samples = samples_of(root)
    loader = Loader(LOOKED_AT, memory_mb, threads=threads)
    steps = [([samples[i], samples[j]], [(i % 3,), (j % 3,)]) for i, j in ((0, 5), (3, 3), (5, 0), (7, 1))]
    for number, (chosen, views) in enumerate(steps):
        if number != 2:  # one step was not asked for before
            loader.read_ahead(chosen, views)
    for chosen, views in steps:
        for sample, drawn, fields in zip(chosen, views, loader.take(chosen, views), strict=True):
            whole = read_fields(sample)
            assert {f"view_{drawn[0]:02d}.jpg", "portrait.png", "depths.npy"} <= set(fields.arrays)
            for name, array in fields.arrays.items():
                np.testing.assert_array_equal(array, whole.arrays[name])
    loader.close()


def test_only_the_views_that_were_drawn_are_read_and_buffers_are_used_again(root: Path) -> None:
    samples = samples_of(root)
    loader = Loader(LOOKED_AT, 0, threads=2)
    for step in range(20):
        chosen = [samples[step % 8], samples[(step + 3) % 8]]
        loader.read_ahead(chosen, [(1,), (2,)])
        first, second = loader.take(chosen, [(1,), (2,)])
        assert [name for name in first.arrays if name.endswith(".jpg")] == ["view_01.jpg"]
        assert [name for name in second.arrays if name.endswith(".jpg")] == ["view_02.jpg"]
    assert loader.buffers.made <= 4
    (without,) = loader.take([samples[0]], None)
    assert set(without.arrays) == {"portrait.png", "triplane_q8.npy", "triplane_q8_tiles.npy"}
    loader.close()


def test_reads_that_no_step_takes_give_their_buffers_back(root: Path) -> None:
    samples = samples_of(root)
    loader = Loader(LOOKED_AT, 0, threads=2)
    for _ in range(5):  # as a training does that begins to compare views
        loader.read_ahead(samples[:2], None)
        wait([read for reads in loader._under_way.values() for read in reads])  # or they would only be cancelled
        loader.forget()
        first, _ = loader.take(samples[:2], [(0,), (1,)])
        np.testing.assert_array_equal(first.view(0), read_fields(samples[0]).view(0))
    assert loader.buffers.made <= 6  # a leak would make two more each time
    loader.close()


def test_what_is_read_ahead_is_read_on_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, seen = samples_of(root), []
    monkeypatch.setattr(
        "tasks.training.loader.read_fields",
        lambda *given: seen.append(threading.current_thread().name) or read_fields(*given),
    )
    loader = Loader(LOOKED_AT, 0, threads=2)
    loader.read_ahead(samples[:2], [(0,), (1,)])
    loader.take(samples[:2], [(0,), (1,)])
    assert len(seen) == 2
    assert all(name.startswith("loader") for name in seen)
    loader.close()


def test_an_epoch_is_a_shuffle_over_shards_and_within_that_any_step_can_enter(root: Path) -> None:
    samples = [sample for sample in samples_of(root) if sample.split == "train"]
    whole = [Sampler(samples, 3, 0.5, 1, seed=7).draw(step, 3) for step in range(16)]
    middle = Sampler(samples, 3, 0.5, 1, seed=7)
    assert [middle.draw(step, 3) for step in (13, 4, 9)] == [whole[13], whole[4], whole[9]]
    shards = [samples[i].style for draw in whole[:2] for i in draw.samples]
    assert len({tuple(shards[i : i + 2]) for i in range(5)}) > 1, "samples of one shard come in a row"
    for processes in (1, 3):
        shares = [[draw.samples[slice(rank, None, processes)] for draw in whole] for rank in range(processes)]
        assert {len(part) for share in shares for part in share} == {3 // processes}
        drawn = [index for step in range(8) for share in shares for index in share[step]]
        assert sorted(drawn) == sorted(list(range(8)) * 3)


def damage(problem: str, shard: Path) -> None:
    entries = scan_shard(shard)
    index = shard.parent / shard_index.INDEX
    if problem == "truncated":
        os.truncate(shard, shard.stat().st_size - 10240)
    elif problem == "gone":
        shard.unlink()
    elif problem == "member gone":
        content = bytearray(shard.read_bytes())
        offset, _ = entries[3].fields["depths.npy"]
        content[offset - 512 : offset - 506] = b"x" * 6
        shard.write_bytes(content)
    elif problem == "index of another":
        index.write_bytes(shard_index.index_bytes(entries[:2]))
    elif problem == "index shifted":
        shutil.copyfile(shard.parents[3] / "red-hair" / "0000" / shard.parent.name / index.name, index)
    else:
        index.write_bytes(b"PAR1 not a table")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("truncated", "bytes, by its index"),
        ("gone", "gone"),
        ("member gone", "depths.npy is where it is not"),
        ("index of another", "does not know"),
        ("index shifted", "does not know"),
        ("index unreadable", "cannot be read"),
    ],
)
def test_damage_is_found_before_training_with_one_message(copy: Path, problem: str, said: str) -> None:
    samples = samples_of(copy)
    check_stored(samples)
    damage(problem, samples[0].shard)
    with pytest.raises(UserError, match="the dataset is damaged") as met:
        check_stored(samples)
    assert said in met.value.fields["problem"]
    assert met.value.fields["shard"] == str(samples[0].shard)
    assert "stillroom repair" in (met.value.hint or "")


def test_an_index_that_is_gone_is_made_again_from_the_headers(copy: Path) -> None:
    samples = samples_of(copy)
    index = samples[0].shard.parent / shard_index.INDEX
    before = index.read_bytes()
    index.unlink()
    assert [sample.entry for sample in samples_of(copy)] == [sample.entry for sample in samples]
    assert index.read_bytes() == before


@pytest.fixture(scope="module")
def makers(root: Path, teacher: torch.nn.Module) -> dict[str, BatchMaker]:
    torch.manual_seed(0)
    samples = samples_of(root)
    prompts = Prompts(samples, tiny_clip(), Mae(MaeEncoder(mae.EMBEDDED)))
    student = make_student(teacher, prompts, Settings())
    kinds = ("cached", "rendered", "online")
    return {k: BatchMaker(student, teacher, prompts, DistillSettings.model_validate({"teacher": k})) for k in kinds}


def batch(maker: BatchMaker, samples: list[SampleRef], step: int, share: slice = slice(None)) -> Batch:
    return maker.make(samples, Sampler(samples, 4, 0.0, 1, seed=0).draw(step, 3), share)


def test_new_views_are_the_teachers_from_cameras_that_change_each_step(
    root: Path, makers: dict[str, BatchMaker]
) -> None:
    samples = samples_of(root)
    stored, rendered, online = (batch(makers[kind], samples, 0) for kind in ("cached", "rendered", "online"))
    assert rendered.triplane.equal(stored.triplane)
    assert not online.triplane.equal(stored.triplane)  # which has 8 bits a value
    error = (online.triplane - stored.triplane).norm() / online.triplane.norm()
    assert error < 0.02
    for new in (rendered, online):
        assert new.cameras.shape == stored.cameras.shape == (2, 4, 25)
        assert new.cameras[0].equal(stored.cameras[0])
        with torch.no_grad():
            seen = makers["online"].teacher.render(new.triplane, new.cameras[1])
        torch.testing.assert_close(new.targets[1].image, seen.image)
        torch.testing.assert_close(new.targets[1].depth, seen.depth)
    torch.testing.assert_close(rendered.targets[0].image, stored.targets[0].image, atol=2e-3, rtol=0)
    yaw, pitch = angles(online.cameras[1])
    assert (yaw.abs() <= 0.6).all()
    assert (pitch.abs() <= 0.25).all()
    assert len(set(yaw.tolist())) == 4
    assert batch(makers["online"], samples, 0).cameras.equal(online.cameras)
    assert not batch(makers["online"], samples, 1).cameras.equal(online.cameras)
    assert batch(makers["online"], samples, 0, slice(1, None, 2)).cameras.equal(online.cameras[:, 1::2])
    assert (online.cameras[1, :, 16:] == online.cameras[1, :1, 16:]).all()
    varied = DistillSettings(teacher="online", view_fov_range=2.4, view_center_range=0.1)
    plain = makers["online"]
    cameras = batch(BatchMaker(plain.student, plain.teacher, plain.prompts, varied), samples, 0).cameras[1]
    assert cameras[:, :16].equal(online.cameras[1, :, :16])
    assert all(len(set(cameras[:, place].tolist())) == 4 for place in (16, 18, 21))
    assert ((cameras[:, [18, 21]] - 0.5).abs() <= 0.1).all()


def angles(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    position = split_label(labels)[0][:, :3, 3]
    return torch.atan2(position[:, 0], position[:, 2]), torch.asin(position[:, 1] / 2.7)


def test_the_ranges_of_new_cameras_count_only_where_cameras_are_drawn() -> None:
    partition = Partition("distill")
    plain, wide = Settings(), Settings(distill=DistillSettings(view_yaw_range=0.9))
    assert reads(plain, partition) == reads(wide, partition)
    assert "teacher" not in reads(plain, partition)
    online = DistillSettings(teacher="online")
    assert reads(Settings(distill=online), partition)["view_yaw_range"] == 0.6


def test_repair_makes_an_index_again_without_computing_anything(copy: Path) -> None:
    (shard,) = {sample.shard for sample in samples_of(copy) if sample.style == "clown"}
    store, partition = Store(copy), Partition("teach", "clown", 0)
    inputs = {"stage": "teach"}
    temporary = store.begin(partition, digest_json(inputs))
    for name in ("shard.tar", shard_index.INDEX):
        shutil.copyfile(shard.parent / name, temporary / name)
    record = Record(
        partition=partition.key,
        stage="teach",
        version=1,
        fingerprint=digest_json(inputs),
        fingerprint_inputs=inputs,
        digest="",
        files={},
    )
    folder = store.folder_of(store.commit(temporary, record))
    index = folder / shard_index.INDEX
    before = index.read_bytes()
    index.write_bytes(b"PAR1 not a table")
    (damage,) = [damage for damage in verify(copy).damaged if damage.folder == str(folder)]
    assert damage.file == shard_index.INDEX
    assert mend_indexes([damage]) == ["teach/clown/0000"]
    assert index.read_bytes() == before
    damaged_too = replace(damage, file="shard.tar")
    assert mend_indexes([damage, damaged_too]) == [], "a damaged shard says nothing about its index"


def read_a_share(rank: int, port: int, root: Path) -> None:
    """Write the keys that one of two processes reads in two epochs, as JSON."""
    (root / f"read-{rank}.json").write_text(json.dumps(keys_of_a_share(rank, port, root)))
    # Only now: a process group whose last owner is a model's reducer may wait for itself for ever.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def keys_of_a_share(rank: int, port: int, root: Path) -> list[list[str]]:
    """By step, the keys that one of two processes reads."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from tasks.training.batches import BatchMaker
    from tasks.training.loop import course_of
    from tasks.training.trainer import Trainer

    torch.set_num_threads(1)
    samples, teacher = samples_of(root), taught.untrained_teacher()
    torch.manual_seed(0)
    prompts = Prompts(samples, tiny_clip(), Mae(MaeEncoder(mae.EMBEDDED)))
    settings = DistillSettings(batch_size=4, iterations=4, triplane_iterations=2, memory_mb=0)
    student = make_student(teacher, prompts, Settings(distill=settings))
    learned = [sample for sample in samples if sample.split == "train"]
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[unused])
    assert accelerator.num_processes == 2
    perceptual = Perceptual.untrained().eval()
    maker = BatchMaker(student, teacher, prompts, settings)
    trainer = Trainer(maker, perceptual, learned, settings, course_of(settings), accelerator)
    read: list[list[str]] = []
    take = trainer.maker.loader.take

    def remember(chosen: list[SampleRef], views: object) -> list[Fields]:
        read.append([sample.key for sample in chosen])
        return take(chosen, views)  # type: ignore[arg-type]

    trainer.maker.loader.take = remember  # type: ignore[method-assign]
    for step in range(4):
        trainer.step(with_views=step >= settings.triplane_iterations)
    return read


def test_two_processes_read_what_the_other_does_not_and_together_each_epoch_once(copy: Path) -> None:
    torch.multiprocessing.spawn(read_a_share, (free_port(), copy), nprocs=2)
    first, second = (json.loads((copy / f"read-{rank}.json").read_text()) for rank in range(2))
    assert [len(keys) for keys in first + second] == [2] * 8
    learned = sorted(sample.key for sample in samples_of(copy) if sample.split == "train")
    for epoch in (slice(0, 2), slice(2, 4)):
        assert sorted(key for keys in first[epoch] + second[epoch] for key in keys) == learned
