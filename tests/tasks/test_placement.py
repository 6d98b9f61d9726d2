"""Every tensor of a GPU's work is on the GPU: a training step, a block of teach, an edit and an evaluation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog.config.settings import DistillSettings, EditSettings, EvaluateSettings, RunSettings, Settings
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import MaeEncoder
from tasks import teach
from tasks.distill import Networks, make_student, own_kinds
from tasks.edit import plan_edits
from tasks.evaluate import training_poses
from tasks.evaluation.methods import Evaluation, Models
from tasks.evaluation.metrics import Judges
from tasks.evaluation.stopwatch import time_all
from tasks.tables.faces import Face
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.data import read_samples
from tasks.training.looks import Looks
from tasks.training.loop import course_of
from tasks.training.trainer import Trainer
from tests.models.test_editor import OLD_NUMPY
from tests.worlds import chain, taught
from tests.worlds.imitated import DEVICE, WrongPlaceError, imitated_gpu
from tests.worlds.tiny import noise_picture, tiny_clip, tiny_editor

RUN = RunSettings().model_copy(update={"device": DEVICE})  # which no user may name


def networks_there() -> Networks:
    """Networks of a training on the imitated GPU."""
    made = taught.untrained_networks()
    made.mae.encoder.to(DEVICE)
    return replace(
        made, teacher=made.teacher.to(DEVICE), perceptual=made.perceptual.to(DEVICE), clip=made.clip.to(DEVICE)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data root and the folder of a dataset below it."""
    root = tmp_path_factory.mktemp("data")
    return root, taught.write_dataset(root, taught.untrained_teacher())


@pytest.mark.parametrize(
    ("encoders", "teacher", "target"),
    [
        ("learn", "cached", "pseudo_label"),
        ("frozen", "cached", "teacher"),
        ("learn", "rendered", "teacher"),
        ("frozen", "online", "pseudo_label"),
    ],
)
def test_a_training_step(data: tuple[Path, Path], encoders: str, teacher: str, target: str) -> None:
    from accelerate import Accelerator

    root, dataset = data
    own = DistillSettings.model_validate(
        {
            **{"prompt_encoder": encoders, "teacher": teacher, "l2d_target": target, "precision": "float32"},
            **{"batch_size": 4, "micro_batch": 3, "image_prompt_fraction": 0.5, "patch_rays": None},
            **{"changed_weight": 1.0, "ema_decay": 0.5, "view_lpips_weight": 1.0},
        }
    )
    settings = Settings(distill=own, run=RUN)
    networks, samples = networks_there(), read_samples(dataset, root)
    learned = [sample for sample in samples if sample.split == "train"]
    with imitated_gpu():
        prompts = Prompts(samples, networks.clip, networks.mae, DEVICE, own_kinds(settings))
        student = make_student(networks.teacher, prompts, settings)
        maker = BatchMaker(student, networks.teacher, prompts, own, DEVICE)
        accelerator = Accelerator(cpu=True, device_placement=False)
        trainer = Trainer(maker, networks.perceptual, learned, own, course_of(own), accelerator)
        for with_views in (False, True):
            losses = trainer.step(with_views)
            trainer.schedule.step()
        trainer.take_average()
        looks = Looks(maker, networks.perceptual, learned[:2])
        looks.measure()
    assert {value.device.type for name, value in losses.items() if name != "lr"} == {DEVICE}
    assert {p.device.type for p in student.parameters()} == {DEVICE}
    assert all(p.grad.device.type == DEVICE for p in trainer.parameters if p.grad is not None)


def test_a_block_of_teach(tmp_path: Path) -> None:
    made = chain.write_chain(tmp_path)
    identity = Recogniser(IdentityNet().eval().to(DEVICE))
    lpips = Perceptual.untrained().eval().to(DEVICE)
    teachers = teach.Teachers(taught.untrained_teacher().to(DEVICE), identity, lpips)
    work = made.work(teach.STAGE, "zombie", 1)
    work.settings = work.settings.model_copy(update={"run": RUN})
    with imitated_gpu():
        assert teach.teach(work, teachers).samples > 0


@OLD_NUMPY
def test_an_edit(tmp_path: Path) -> None:
    editor = tiny_editor(tiny_clip())
    editor.pipeline.to(DEVICE)
    book = {"style": "zombie", "train": [{"number": 0, "text": "a zombie"}], "test": [{"number": 8, "text": "undead"}]}
    edits = plan_edits([Face(portrait_id="p0000000000", split="train")], book, EditSettings())
    for scheduler in (None, "euler_a", "dpmpp"):
        with imitated_gpu():
            edited = editor.edit(
                noise_picture(0)[None], [each.prompt for each in edits], [3], 2, 7.5, 1.5, scheduler=scheduler
            )
        assert edited.shape == (1, 64, 64, 3)


@OLD_NUMPY
@pytest.mark.parametrize("encoders", ["learn", "frozen"])
def test_an_evaluation(data: tuple[Path, Path], encoders: str) -> None:
    root, dataset = data
    settings = Settings(
        run=RUN,
        distill=DistillSettings.model_validate({"prompt_encoder": encoders}),
        edit=EditSettings(steps=1),
        evaluate=EvaluateSettings(timing_repeats=0, novel_views=2),
    )
    networks, samples = networks_there(), read_samples(dataset, root)
    tested = [sample for sample in samples if sample.split == "test"][:1]
    references = {tested[0].key: next(each for each in samples if each.style == tested[0].style)}
    editor = tiny_editor(tiny_clip())
    editor.pipeline.to(DEVICE)
    with imitated_gpu():
        prompts = Prompts(samples, networks.clip, networks.mae, DEVICE, own_kinds(settings))
        student = make_student(networks.teacher, prompts, settings).eval()
        judges = Judges(Recogniser(IdentityNet().eval().to(DEVICE)), networks.clip, networks.perceptual)
        models = Models(student, networks.teacher, editor, networks.clip, networks.mae, judges)
        learned = {tested[0].style: ["as learned"]}
        rows = Evaluation(models, settings, references, learned, training_poses(samples)).measure_all(tested)
        seconds = time_all(models, tested[0], settings)
    assert len(rows) >= 5
    assert all(value >= 0 for value in seconds.values())


def weights_left_behind() -> object:
    return torch.nn.functional.linear(torch.zeros(2, 3, device=DEVICE), torch.zeros(4, 3))


def picture_left_behind() -> object:
    return MaeEncoder(mae.EMBEDDED).to(DEVICE)(torch.zeros(1, 3, 64, 64))


def answer_left_behind() -> object:
    return torch.where(torch.zeros(3, device=DEVICE) > 0, torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize("mistake", [weights_left_behind, picture_left_behind, answer_left_behind])
def test_a_tensor_that_was_left_on_the_cpu_is_found(mistake: Callable[[], object]) -> None:
    with imitated_gpu(), pytest.raises(WrongPlaceError, match="met tensors on cpu and meta"):
        mistake()


def test_what_comes_back_from_the_imitated_gpu_is_zeros() -> None:
    with imitated_gpu():
        there = torch.ones(2, 3, device=DEVICE)
        assert float(there.sum()) == 0.0
        assert np.array_equal(there.cpu().numpy(), np.zeros((2, 3)))
        assert torch.rand(2, generator=torch.Generator(DEVICE).manual_seed(3), device=DEVICE).shape == (2,)
        assert torch.rand(2, generator=torch.Generator().manual_seed(3)).equal(
            torch.rand(2, generator=torch.Generator("cpu").manual_seed(3))
        )
