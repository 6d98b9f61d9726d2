"""The student learns: what moves, what does not, and that a killed run continues as if nothing had happened."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, Settings
from data_catalog.store.fingerprint import digest_file
from models.camera import mirror_label
from models.pixels import signed, to_bytes
from models.precision import Precision
from models.three_d.student import EMBEDDED, Student
from tasks.distill import CURVE, SAMPLES_PICTURE, STAGE, Networks, distill, make_student, own_kinds
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.data import OWN_VIEW, Fields, Sampler, read_fields, read_samples
from tasks.training.looks import Looks
from tasks.training.loop import FIRST_LOSS, course_of, train
from tasks.training.mirroring import learned_samples
from tasks.training.processes import make_accelerator
from tasks.training.reading import image_tokens, text_tokens
from tasks.training.student_files import WEIGHTS, load_student
from tasks.training.trainer import Trainer
from tests.worlds import taught

SETTINGS = DistillSettings(
    iterations=6,
    triplane_iterations=2,
    batch_size=3,  # of eight samples: four steps end inside an epoch
    log_every=2,
    grid_every=3,
    checkpoint_every=2,
    image_prompt_fraction=0.5,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The sum of a parallel loop depends on how it was cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def distil_into(folder: str, root: Path, dataset: Path, networks: Networks, settings: DistillSettings) -> Path:
    work = taught.work_on("distill", root, dataset, Settings(distill=settings))
    work.folder = root / folder
    work.folder.mkdir(exist_ok=True)
    work.working = root / f"{folder}-working"
    distill(work, networks)
    return work.folder


@pytest.mark.parametrize(
    ("optimizer", "mirror", "encoders"),
    [("adamw", False, "frozen"), ("muon", True, "frozen"), ("adamw", False, "learn")],
)
def test_a_killed_run_continues_to_the_same_bits(
    root: Path,
    dataset: Path,
    networks: Networks,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
    mirror: bool,
    encoders: str,
) -> None:
    update = {"optimizer": optimizer, "mirror": mirror, "ema_decay": 0.5 * mirror, "prompt_encoder": encoders}
    settings, name = SETTINGS.model_copy(update=update), f"{optimizer}-{encoders}"
    whole = distil_into(f"whole-{name}", root, dataset, networks, settings)
    step = Trainer.step

    def die_in_the_fifth(self: Trainer, with_views: bool) -> dict[str, float]:
        if self.taken == 4:
            raise KeyboardInterrupt
        return step(self, with_views)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", die_in_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            distil_into(f"killed-{name}", root, dataset, networks, settings)
    working = root / f"killed-{name}-working"
    left = sorted(path.name for path in working.glob("checkpoint-*"))
    assert left == ["checkpoint-00000002.pt", "checkpoint-00000004.pt"]
    # Half a checkpoint, as a full disk leaves it: the one before is taken.
    (working / "checkpoint-00000005.pt").write_bytes(b"PK\x03\x04 not whole")
    continued = distil_into(f"killed-{name}", root, dataset, networks, settings)
    student, before = load_student(whole), networks.mae.encoder.state_dict()
    assert student.config.own_encoders == (("text", "image") if encoders == "learn" else ())
    if encoders == "learn":
        part = student.encoder.Ref_encoder
        for own, frozen in (
            (part.mae_encoder, before),
            (part.text_encoder, networks.clip.model.text_model.state_dict()),
        ):
            moved = {name for name, value in own.state_dict().items() if not torch.equal(value, frozen[name])}
            assert {name.partition(".")[0] for name in moved} >= {name.partition(".")[0] for name in frozen} - {
                "pos_embed"
            }
            assert "pos_embed" not in moved
    files = sorted(path.name for path in whole.iterdir())
    assert files == ["config.json", "curve.parquet", "samples.png", "student.safetensors", "training.json"]
    assert {name: digest_file(continued / name) for name in files} == {
        name: digest_file(whole / name) for name in files
    }


def test_the_student_is_the_moving_average_of_its_weights_where_one_is_wanted(
    root: Path, dataset: Path, networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"iterations": 3, "ema_decay": 0.75, "log_every": 3, "grid_every": 3}
    trainer = make_trainer(root, dataset, networks, SETTINGS.model_copy(update=update))
    weight = trainer.student.encoder.Final_encoder.net[0].weight
    seen: list[torch.Tensor] = []
    step = trainer.step

    def step_and_remember(with_views: bool) -> dict[str, object]:
        losses = step(with_views)
        seen.append(weight.detach().clone())
        return losses

    monkeypatch.setattr(trainer, "step", step_and_remember)
    looks = Looks(trainer.maker, networks.perceptual, trainer.learned)
    train(trainer, trainer.settings, tmp_path, looks.measure, looks.draw)
    first, second, third = seen
    wanted = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    torch.testing.assert_close(weight.detach(), wanted)
    assert not torch.allclose(wanted, third)


@pytest.mark.parametrize("with_views", [False, True])
@pytest.mark.parametrize("encoders", ["frozen", "learn"])
def test_micro_batches_have_the_losses_and_gradients_of_the_whole_batch(
    root: Path, dataset: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, encoders: str, with_views: bool
) -> None:
    update = {"batch_size": 5, "clip_norm": None, "view_lpips_weight": 1.0, "precision": "float32"}
    settings = SETTINGS.model_copy(update=update | {"prompt_encoder": encoders})
    losses, gradients = {}, {}
    for micro_batch, sizes in (("auto", [5]), (2, [2, 2, 1]), (1, [1] * 5)):
        trainer = make_trainer(root, dataset, networks, settings.model_copy(update={"micro_batch": micro_batch}))
        torch.nn.init.normal_(trainer.student.encoder.Ref_encoder.proj_tail.weight, std=0.02, generator=generator_of(1))
        made = mock.Mock(wraps=trainer.maker.make)
        monkeypatch.setattr(trainer.maker, "make", made)
        losses[micro_batch] = trainer.step(with_views)
        assert [len(range(5)[call.args[2]]) for call in made.call_args_list] == sizes
        gradients[micro_batch] = {name: p.grad for name, p in trainer.student.named_parameters() if p.grad is not None}
    for micro_batch in (2, 1):
        assert gradients[micro_batch].keys() == gradients["auto"].keys()
        for name, value in losses["auto"].items():
            assert float(losses[micro_batch][name]) == pytest.approx(float(value), rel=1e-5), name
        longest = max(float(each.norm()) for each in gradients["auto"].values())
        for name, whole in gradients["auto"].items():
            assert (gradients[micro_batch][name] - whole).norm() <= 1e-4 * whole.norm() + 1e-6 * longest, name


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gradients_are_cut_to_the_length_that_is_set(root: Path, dataset: Path, networks: Networks) -> None:
    lengths = {}
    for most in (None, 1e-3):
        trainer = make_trainer(root, dataset, networks, SETTINGS.model_copy(update={"clip_norm": most}))
        trainer.step(with_views=False)
        lengths[most] = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None]).norm()
    assert lengths[None] > 2e-3
    assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_checkpoints_more_or_less_often_do_not_change_the_student(
    root: Path, dataset: Path, networks: Networks
) -> None:
    often = SETTINGS.model_copy(update={"checkpoint_every": 1, "memory_mb": 0})
    first = distil_into("seldom", root, dataset, networks, SETTINGS)
    second = distil_into("often", root, dataset, networks, often)
    assert digest_file(first / WEIGHTS) == digest_file(second / WEIGHTS)
    partition = taught.work_on("distill", root, dataset, Settings()).partition
    assert STAGE.reads(Settings(distill=SETTINGS), partition) == STAGE.reads(Settings(distill=often), partition)


def test_every_training_sample_is_learned_mirrored_too_and_no_other(
    root: Path, dataset: Path, networks: Networks
) -> None:
    samples = read_samples(dataset, root)
    twice = Settings(distill=DistillSettings(mirror=True))
    once, both = (
        learned_samples(samples, networks.teacher, settings, root / "mirrors") for settings in (Settings(), twice)
    )
    assert once == [sample for sample in samples if sample.split == "train"]
    assert both[: len(once)] == once
    assert [sample.key for sample in both[len(once) :]] == [f"{sample.key}-mirrored" for sample in once]
    for sample, mirrored in zip(once, both[len(once) :], strict=True):
        assert (read_fields(mirrored).portrait == read_fields(sample).portrait[:, ::-1]).all()


def test_a_mirrored_sample_is_what_the_teacher_sees_in_a_mirror(root: Path, dataset: Path, networks: Networks) -> None:
    samples = read_samples(dataset, root)
    mirrored = learned_samples(samples, networks.teacher, Settings(distill=DistillSettings(mirror=True)), root / "two")
    for sample in mirrored[len(mirrored) // 2 :]:
        fields = read_fields(sample)
        alone = networks.teacher.encode(signed(fields.pseudo_label[None], "cpu"))
        torch.testing.assert_close(torch.from_numpy(fields.triplane)[None], alone, rtol=1e-2, atol=1e-2)  # stored fp16
        plain = next(each for each in samples if f"{each.key}-mirrored" == sample.key)
        stored = torch.from_numpy(read_fields(plain).triplane)[None]
        # The scene in a mirror: the triplane of the picture as it is, seen from the camera before it was mirrored.
        cameras = mirror_label(torch.from_numpy(np.concatenate([sample.camera[None], fields.view_cameras])))
        with torch.no_grad():
            seen = networks.teacher.render(stored.expand(len(cameras), -1, -1, -1), cameras.float())
        difference = np.abs(to_bytes(seen.image[1:])[:, :, ::-1].astype(int) - fields.views)
        assert difference.mean() < 1.0
        torch.testing.assert_close(seen.depth[:, 0].flip(-1), torch.from_numpy(fields.depths), rtol=1e-3, atol=1e-3)


def test_gradients_reach_exactly_the_prompt_encoder_and_the_triplane_transformer(
    root: Path, dataset: Path, networks: Networks
) -> None:
    trainer = make_trainer(root, dataset, networks, SETTINGS.model_copy(update={"batch_size": 4}))
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    trainer.student.train()
    for step in range(4):  # the zero-initialised last layer opens the way for the others
        take_step(trainer, with_views=step >= SETTINGS.triplane_iterations)
    moved = {name for name, value in trainer.student.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith(("encoder.Ref_encoder.", "encoder.Final_encoder.")) for name in moved)
    for part in ("Ref_encoder.project.text", "Ref_encoder.project.image", "Ref_encoder.pre_conv", "Final_encoder"):
        assert any(name.startswith(f"encoder.{part}") for name in moved), part


def test_each_part_learns_at_its_own_rate_with_muon_for_matrices_and_kernels(
    root: Path, dataset: Path, networks: Networks
) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": "muon", "lr": 4e-3, "lr_transformer": 1e-3})
    trainer = make_trainer(root, dataset, networks, settings)
    names = {parameter: name for name, parameter in trainer.student.named_parameters()}
    groups = trainer.optimizer.param_groups
    assert {names[p]: (group["initial_lr"], group["use_muon"]) for group in groups for p in group["params"]} == {
        names[p]: (4e-3 if "Ref_encoder" in names[p] else 1e-3, p.ndim > 1) for p in trainer.parameters
    }


def test_muon_moves_a_matrix_in_all_directions_alike_and_as_far_as_its_rate_says(
    root: Path, dataset: Path, networks: Networks
) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": "muon", "warmup": 0})
    trainer = make_trainer(root, dataset, networks, settings)
    kernel = trainer.student.encoder.Ref_encoder.patch_emb.proj.weight
    before, rows = kernel.detach().clone(), len(kernel)
    torch.manual_seed(0)
    directions = torch.linalg.svd(torch.randn(rows, kernel[0].numel()), full_matrices=False)
    kernel.grad = ((directions.U * torch.logspace(-1, 1, rows)) @ directions.Vh).view_as(kernel)
    trainer.optimizer.step()
    moved = (kernel.detach() - before).flatten(1) / settings.lr
    lengths = torch.linalg.svdvals(moved) / (0.2 * moved.shape[1] ** 0.5)  # as long as a step of AdamW's
    assert 0.5 < lengths.min() < lengths.max() < 1.5  # the gradient's are a hundred times apart


def test_the_student_overfits_one_batch(root: Path, dataset: Path, networks: Networks) -> None:
    update = {"iterations": 40, "batch_size": 4, "warmup": 10, "lr_end_fraction": 1.0, "image_prompt_fraction": 0.0}
    # An untrained teacher's triplane follows the smallest step wildly; this learns as fast as it bears.
    settings = SETTINGS.model_copy(update=update | {"lr": 5e-4, "lr_transformer": 2e-5, "triplane_iterations": 0})
    trainer = make_trainer(root, dataset, networks, settings)
    draw = trainer.sampler.draw(0, trainer.stored_views)
    trainer.sampler.draw = lambda step, stored: draw  # type: ignore[method-assign]
    trainer.student.train()
    losses = []
    for _ in range(settings.iterations):
        losses.append(take_step(trainer, with_views=True)["loss"])
    assert sum(losses[-4:]) < 0.75 * sum(losses[:4])


@pytest.mark.parametrize(
    ("precision", "capable", "kind"),
    [
        ("float32", True, torch.float32),
        ("auto", False, torch.float32),
        ("auto", True, torch.bfloat16),
        ("bfloat16", False, torch.bfloat16),
    ],
)
def test_the_student_learns_in_bfloat16_where_the_processor_computes_in_it(
    precision: Precision,
    capable: bool,
    kind: torch.dtype,
    root: Path,
    dataset: Path,
    networks: Networks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    update = {"precision": precision, "batch_size": 4}
    trainer = make_trainer(root, dataset, networks, SETTINGS.model_copy(update=update))
    kinds = set()
    convolution = next(
        part for part in trainer.student.encoder.Final_encoder.modules() if type(part) is torch.nn.Conv2d
    )
    convolution.register_forward_hook(lambda module, seen, made: kinds.add(made.dtype))
    for with_views in (False, True):
        losses = take_step(trainer, with_views)
        assert all(
            value.dtype == torch.float32 and value.isfinite() for value in losses.values() if torch.is_tensor(value)
        )
    assert kinds == {kind}
    assert all(weight.dtype == torch.float32 for weight in trainer.student.parameters())


def take_step(trainer: Trainer, with_views: bool) -> dict[str, torch.Tensor]:
    """Take a step, and one of its learning rate."""
    losses = trainer.step(with_views)
    trainer.schedule.step()
    return losses


def make_trainer(root: Path, dataset: Path, networks: Networks, settings: DistillSettings) -> Trainer:
    from accelerate import Accelerator

    samples = read_samples(dataset, root)
    prompts = Prompts(samples, networks.clip, networks.mae, own=own_kinds(Settings(distill=settings)))
    student = make_student(networks.teacher, prompts, Settings(distill=settings))
    learned = [sample for sample in samples if sample.split == "train"]
    maker = BatchMaker(student, networks.teacher, prompts, settings)
    return Trainer(maker, networks.perceptual, learned, settings, course_of(settings), Accelerator(cpu=True))


@pytest.mark.parametrize("target", ["teacher", "pseudo_label"])
def test_no_view_of_the_teacher_is_rendered_again(
    root: Path, dataset: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    settings = SETTINGS.model_copy(update={"l2d_target": target, "mirror": True, "memory_mb": 0})
    rendered = mock.Mock(wraps=networks.teacher.render)
    monkeypatch.setattr(networks.teacher, "render", rendered)
    distil_into(f"stored-{target}", root, dataset, networks, settings)
    assert not rendered.called
    sample = read_samples(dataset, root)[0]
    trainer = make_trainer(root, dataset, networks, settings)
    without = Fields({name: array for name, array in read_fields(sample).arrays.items() if name not in OWN_VIEW})
    again, stored = (trainer.maker.teacher_view(sample, fields) for fields in (without, read_fields(sample)))
    assert rendered.call_count == 1  # made before the view was stored
    torch.testing.assert_close(stored, again.clamp(-1, 1), atol=0.02, rtol=0)


def test_encoders_that_learn_start_as_the_frozen_ones_and_in_their_place(
    root: Path, dataset: Path, networks: Networks
) -> None:
    samples = read_samples(dataset, root)
    draw = Sampler(samples, 4, 0.5, 1, seed=0).draw(1, 2)
    tokens = {}
    for encoders in ("frozen", "learn"):
        settings = SETTINGS.model_copy(update={"prompt_encoder": encoders})
        trainer = make_trainer(root, dataset, networks, settings)
        groups = trainer.maker.make(samples, draw).prompts
        tokens[encoders] = {group.kind: trainer.student.read(group.prompts, group.kind) for group in groups}
        if encoders == "learn":
            assert {group.kind: group.prompts.shape[1:] for group in groups} == {"text": (2, 16), "image": (3, 64, 64)}
            text = text_tokens(trainer.student, networks.clip, [samples[0].prompt])
            torch.testing.assert_close(text, networks.clip.text_tokens([samples[0].prompt]))
            picture = read_fields(samples[0]).pseudo_label[None].copy()
            image = image_tokens(trainer.student, None, picture)
            torch.testing.assert_close(image, networks.mae.tokens(picture))
    assert set(tokens["learn"]) == {"text", "image"}
    for kind, found in tokens["learn"].items():
        assert found.requires_grad
        torch.testing.assert_close(found.detach(), tokens["frozen"][kind])


def test_encoders_that_learn_have_the_rate_of_what_starts_trained(
    root: Path, dataset: Path, networks: Networks
) -> None:
    settings = SETTINGS.model_copy(update={"prompt_encoder": "learn", "lr": 1e-3, "lr_transformer": 1e-4})
    trainer = make_trainer(root, dataset, networks, settings)
    rates = {id(p): group["initial_lr"] for group in trainer.schedule.optimizer.param_groups for p in group["params"]}
    part = trainer.student.encoder.Ref_encoder
    for rate, module in ((1e-3, part.pre_conv), (1e-4, part.mae_encoder.blocks), (1e-4, part.text_encoder)):
        assert {rates[id(p)] for p in module.parameters()} == {rate}
    assert len(rates) == len(trainer.parameters)


def test_ddp_looks_for_unused_parameters_only_where_a_step_may_leave_some(networks: Networks) -> None:
    paper = dataclasses.replace(EMBEDDED, text_token_size=256, image_token_size=256)
    students = [Student.from_teacher(networks.teacher, config) for config in (EMBEDDED, paper)]
    assert [make_accelerator(Settings(), student).ddp_handler.find_unused_parameters for student in students] == [
        True,  # the projection of one kind of prompt
        False,
    ]


def test_a_new_student_is_its_teacher(networks: Networks, root: Path, dataset: Path) -> None:
    trainer = make_trainer(root, dataset, networks, SETTINGS)
    portrait = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(trainer.student.encode(portrait, tokens, "text"), networks.teacher.encode(portrait))


def test_what_is_saved_loads_as_the_same_student(root: Path, dataset: Path, networks: Networks) -> None:
    folder = distil_into("saved", root, dataset, networks, SETTINGS)
    student = load_student(folder)
    assert not student.training
    assert student.config.text_token_size == 32
    curve = pq.read_table(folder / CURVE).to_pylist()
    assert [row["step"] for row in curve] == [2, 3, 4, 6]
    assert [row["val_l1"] is not None for row in curve] == [False, True, False, True]
    assert (folder / SAMPLES_PICTURE).stat().st_size > 1000
    with pytest.raises(UserError, match="no student here"):
        load_student(root)


def test_progress_is_told_while_it_trains(root: Path, dataset: Path, networks: Networks) -> None:
    from tasks.progress import Progress, listening

    heard: list[Progress] = []
    with listening(heard.append):
        settings = SETTINGS.model_copy(update={"triplane_iterations": 3})
        distil_into("heard", root, dataset, networks, settings)
    assert [message.step for message in heard] == [2, 3, 4, 6]
    assert all(message.total == 6 for message in heard)
    losses = [{"loss", FIRST_LOSS} & {*message.metrics} for message in heard]
    first = settings.triplane_iterations
    assert losses == [{FIRST_LOSS} if message.step <= first else {"loss"} for message in heard]
    assert [message.until for message in heard] == [3, None, None, None]
    assert ["samples" in message.pictures for message in heard] == [False, True, False, True]


def test_looks_compare_with_the_teachers_view_whatever_l2d_compares_with(
    root: Path, dataset: Path, networks: Networks
) -> None:
    looks = []
    for target in ("teacher", "pseudo_label"):
        trainer = make_trainer(root, dataset, networks, SETTINGS.model_copy(update={"l2d_target": target}))
        looks.append(Looks(trainer.maker, networks.perceptual, trainer.learned).measure())
    assert looks[0] == looks[1]
