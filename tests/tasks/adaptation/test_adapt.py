"""Adapting a student: what learns and what does not, how a budget ends it, and what its delta gives back."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_catalog.config.errors import UserError
from data_catalog.config.settings import AdaptSettings, Settings
from data_catalog.products.students import ADAPTED, DELTA
from data_catalog.store.fingerprint import digest_file
from data_catalog.store.stage import Input, Partition, Work
from flows.run.adaptation import adapt_shape
from models.pixels import signed, to_bytes
from models.three_d.adaptation import adaptable_parameters, apply_delta, learn_only_adaptable
from models.three_d.student import Student
from tasks.adaptation import adapt
from tasks.adaptation.exam import Exam, gain_interval
from tasks.adaptation.pairs import choose_pairs, copy_sample, read_pairs, write_pairs
from tasks.distill import Networks, make_student
from tasks.pictures.sheets import GAP_PX
from tasks.tables.samples import SAMPLE_ROWS, SampleRow
from tasks.training.data import read_fields, read_samples
from tasks.training.mirroring import mirror
from tasks.training.reading import image_tokens, text_tokens
from tasks.training.student_files import load_student, save_student
from tasks.training.trainer import Trainer
from tests.worlds import taught

NOVEL = "clown"  # of the two styles of the dataset; the other one is what the base knows
SETTINGS = Settings(
    adapt=AdaptSettings(
        pairs=3,
        held_out=1,
        seconds=3.0,
        looks_s=(1.0,),
        triplane_share=0.3,
        batch_size=2,
        rehearsals=1,
        old_samples=1,
        warmup=0,
    )
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> Path:
    """A data root with a dataset, a student that knows nothing yet, and the pairs of a style."""
    folder = tmp_path_factory.mktemp("data")
    dataset = taught.write_dataset(folder, networks.teacher)
    (folder / "base").mkdir()
    save_student(base_student(folder, dataset, networks), folder / "base")
    rows = [row for row in SAMPLE_ROWS.read(dataset) if row.style == NOVEL]
    chosen = sorted(choose_pairs(rows, SETTINGS), key=lambda row: row.key)
    (folder / "pairs").mkdir()
    write_pairs(folder / "pairs", (copy_sample(row, folder) for row in chosen), chosen)
    return folder


def base_student(root: Path, dataset: Path, networks: Networks, settings: Settings = SETTINGS) -> Student:
    from tasks.training.batches import Prompts

    prompts = Prompts(read_samples(dataset, root), networks.clip, networks.mae)
    student = make_student(networks.teacher, prompts, settings)
    torch.manual_seed(1)
    torch.nn.init.normal_(student.encoder.Ref_encoder.proj_tail.weight, std=0.02)  # prompts are felt
    return student


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The sum of a parallel loop depends on how it was cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ticking() -> Callable[[], float]:
    """A clock by which every step takes a second."""
    times = iter(range(10_000))
    return lambda: float(next(times))


def work_in(name: str, root: Path, settings: Settings = SETTINGS) -> Work:
    work = taught.work_on("adapt", root, next((root / "store" / "dataset" / "all").iterdir()), settings)
    record = work.input("dataset").record
    for stage, folder in (("pairs", "pairs"), ("distill", "base")):
        work.inputs[stage] = [Input(Partition(stage), root / folder, "b" * 64, record)]
    work.partition, work.folder, work.working = Partition("adapt", NOVEL), root / name, root / f"{name}-working"
    work.folder.mkdir(exist_ok=True)
    return work


def adapt_into(name: str, root: Path, networks: Networks, settings: Settings = SETTINGS) -> Path:
    work = work_in(name, root, settings)
    adapt.adapt(work, networks, ticking())
    return work.folder


@pytest.fixture(scope="module")
def adapted(root: Path, networks: Networks) -> Path:
    return adapt_into("adapted", root, networks)


def test_exactly_the_prompt_encoder_and_the_normalisation_layers_of_e_t_learn(
    root: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_student(root / "base").state_dict()
    after: dict[str, torch.Tensor] = {}
    write = adapt.write_products

    def keep(work: Work, student: Student, *rest: object) -> object:
        after.update(student.state_dict())
        return write(work, student, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(adapt, "write_products", keep)
    longer = SETTINGS.model_copy(update={"distill": SETTINGS.distill.model_copy(update={"image_prompt_fraction": 1.0})})
    delta = load_file(adapt_into("watched", root, networks, longer) / DELTA)
    moved = {name for name, value in base.items() if not torch.equal(value, after[name])}
    e_p = {name for name in base if name.startswith("encoder.Ref_encoder.")}
    norms = {name for name in base if name.startswith("encoder.Final_encoder.") and "norm" in name}
    assert len(norms) == 8  # of the patches, before attention and MLP, of keys and values: weight and bias each
    assert set(delta) == e_p | norms
    assert moved == e_p | norms


def test_encoders_of_e_p_s_own_learn_a_style_too_and_the_delta_carries_them(root: Path, networks: Networks) -> None:
    dataset = next((root / "store" / "dataset" / "all").iterdir())
    learn = SETTINGS.model_copy(
        update={
            "distill": SETTINGS.distill.model_copy(update={"prompt_encoder": "learn", "image_prompt_fraction": 1.0})
        }
    )
    folder = root / "with-encoders"
    folder.mkdir()
    save_student(base_student(root, dataset, networks, learn), folder)
    work = work_in("learned-encoders", root, learn)
    work.inputs["distill"] = [Input(Partition("distill"), folder, "b" * 64, work.input("dataset").record)]
    adapt.adapt(work, networks, ticking())
    delta, base = load_file(work.folder / DELTA), load_student(folder)
    own = {name for name in base.state_dict() if ".mae_encoder." in name or ".text_encoder." in name}
    assert own - set(delta) == {"encoder.Ref_encoder.mae_encoder.pos_embed"}
    moved = {name for name in own & set(delta) if not torch.equal(delta[name], base.state_dict()[name])}
    for part in ("mae_encoder.blocks", "mae_encoder.patch_embed", "text_encoder.encoder", "text_encoder.embeddings"):
        assert any(f".{part}." in name for name in moved), part
    adapted = apply_delta(load_student(folder), delta)
    prompt, picture = ["make it a clown"], np.full((1, 64, 64, 3), 90, np.uint8)
    assert not text_tokens(adapted, networks.clip, prompt).allclose(text_tokens(base, networks.clip, prompt))
    assert not image_tokens(adapted, None, picture).allclose(image_tokens(base, None, picture))


def test_nothing_else_has_a_gradient(root: Path) -> None:
    student = learn_only_adaptable(load_student(root / "base"))
    assert {name for name, p in student.named_parameters() if p.requires_grad} == set(adaptable_parameters(student))


def test_a_delta_put_into_its_base_is_the_adapted_student(root: Path, adapted: Path) -> None:
    delta = load_file(adapted / DELTA)
    again = apply_delta(load_student(root / "base"), delta)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in delta.items())
    images, tokens = torch.rand(1, 3, 64, 64) * 2 - 1, torch.rand(1, 4, again.config.text_token_size)
    with torch.no_grad():
        before, after = (s.encode(images, tokens, "text") for s in (load_student(root / "base"), again))
    assert not torch.equal(before, after)
    assert (adapted / DELTA).stat().st_size < 0.5 * (root / "base" / "student.safetensors").stat().st_size


def test_a_delta_of_another_student_is_refused(root: Path, adapted: Path, networks: Networks) -> None:
    base = load_student(root / "base")
    with pytest.raises(ValueError, match="other sizes"):
        apply_delta(base, dict(list(load_file(adapted / DELTA).items())[1:]))
    other = Student(dataclasses.replace(base.config, pre_channels=base.config.pre_channels + 8))
    with pytest.raises(ValueError, match="other sizes"):
        apply_delta(other, load_file(adapted / DELTA))


def test_the_clock_ends_it_and_looks_are_where_they_were_asked_for(adapted: Path) -> None:
    document = json.loads((adapted / ADAPTED).read_text(encoding="utf-8"))
    assert [point["seconds"] for point in document["curve"]] == [0.0, 1.0, 3.0]
    steps = pq.read_table(adapted / adapt.CURVE).to_pydict()["step"]
    assert steps == [0, 1, 3]
    assert document["student"] == "b" * 64
    assert (document["style"], len(document["pairs"]), document["held_out"]) == (NOVEL, 3, 1)
    assert document["lpips_to"] == "true styled head"
    assert set(document["old_styles"]) == {"red-hair"}


def test_the_gain_comes_with_its_interval_and_with_what_the_teachers_reach(adapted: Path, root: Path) -> None:
    before, after = np.array([2.0, 1.0, 3.0]), np.array([1.0, 0.5, 1.5])
    assert gain_interval(before, after) == pytest.approx((0.5, 0.5))  # every portrait gains as much
    low, high = gain_interval(before, np.array([0.2, 0.9, 2.9]))
    assert low < 1 - 4.0 / 6.0 < high
    found = adapt.Findings([{"seconds": 3.0, "lpips": 1.0, "step": 3}], before, after, 0.5)
    metrics = adapt.headline(found)
    assert (metrics["gain"], metrics["gain_possible"], metrics["lpips_teachers"]) == (0.5, 0.75, 0.5)


def test_triplanes_have_their_share_of_the_seconds_and_then_views_are_compared(adapted: Path) -> None:
    curve = pq.read_table(adapted / adapt.CURVE).to_pylist()
    first, last = curve[1], curve[-1]  # the first second of three; the other two
    assert first["loss_triplane"] is not None
    assert first["loss_view"] is None
    assert last["loss_view"] is not None


def test_what_the_teachers_reach_is_the_teacher_s_view_of_the_pseudo_label(root: Path, networks: Networks) -> None:
    _, held_out = read_pairs(root / "pairs")
    exam = Exam(held_out, networks.clip, networks.perceptual, SETTINGS)
    (lifted,), fields = exam.lifted(networks.teacher), read_fields(held_out[0])
    with torch.no_grad():
        seen = networks.teacher.render(
            networks.teacher.encode(signed(fields.pseudo_label[None])), torch.from_numpy(held_out[0].camera)[None]
        )
    assert np.array_equal(lifted, to_bytes(seen.image)[0])
    assert exam.judge([exam.questions[0].answer])[0] == 0.0


def test_the_sheet_shows_the_held_out_edits_at_each_look_on_the_way(adapted: Path) -> None:
    """Three seconds, a look after one: portrait, answer, the unadapted student's edit, at 1 s and at 3 s."""
    working = adapted.parent / f"{adapted.name}-working"
    seen = [np.load(working / adapt.look_name(second)) for second in (0.0, 1.0, 3.0)]
    assert len({picture.tobytes() for picture in seen}) == 3
    sheet, whole = (np.asarray(Image.open(adapted / name)) for name in (adapt.LOOKS, adapt.PICTURE))
    side = 64 * 2 + GAP_PX
    assert sheet.shape[1] == 5 * side - GAP_PX
    below = sheet[sheet.shape[0] - whole.shape[0] :]
    for place, pictures in enumerate(seen, start=2):
        shown = below[: 64 * 2 : 2, place * side : place * side + 64 * 2 : 2]
        assert np.array_equal(shown, pictures[0]), place
    assert (sheet[: sheet.shape[0] - whole.shape[0]] < 128).any()  # the times are written above them


