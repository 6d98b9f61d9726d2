"""Steps a second of the student's training at the paper's size, with random weights and made-up samples.

The trainer, the shards and the reading are those of `stillroom distill`. `cached` reads the teacher's triplane and
views; `online` makes them at every step, as the paper's public code does. Measured by `benchmarks.gpu`.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_array, encode_json, encode_png
from data_catalog.samples.shard_index import read_index
from data_catalog.samples.shards import Sample, write_shard
from models.camera import orbit_label
from models.checkpoints import read_checkpoint
from models.judges import lpips_alex
from models.judges.perceptual import Perceptual
from models.three_d.live3d import Live3D
from models.three_d.student import Student
from models.zoo.random_weights import write_alexnet
from tasks.teach import Lesson, draw_view_cameras, encode_lesson
from tasks.training.batches import Prompts
from tasks.training.data import SampleRef
from tasks.training.loop import Trainer

SOURCES = ("cached", "online")
BLOCK = 16  # pixels of one colour in the made-up pictures: they are to take as long to decode as portraits do

Timer = Callable[[Callable[[], object]], float]


def training_speed(
    teacher: Live3D, student: Student, tokens: torch.Tensor, batch: int, timer: Timer
) -> dict[str, float]:
    """Steps a second by where the teacher's part comes from.  tokens: (1, T, D).  timer: the seconds of one call.

    No sample is kept in memory, as where a dataset does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="stillroom-speed-") as scratch:
        samples = make_samples(Path(scratch), teacher, 2 * batch)
        perceptual = random_lpips(Path(scratch)).to(tokens.device)
        prompts = Prompts({sample.prompt: tokens[0] for sample in samples}, {}, tokens.shape[-1], tokens.shape[-1])
        speeds = {}
        for source in SOURCES:
            trainer = make_trainer(settings_of(source, batch), teacher, student, perceptual, prompts, samples)

            def step(trainer: Trainer = trainer) -> None:
                trainer.take_step()
                trainer.step += 1

            speeds[source] = 1 / timer(step)
            trainer.maker.loader.close()
    return speeds


def settings_of(source: str, batch: int) -> Settings:
    """Return the paper's settings, with text prompts only."""
    changes = {"teacher": source, "batch_size": batch, "memory_mb": 0, "image_prompt_fraction": 0}
    return load_settings("paper", [f"distill.{name}={json.dumps(value)}" for name, value in changes.items()])


def make_trainer(
    settings: Settings, teacher: Live3D, student: Student, perceptual: Perceptual, prompts: Prompts,
    samples: list[SampleRef],
) -> Trainer:  # fmt: skip
    """On the device that the prompts' tokens are on."""
    device = str(next(iter(prompts.text.values())).device)
    accelerator = Accelerator(cpu=device == "cpu")
    student.train()
    return Trainer(student, teacher, perceptual, prompts, samples, (), settings.distill, device, accelerator)


def make_samples(folder: Path, teacher: Live3D, count: int) -> list[SampleRef]:
    """Samples of noise in a shard, with the fields, sizes and types that `teach` writes in the profile `paper`."""
    teach, sizes = load_settings("paper").teach, teacher.config.renderer
    weights = next(teacher.parameters())
    picture = torch.zeros(1, 3, sizes.image_size, sizes.image_size, device=weights.device)
    with torch.no_grad():
        planes = teacher.encode(picture).shape[1:]
    rng, label = np.random.default_rng(0), orbit_label(0.0, 0.0)[0].numpy()

    def pictures(number: int) -> np.ndarray:
        side = max(1, sizes.image_size // BLOCK)
        small = rng.integers(0, 256, (number, side, side, 3), dtype=np.uint8)
        return small.repeat(sizes.image_size // side, axis=1).repeat(sizes.image_size // side, axis=2)

    made = []
    for key in (f"p{number:010d}-style-0-0" for number in range(count)):
        lesson = Lesson(
            triplane=rng.standard_normal(planes, dtype=np.float32),
            views=pictures(teach.views),
            view_cameras=draw_view_cameras(key, teach),
            depths=rng.uniform(2.3, 3.3, (teach.views + 1, sizes.resolution, sizes.resolution)).astype(np.float32),
            scores={},
        )
        own = dict(zip(("portrait.png", "pseudo_label.png"), map(encode_png, pictures(2)), strict=True))
        own |= {"camera.npy": encode_array(label), "meta.json": encode_json({"key": key})}
        made.append(Sample(key, own | encode_lesson(lesson, teach)))
    write_shard(folder / "shard.tar", made)
    return [
        SampleRef(
            key, "style", f"prompt {number}", 0, "train", key[:11], "train", 0, label, folder / "shard.tar", entry
        )
        for number, (key, entry) in enumerate(read_index(folder / "shard.tar").items())
    ]


def random_lpips(folder: Path) -> Perceptual:
    """LPIPS on an AlexNet of random weights."""
    write_alexnet(folder / "alexnet.pth", torch.Generator().manual_seed(0))
    return lpips_alex.from_state(read_checkpoint(folder / "alexnet.pth"))
