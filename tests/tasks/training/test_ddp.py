"""Several processes that share the batches of a training make the student that one makes."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, RunSettings, Settings
from data_catalog.store.stage import Work
from models.zoo import zoo
from tasks import distill
from tasks.progress import Progress, listening
from tasks.training.processes import count_processes
from tasks.training.reading import PromptReader
from tests.worlds import taught

LEARNING = DistillSettings(
    precision="float32",  # two processes round otherwise than one, in bfloat16 by more
    iterations=4,
    triplane_iterations=1,
    batch_size=4,
    log_every=1,
    grid_every=4,
    checkpoint_every=2,
    image_prompt_fraction=0.5,
    mirror=True,
    warmup=0,
)


@pytest.fixture(scope="module")
def dataset(root: Path) -> Path:
    return taught.write_dataset(root, zoo.load("teacher", "embedded"))


def work_of(processes: int, root: Path, dataset: Path, **update: object) -> Work:
    settings = Settings(distill=LEARNING.model_copy(update=update), run=RunSettings(training_processes=processes))
    work = taught.work_on("distill", root, dataset, settings)
    name = f"by-{processes}-{settings.distill.prompt_encoder}"
    work.folder, work.working = root / name, root / f"{name}-working"
    work.folder.mkdir(exist_ok=True)
    return work


@pytest.mark.parametrize(("encoders", "micro_batch"), [("frozen", "auto"), ("learn", 1)])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(
    root: Path, dataset: Path, encoders: str, micro_batch: object
) -> None:
    torch.set_num_threads(1)
    alone = work_of(1, root, dataset, prompt_encoder=encoders)
    together = work_of(2, root, dataset, prompt_encoder=encoders, micro_batch=micro_batch)
    distill.run(alone)
    heard: list[Progress] = []
    with listening(heard.append):
        summary = distill.run(together)
    assert [message.step for message in heard] == [1, 2, 3, 4]  # of the first process, heard in this one
    assert summary.samples == 8

    curves = [pq.read_table(work.folder / distill.CURVE).to_pylist() for work in (alone, together)]
    for one, two in zip(*curves, strict=True):
        for name in ("loss", "loss_triplane", "loss_2d", "loss_view", "loss_depth"):
            assert one[name] == (None if two[name] is None else pytest.approx(two[name], rel=1e-3)), (one["step"], name)
    # Without the other's gradients, the first process would have learned from half of each batch.
    prompts = SimpleNamespace(reader=PromptReader(zoo.load("clip", "embedded"), zoo.load("mae", "embedded")))
    before = distill.make_student(zoo.load("teacher", "embedded"), prompts, alone.settings).state_dict()
    students = [load_file(work.folder / "student.safetensors") for work in (alone, together)]
    for name, value in students[0].items():
        moved = (value - before[name]).norm()
        assert (value - students[1][name]).norm() <= 0.02 * moved + 1e-6 * value.norm(), name


def test_a_batch_that_cannot_be_shared_evenly_is_a_mistake(root: Path, dataset: Path) -> None:
    with pytest.raises(UserError, match="cannot be shared evenly"):
        distill.run(work_of(3, root, dataset))


def test_the_number_of_processes_is_in_no_fingerprint(root: Path, dataset: Path) -> None:
    one, two = work_of(1, root, dataset), work_of(2, root, dataset)
    assert distill.STAGE.reads(one.settings, one.partition) == distill.STAGE.reads(two.settings, two.partition)


@pytest.mark.parametrize(
    ("gpus", "device", "batch", "processes"),
    [
        (8, "cuda", 32, 8),
        (8, "cuda", 12, 6),
        (3, "cuda", 32, 2),
        (0, "cuda", 32, 1),
        (8, "cuda:1", 32, 1),
        (8, "cpu", 32, 1),
    ],
)
def test_every_visible_gpu_trains_that_shares_a_batch_evenly(
    monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, batch: int, processes: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    settings = Settings(distill=DistillSettings(batch_size=batch), run=RunSettings(device=device))
    assert count_processes(settings) == processes
    fixed = settings.model_copy(update={"run": RunSettings(device=device, training_processes=4)})
    assert count_processes(fixed) == 4