def test_a_step_that_outlasts_several_looks_leaves_a_row_for_each(root: Path, networks: Networks) -> None:
    own = SETTINGS.adapt.model_copy(update={"seconds": 1.0, "looks_s": (0.2, 0.4), "rehearsals": 0})
    folder = adapt_into("coarse", root, networks, SETTINGS.model_copy(update={"adapt": own}))
    curve = json.loads((folder / ADAPTED).read_text(encoding="utf-8"))["curve"]
    assert [point["seconds"] for point in curve] == [0.0, 1.0, 1.0, 1.0]
    assert len({point["lpips"] for point in curve}) == 2


def test_a_killed_run_goes_on_to_the_same_bits_and_its_time_counts(
    root: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, adapted: Path
) -> None:
    step = Trainer.step

    def die_in_the_third(self: Trainer, with_views: bool) -> dict[str, float]:
        if self.taken == 2:
            raise KeyboardInterrupt
        return step(self, with_views)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", die_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            adapt_into("killed", root, networks)
    again = adapt_into("killed", root, networks)
    for name in (DELTA, ADAPTED, adapt.CURVE, adapt.PICTURE, adapt.LOOKS):
        assert digest_file(again / name) == digest_file(adapted / name), name


def test_rehearsal_keeps_an_old_style_nearer_to_what_it_was(root: Path, networks: Networks) -> None:
    """The base's own edits are the targets, so that its losses on them start at zero."""
    from tasks.adaptation.rehearsal import rehearse

    learned, _ = read_pairs(root / "pairs")
    old = [s for s in read_samples(next((root / "store/dataset/all").iterdir()), root) if s.style != NOVEL]
    base = load_student(root / "base")
    samples = rehearse(base, learned, old, networks, SETTINGS, root / "rehearsed")
    assert {sample.style for sample in samples} == {"red-hair"}
    assert {sample.portrait_id for sample in samples} == {pair.portrait_id for pair in learned}
    assert {sample.prompt for sample in samples} <= {s.prompt for s in old if s.prompt_split == "train"}
    exactly = SETTINGS.model_copy(update={"distill": SETTINGS.distill.model_copy(update={"precision": "float32"})})
    course = adapt.course_of(SETTINGS)
    trainer = adapt.make_trainer(learn_only_adaptable(base), networks, (), samples, exactly, course)
    assert trainer.step(with_views=False)["loss_triplane"] < 1e-3  # half precision of what is stored
    trainer = adapt.make_trainer(base, networks, learned, (), SETTINGS, course)
    assert trainer.step(with_views=False)["loss_triplane"] > 1e-2
    met = adapt.make_trainer(base, networks, learned, samples * 4, SETTINGS, course).learned
    assert sum(sample.style == NOVEL for sample in met) == len(met) / 2  # pairs, however many edits are rehearsed


