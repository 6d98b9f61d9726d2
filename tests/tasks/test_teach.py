import io
import json
import re
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data_catalog.config.settings import TeachSettings
from data_catalog.samples.encoding import decode_array, decode_rgb, dequantise_triplane
from data_catalog.samples.keys import KEY
from data_catalog.samples.shards import entries_from_table, read_sample
from data_catalog.store.fingerprint import digest_file
from data_catalog.store.record import FileEntry, Record
from data_catalog.store.stage import Input, Summary, Work
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.three_d.live3d import Live3D
from tasks import teach
from tasks.teach import (
    Teachers,
    decode_triplane,
    draw_view_cameras,
    encode_lesson,
    storing_errors,
    teach_sample,
)
from tests.worlds.chain import Chain, shared_chain, write_chain
from tests.worlds.reading import read_shard
from tests.worlds.taught import untrained_teacher


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return shared_chain(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def teachers() -> Teachers:
    torch.manual_seed(0)
    return Teachers(untrained_teacher(), Recogniser(IdentityNet().eval()), Perceptual.untrained().eval())


def shards(chain: Chain) -> list[Path]:
    return [chain.folder(key) / "shard.tar" for key in sorted(chain.made) if key.startswith("teach/")]


def test_a_shard_holds_exactly_the_kept_samples_with_the_same_fields(chain: Chain) -> None:
    kept: set[str] = set()
    for style in ("red-hair", "zombie"):
        rows = pq.read_table(chain.folder(f"select/{style}") / "select.parquet").to_pylist()
        kept |= {row["key"] for row in rows if row["kept"]}
    samples = [sample for shard in shards(chain) for sample in read_shard(shard)]
    assert {sample.key for sample in samples} == kept
    assert len(samples) == len(kept) == 2 * 4
    expected = (
        "camera.npy depths.npy meta.json own_view.npy portrait.png pseudo_label.png triplane.npy view_cameras.npy"
    )
    assert {" ".join(sorted(sample.fields)) for sample in samples} == {f"{expected} views.npy"}
    assert all(KEY.fullmatch(sample.key) for sample in samples)


def test_the_arrays_have_the_shapes_and_types_of_the_contract(chain: Chain) -> None:
    sample = next(iter(read_shard(shards(chain)[0])))
    arrays = {name: decode_array(data) for name, data in sample.fields.items() if name.endswith(".npy")}
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    assert found == {
        "camera.npy": ("float32", (25,)),
        "depths.npy": ("float32", (3, 32, 32)),
        "own_view.npy": ("uint8", (64, 64, 3)),
        "triplane.npy": ("float16", arrays["triplane.npy"].shape),
        "view_cameras.npy": ("float32", (2, 25)),
        "views.npy": ("uint8", (2, 64, 64, 3)),
    }
    assert arrays["triplane.npy"].shape[0] == 36
    for name in ("portrait.png", "pseudo_label.png"):
        assert decode_rgb(sample.fields[name]).shape == (64, 64, 3)


def test_meta_says_what_the_sample_is(chain: Chain) -> None:
    for sample in read_shard(shards(chain)[1]):
        meta = json.loads(sample.fields["meta.json"])
        assert meta["key"] == sample.key
        assert {"style", "prompt", "split", "seed", "portrait_id", "attempt"} <= set(meta)
        assert {"score_lpips", "score_teacher_lpips", "score_view_identity"} <= set(meta["scores"])
        assert re.fullmatch("[0-9a-f]{64}", meta["digests"]["pseudo_label"])


def test_making_a_shard_again_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    again = write_chain(tmp_path)
    for first, second in zip(shards(chain), shards(again), strict=True):
        assert first.read_bytes() == second.read_bytes()
        for name in ("index.parquet", "teach.parquet"):
            assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_the_index_finds_every_field_that_tar_finds(chain: Chain) -> None:
    for shard in shards(chain):
        entries = entries_from_table(pq.read_table(shard.parent / "index.parquet"))
        indexed = {f"{e.key}.{name}": data for e in entries for name, data in read_sample(shard, e).items()}
        with tarfile.open(shard) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                assert indexed.pop(member.name) == content.read()
        assert not indexed


def test_view_cameras_are_the_portraits_and_not_the_styles(chain: Chain) -> None:
    cameras: dict[str, set[bytes]] = {}
    for shard in shards(chain):
        for sample in read_shard(shard):
            portrait = json.loads(sample.fields["meta.json"])["portrait_id"]
            cameras.setdefault(portrait, set()).add(sample.fields["view_cameras.npy"])
    assert len(cameras) == 4
    assert all(len(variants) == 1 for variants in cameras.values())
    assert len({next(iter(variants)) for variants in cameras.values()}) == 4


def test_view_cameras_stay_in_their_range() -> None:
    labels = draw_view_cameras("p0", TeachSettings(views=200, yaw_range=0.6, pitch_range=0.25))
    position = labels[:, :16].reshape(-1, 4, 4)[:, :3, 3]
    yaw, pitch = np.arctan2(position[:, 0], position[:, 2]), np.arcsin(position[:, 1] / 2.7)
    assert np.abs(yaw).max() <= 0.6001
    assert np.abs(yaw).max() > 0.5
    assert np.abs(pitch).max() <= 0.2501
    assert np.abs(pitch).max() > 0.2


def test_lenses_of_views_differ_where_they_may_and_leave_their_places() -> None:
    plain = draw_view_cameras("p0", TeachSettings(views=200))
    varied = draw_view_cameras("p0", TeachSettings(views=200, fov_range=2.4, center_range=0.1))
    assert (plain[:, 16:] == plain[:1, 16:]).all()
    assert (varied[:, :16] == plain[:, :16]).all()
    focal, cx, cy = varied[:, 16], varied[:, 18], varied[:, 21]
    assert (varied[:, 20] == focal).all()
    assert 3.7 < focal.min() < 3.9 < 4.7 < focal.max() < 4.95  # fov 21.2 to 16.4 degrees
    for center in (cx, cy):
        assert 0.4 <= center.min() < 0.41 < 0.59 < center.max() <= 0.6
    assert not np.allclose(cx, cy)


def test_the_first_depth_is_the_portraits(teachers: Teachers) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    views = draw_view_cameras("p0", TeachSettings(views=2))
    lesson = teach_sample(teachers, picture, views[1], views)
    assert np.allclose(lesson.depths[0], lesson.depths[2], atol=1e-5)
    assert np.abs(lesson.own_view.astype(int) - lesson.views[1]).max() <= 1
    assert np.abs(lesson.own_view.astype(int) - lesson.views[0]).max() > 1
    assert not np.allclose(lesson.depths[0], lesson.depths[1], atol=1e-5)


@pytest.mark.parametrize("triplane", ["none", "q8", "fp16"])
@pytest.mark.parametrize("view_format", ["npy", "jpg"])
def test_the_profile_decides_how_triplane_and_views_are_stored(
    teachers: Teachers, triplane: str, view_format: str
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    settings = TeachSettings.model_validate({"views": 2, "triplane": triplane, "view_format": view_format})
    views = draw_view_cameras("p0", settings)
    lesson = teach_sample(teachers, picture, views[0], views)
    fields = encode_lesson(lesson, settings)
    stored = {"none": set(), "q8": {"triplane_q8.npy", "triplane_q8_tiles.npy"}, "fp16": {"triplane.npy"}}[triplane]
    seen = {"npy": {"views.npy", "own_view.npy"}, "jpg": {"view_00.jpg", "view_01.jpg", "own_view.jpg"}}[view_format]
    assert set(fields) == {"view_cameras.npy", "depths.npy"} | stored | seen
    if triplane == "q8":
        codes, tiles = (decode_array(fields[name]) for name in sorted(stored))
        error = np.abs(dequantise_triplane(codes, tiles) - lesson.triplane)
        assert error.max() <= tiles[0].max() * 0.51
    if triplane == "fp16":
        assert np.allclose(decode_array(fields["triplane.npy"]), lesson.triplane, atol=2e-3, rtol=2e-3)


def test_a_triplane_that_is_not_finite_is_a_row_and_costs_no_other_sample(chain: Chain, tmp_path: Path) -> None:
    class Poisoned(Live3D):
        """Loses its head over pictures that are one colour."""

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return super().encode(images) if images.std() > 0.05 else super().encode(images) * torch.nan

    healthy = untrained_teacher()
    poisoned = Poisoned(healthy.config).eval()
    poisoned.load_state_dict(healthy.state_dict())
    teachers = Teachers(poisoned, Recogniser(IdentityNet().eval()), Perceptual.untrained().eval())
    work = chain.work(teach.STAGE, "zombie", 0)
    work.folder = tmp_path
    select = work.input("select").folder / "select.parquet"
    before = select.read_bytes()
    table = pq.read_table(select)
    black = next(row for row in table.to_pylist() if row["reason"] == "constant frame")
    kept = [row["kept"] or row["key"] == black["key"] for row in table.to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("kept"), "kept", [kept]), select)
    try:
        summary = teach.teach(work, teachers)
    finally:
        select.write_bytes(before)
    assert summary.rejected == {"triplane is not finite": 1}
    assert summary.samples == 1
    rows = {row["key"]: row["status"] for row in pq.read_table(tmp_path / "teach.parquet").to_pylist()}
    assert rows[black["key"]] == "rejected"
    assert [sample.key for sample in read_shard(tmp_path / "shard.tar")] == [k for k, s in rows.items() if s == "ok"]


def test_views_as_jpeg_keep_their_colours(teachers: Teachers) -> None:
    picture = np.full((64, 64, 3), (200, 40, 40), np.uint8)
    settings = TeachSettings(views=1, view_format="jpg")
    views = draw_view_cameras("p0", settings)
    lesson = teach_sample(teachers, picture, views[0], views)
    decoded = decode_rgb(io.BytesIO(encode_lesson(lesson, settings)["view_00.jpg"]).read())
    assert np.abs(decoded.astype(int) - lesson.views[0]).mean() < 4


def test_what_storing_a_triplane_costs_is_seen_in_renders(teachers: Teachers) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    views = draw_view_cameras("p0", TeachSettings(views=2))
    lesson = teach_sample(teachers, picture, views[0], views)
    found = {}
    for triplane in ("q8", "fp16"):
        fields = encode_lesson(lesson, TeachSettings.model_validate({"views": 2, "triplane": triplane}))
        found[triplane] = storing_errors(teachers.teacher, lesson, decode_triplane(fields))
    same = storing_errors(teachers.teacher, lesson, lesson.triplane)
    assert same == {"stored_view_psnr_db": pytest.approx(10 * np.log10(4e12)), "stored_depth_error": 0.0}
    assert 20 < found["q8"]["stored_view_psnr_db"] < found["fp16"]["stored_view_psnr_db"] < 120
    assert found["q8"]["stored_depth_error"] > found["fp16"]["stored_depth_error"] > 0


@pytest.mark.parametrize("triplane", ["fp16", "q8"])
def test_other_views_lift_no_triplane_again_and_give_the_bytes_of_lifting_it(
    chain: Chain, tmp_path: Path, triplane: str
) -> None:
    teachers = Teachers(untrained_teacher(), Recogniser(IdentityNet().eval()), Perceptual.untrained().eval())
    lifted = mock.Mock(wraps=teachers.teacher.encode)
    teachers.teacher.encode = lifted  # type: ignore[method-assign]

    def make(name: str, *earlier: tuple[Work, Summary], **own: object) -> tuple[Work, Summary]:
        work = chain.work(teach.STAGE, "zombie", 1)
        work.settings = work.settings.model_copy(
            update={"teach": TeachSettings.model_validate({"views": 2, "triplane": triplane, **own})}
        )
        work.folder = tmp_path / name
        work.folder.mkdir()
        work.earlier = lambda: [made_by(*each) for each in earlier]
        lifted.reset_mock()
        return work, teach.teach(work, teachers)

    first = make("first")
    assert lifted.call_count == first[1].samples > 0
    other = {"views": 3, "view_format": "jpg", "yaw_range": 0.3}
    _, summary = make("again", first, **other)
    assert lifted.call_count == 0
    anew = make("anew", **other)
    assert lifted.call_count == first[1].samples
    assert (tmp_path / "again" / "shard.tar").read_bytes() == (tmp_path / "anew" / "shard.tar").read_bytes()
    assert summary.metrics.keys() == anew[1].metrics.keys()
    # Neither from another way to store it, nor of another picture, nor from a shard that is not as it was.
    make("stored otherwise", first, **other, triplane="fp16" if triplane == "q8" else "q8")
    assert lifted.call_count == first[1].samples
    first[0].earlier = lambda: [made_by(*first)]
    known, sample = teach.Lifted(first[0]), next(iter(read_shard(tmp_path / "first" / "shard.tar")))
    assert known.find(sample.key, sample.fields["pseudo_label.png"])
    assert known.find(sample.key, sample.fields["portrait.png"]) is None
    shard = tmp_path / "first" / "shard.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    make("damaged", first, **other)
    assert lifted.call_count == first[1].samples


def made_by(work: Work, summary: Summary) -> Input:
    """Return an earlier making as the store tells of it."""
    files = {"shard.tar": FileEntry(bytes=0, sha256=summary.sha256["shard.tar"])}
    settings = {"settings": teach.STAGE.reads(work.settings, work.partition)}
    record = Record(
        partition=work.partition.key,
        stage="teach",
        version=3,
        fingerprint="f",
        fingerprint_inputs=settings,
        digest="d",
        files=files,
        metrics=summary.metrics,
    )
    return Input(work.partition, work.folder, "d", record)


def test_the_record_holds_the_errors_and_the_digest_that_was_taken_while_writing(
    chain: Chain, teachers: Teachers, tmp_path: Path
) -> None:
    work = chain.work(teach.STAGE, "zombie", 0)
    work.folder = tmp_path
    summary = teach.teach(work, teachers)
    assert summary.sha256 == {"shard.tar": digest_file(tmp_path / "shard.tar")}
    assert {"stored_view_psnr_db", "stored_depth_error"} <= summary.metrics.keys()