def test_mirrored_pairs_are_lifted_by_the_teacher_and_mirrored_again_they_are_the_pairs(
    root: Path, networks: Networks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    learned, _ = read_pairs(root / "pairs")
    mirrored = mirror(learned, networks.teacher, SETTINGS, root / "mirrored-once")
    again = mirror(mirrored, networks.teacher, SETTINGS, root / "mirrored-twice")
    assert len(mirrored) == len(learned) == len({sample.portrait_id for sample in mirrored})
    assert "was made again" not in caplog.text  # the shard's index was written with it
    for pair, once, twice in zip(learned, mirrored, again, strict=True):
        own, turned, back = (read_fields(sample) for sample in (pair, once, twice))
        assert (turned.pseudo_label == own.pseudo_label[:, ::-1]).all()
        assert (back.portrait == own.portrait).all()
        assert np.allclose(twice.camera, pair.camera)
        assert np.allclose(back.view_cameras, own.view_cameras)
        with torch.no_grad():
            lifted = networks.teacher.encode(signed(turned.pseudo_label[None].copy()))[0]
        assert turned.triplane is not None
        assert np.allclose(
            turned.triplane, lifted, atol=2e-3 * float(lifted.abs().max())
        )  # it is stored in half precision


def test_mirrored_pairs_are_learned_from_unless_that_is_switched_off(root: Path, networks: Networks) -> None:
    plain = SETTINGS.model_copy(update={"adapt": SETTINGS.adapt.model_copy(update={"mirror": False})})
    adapt_into("mirrors", root, networks)
    adapt_into("no-mirrors", root, networks, plain)
    assert (root / "mirrors-working" / "mirrored").is_dir()
    assert not (root / "no-mirrors-working" / "mirrored").exists()
    deltas = [digest_file(root / name / DELTA) for name in ("mirrors", "no-mirrors")]
    assert deltas[0] != deltas[1]


def test_every_pair_meets_every_wording_its_own_first_and_stays_the_pair_it_is(root: Path) -> None:
    learned, _ = read_pairs(root / "pairs")
    pairs = [dataclasses.replace(pair, prompt=f"bald {n}") for n, pair in enumerate(learned)]
    assert adapt.reword(pairs, 1) == pairs
    samples = adapt.reword(pairs, len(pairs))
    assert {(sample.key, sample.prompt) for sample in samples} == {(a.key, b.prompt) for a in pairs for b in pairs}
    assert len(samples) == len(pairs) ** 2


def test_old_styles_are_measured_on_many_people_by_few_samples_of_each(root: Path) -> None:
    known = read_samples(next((root / "store/dataset/all").iterdir()), root)
    tested = [
        dataclasses.replace(known[0], key=f"{style}-{person}", style=style, portrait_id=str(person), split=split)
        for style in ("clown", "neon", "red-hair")
        for split, people in (("train", (8, 9)), ("test", range(5)))
        for person in people
    ]

    def chosen(old_samples: int) -> list[str]:
        own = SETTINGS.adapt.model_copy(update={"old_samples": old_samples})
        return [sample.key for sample in adapt.choose_old(tested, SETTINGS.model_copy(update={"adapt": own}))]

    assert chosen(2) == ["clown-0", "clown-1", "neon-2", "neon-3", "red-hair-0", "red-hair-4"]
    assert chosen(9) == [sample.key for sample in tested if sample.split == "test"]


def test_more_pairs_of_a_seed_hold_the_fewer_and_another_seed_draws_others() -> None:
    empty = SampleRow(
        key="t",
        style=NOVEL,
        prompt="",
        prompt_number=0,
        prompt_split="test",
        portrait_id="p",
        split="test",
        shard="",
        camera=[],
        seed=0,
    )
    rows = [*(dataclasses.replace(empty, key=f"k{n:02d}", split="train") for n in range(30)), empty]

    def chosen(pairs: int, seed: int) -> set[str]:
        own = AdaptSettings(pairs=pairs, seed=seed, held_out=4)
        return {row.key for row in choose_pairs(rows, Settings(adapt=own))}

    assert chosen(5, 0) < chosen(10, 0)
    assert len(chosen(10, 0)) == 11
    assert chosen(10, 0) != chosen(10, 1)
    with pytest.raises(UserError, match="too few pairs"):
        choose_pairs(rows[:5], Settings())


def test_only_as_many_portraits_are_edited_as_the_pairs_need() -> None:
    demo = Settings.model_validate({"portraits": {"count": 56, "block_size": 14}})
    shapes = [adapt_shape(NOVEL, pairs=pairs)(demo) for pairs in (10, 200)]
    assert [shape.blocks for shape in shapes] == [[0, 1], [0, 1, 2, 3]]
    assert [shape.styles for shape in shapes] == [[NOVEL], [NOVEL]]
