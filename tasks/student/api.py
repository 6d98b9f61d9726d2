"""Python interface of the student; `from stillroom import Student`."""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from huggingface_hub import ModelCard, ModelHubMixin

from data_catalog.config.errors import UserError
from data_catalog.config.places import expand
from data_catalog.config.plain_text import bad_character
from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.products.names import read_names
from data_catalog.products.students import DELTA, AdaptedStyle, adapted_style, student_entry
from data_catalog.samples.encoding import encode_json
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.workspace import Workspace
from tasks.distill import TRAINING
from tasks.language.encoder import KNOWN, prompt_notes, shorten
from tasks.score import is_constant
from tasks.sources.photographs import HEADS_ONLY
from tasks.student.companions import (
    Companions,
    find_companions,
    load_companions,
    save_companions,
    tell_without,
)
from tasks.student.hub import download
from tasks.student.known_prompts import known_prompts
from tasks.student.portrait3d import Portrait3D
from tasks.student.user_portrait import Detectors, Picture, Portrait, align_picture, read_picture
from tasks.templates import TEMPLATES
from tasks.training.reading import image_tokens, text_tokens
from tasks.training.student_files import WEIGHTS as STORED_WEIGHTS
from tasks.training.student_files import load_student

if TYPE_CHECKING:
    from torch import Tensor

    from models.three_d.inference import CpuStudent
    from models.three_d.student import PromptKind
    from models.three_d.student import Student as Network

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # names that the hub expects
CARD = TEMPLATES / "student_card.md.j2"
HEADS_KEPT = 16  # edited heads in the cache, the newest
PROMPTS_KEPT = 64
SHOWN_PROMPT = 60  # characters
DIGEST, SHORT = re.compile("[0-9a-f]{64}"), 16  # a digest, and its characters on the screen
OF_THE_HUB = ("revision", "cache_dir", "force_download", "token", "local_files_only")
PAPER = "https://arxiv.org/abs/2402.14000"

log = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """Requested change: a text, or the bytes of a reference picture (H, W, 3) uint8 and its shape."""

    text: str | None
    pixels: bytes = b""
    shape: tuple[int, ...] = ()

    @property
    def kind(self) -> PromptKind:
        return "image" if self.text is None else "text"


class Student(
    ModelHubMixin,
    library_name="stillroom",
    pipeline_tag="image-to-3d",
    tags=["portrait-editing", "3d-aware", "triplane"],
    paper_url=PAPER,
    model_card_template=CARD.read_text(encoding="utf-8"),
):
    """A trained student, ready to edit. Safe to share between threads that only edit and render.

    >>> from stillroom import Student
    >>> student = Student.load("my-student")  # an exported folder; without a name, the one of the default settings
    >>> head = student.edit("portrait.png", "turn her into a bronze statue")
    >>> head.render(yaw=0.3).size
    (64, 64)
    """

    def __init__(self, network: Network, companions: Companions, settings: Settings) -> None:
        self.network = network
        self.encoder: Network | CpuStudent = network  # the form of the encoder that edits
        self.companions = companions
        self.settings = settings
        self._met_strange = False  # a photograph, and it was said what that means
        self.origin = ""  # digest of the student in the store, or the folder that it was read from
        self.prompts: dict[str, str] = {}  # one to try for each style that it learned; empty where that is not known
        # One triplane per (portrait, prompt): a second look at the same edit costs a rendering only.
        self._triplane = functools.lru_cache(HEADS_KEPT)(self._compute_triplane)
        # Warnings about a text prompt, logged once: a part that is not read, words that are not known.
        self.notes = functools.lru_cache(PROMPTS_KEPT)(self._warn)
        self._tokens = functools.lru_cache(PROMPTS_KEPT)(self._compute_tokens)

    def __repr__(self) -> str:
        world, size, device = self.settings.world, self.settings.align.size, self.settings.run.device
        known = f", knows {', '.join(self.prompts)}" if self.prompts else ""
        return f"Student({self._name()}, {world} world, {size} px, {device}{known})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: the student, and a prompt to try for each style that it knows."""
        known = [f"<tr><td>{escape(style)}</td><td>{escape(text)}</td></tr>" for style, text in self.prompts.items()]
        head = f"<b>student {escape(self._name())}</b>, {self.settings.world} world, {self.settings.align.size} px"
        return f"<p>{head}</p><table><tr><th>style</th><th>prompt</th></tr>{''.join(known)}</table>"

    def _name(self) -> str:
        return self.origin[:SHORT] if DIGEST.fullmatch(self.origin) else self.origin or "of this process"

    @classmethod
    def load(
        cls,
        student: str | Path | None = None,
        profile: str = "demo",
        overrides: Sequence[str] = (),
        adapted: str | None = None,
    ) -> Self:
        """Load the newest student that these settings made, or a named one, or an exported folder.

        student: a name, a digest or its beginning, a folder, or `latest`; None for the one of the settings.
        profile, overrides: as on the command line; an exported folder has settings of its own and needs none.
        adapted: a style that the student was adapted to, or the digest of that.
        Raises UserError where there is no such student or style.
        """
        if student is not None and str(student).startswith("~"):
            student = expand(student)
        if student is not None and adapted is None and (Path(student) / WEIGHTS).is_file():
            return cls.from_pretrained(student)._told()
        return cls.from_workspace(Workspace.open(profile, overrides), student, adapted)

    @classmethod
    def from_workspace(
        cls, workspace: Workspace, student: str | Path | None = None, adapted: str | None = None
    ) -> Self:
        """Load a student as `load` does, with settings and data root that are open already."""
        settings, catalog = workspace.settings, workspace.catalog
        if student is not None and adapted is None and is_folder(student, workspace.root):
            return cls._load_folder(Path(student), settings)
        entry = find_student(catalog, student, settings)
        _check_world(catalog.folder(entry), settings)
        check_device(settings.run.device)
        network = load_student(catalog.folder(entry), settings.run.device)
        _warn_of_other_weights(catalog, entry, settings, network.config.own_encoders)
        style = None if adapted is None else adapted_style(catalog, adapted, entry.digest)
        if style is not None:
            _adapt(network, style)
        loaded = cls(network, find_companions(settings), settings)
        loaded.origin, loaded.prompts = entry.digest, known_prompts(catalog, entry, settings, style)
        return loaded._told()

    @classmethod
    def _load_folder(cls, folder: Path, settings: Settings) -> Self:
        """Load an export, or the files of a student as the store has them."""
        check_folder(folder)
        if (folder / WEIGHTS).is_file():
            return cls.from_pretrained(folder)._told()
        loaded = cls(load_student(folder, settings.run.device), find_companions(settings), settings)
        loaded.origin = str(folder)
        return loaded._told()

    def _told(self) -> Self:
        """Say on the screen if portraits will not be searched for a face."""
        tell_without(self.companions.landmarks, self.settings)
        return self

    def edit(self, image: Picture, prompt: str | None = None, *, reference: Picture | None = None) -> Portrait3D:
        """Edit a portrait by a text or by a reference picture.

        image, reference: a path, the bytes of a picture file, a PIL image, or (H, W, 3) uint8.  A PIL image is taken
        as its file would be, but Pillow loses a PNG's cICP and an AVIF's primaries.  A portrait that is not aligned is
        aligned first.  The same portrait and prompt again give the cached triplane.
        Raises UserError for a picture that cannot be read or an empty prompt.
        """
        return self.edit_aligned(self.align(image), self.read_prompt(prompt, reference))

    def align(self, image: Picture) -> Portrait:
        """Cut the portrait out of a picture as for training, and find its camera."""
        portrait = align_picture(read_shown(image, self.settings), self.companions.detectors, self.settings)
        if portrait.strange and not self._met_strange:
            self._met_strange = True
            log.warning("%s", HEADS_ONLY)
        return portrait

    def read_prompt(self, text: str | None, reference: Picture | None) -> Prompt:
        """Either a text or a picture as a prompt."""
        if (text is None) == (reference is None):
            raise UserError("an edit needs either a text or a reference picture, and not both")
        if reference is not None:
            rgb = read_shown(reference, self.settings)
            return Prompt(None, rgb.tobytes(), rgb.shape)
        assert text is not None
        text = " ".join(text.split())
        if not text:
            raise UserError("the prompt is empty", expected="what to change, such as 'make the hair red'")
        if bad_character(text):
            raise UserError("the prompt is not plain text", found=bad_character(text), expected="one line of text")
        self.notes(text)
        return Prompt(text)

    def edit_aligned(self, portrait: Portrait, prompt: Prompt) -> Portrait3D:
        """Edit a portrait that `align` has cut out."""
        triplane, seconds = self._triplane(portrait.rgb.tobytes(), portrait.rgb.shape, prompt)
        return Portrait3D(self.network, triplane, portrait, seconds)

    def speed_up(self) -> Self:
        """Edit with the fastest form of the network from now on. Making it takes about a second, once."""
        from models.three_d.inference import for_use

        self.encoder = for_use(self.network)
        return self

    def warm_up(self) -> None:
        """Run everything once on a grey picture, so that the first edit is as fast as later ones."""
        size = self.settings.align.size
        grey = np.full((size, size, 3), 127, np.uint8)
        head, _ = self._compute_triplane(grey.tobytes(), grey.shape, Prompt("a portrait"))
        portrait = align_picture(grey, Detectors(None), self.settings)
        Portrait3D(self.network, head, portrait, 0.0).look(0.0, 0.0)
        if self.companions.landmarks is not None:
            self.companions.landmarks.detect(grey[None])

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """Return the card of an export. `facts` add to the student's own values; see templates/student_card.md.j2."""
        known: dict[str, Any] = {
            "world": self.settings.world,
            "size": self.settings.align.size,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "detects": self.companions.landmarks is not None,
        }
        card: ModelCard = super().generate_model_card(**(known | facts))
        return card

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save_file

        state = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file(state, save_directory / WEIGHTS, metadata={"format": "pt"})
        needed = self.companions
        if "image" in self.network.config.own_encoders:
            needed = needed._replace(mae=None)  # the student's own is in its weights
        save_companions(needed, save_directory)
        settings: dict[str, Any] = {
            "world": self.settings.world,
            "align": self.settings.align.model_dump(mode="json", exclude={"landmarks"}),
            "portraits": {"max_pixels": self.settings.portraits.max_pixels},
        }
        if self.settings.portraits.source != PROCEDURAL:
            settings["portraits"]["source"] = "photographs"  # what faces it knows; the path itself is of this machine
        document = {"student": self.network.config.to_dict(), "stillroom": settings, "prompts": self.prompts}
        (save_directory / CONFIG).write_bytes(encode_json(document))
        for path in save_directory.rglob("*.safetensors"):
            # As the umask has it: safetensors creates files readable by their owner alone.
            path.chmod(save_directory.stat().st_mode & 0o666)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **given: Any) -> Self:
        """Load an exported student from a folder, or from the Hugging Face hub or its cache as ORG/NAME.

        given: revision, cache_dir, token, local_files_only, force_download, as for `huggingface_hub.ModelHubMixin`;
        `device` beside them.
        Raises UserError where there is none, and after some seconds where the hub does not answer.
        """
        name = str(pretrained_model_name_or_path)
        folder = expand(name)
        if not folder.exists():
            folder = download(name, **{key: given[key] for key in OF_THE_HUB if key in given})
        loaded: Self = super().from_pretrained(str(folder), **given)
        loaded.origin = name
        return loaded

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        from safetensors.torch import load_file

        from models.three_d.student import Student, StudentConfig

        folder, device = Path(model_id), str(model_kwargs.get("device", "cpu"))
        check_device(device)
        if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
            raise UserError("there is no exported student here", folder=model_id, hint="stillroom export FOLDER")
        document = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network = Student(StudentConfig.from_dict(document["student"]))
        network.load_state_dict(load_file(folder / WEIGHTS))
        settings = Settings.model_validate(document["stillroom"] | {"run": {"device": device}})
        loaded = cls(network.to(device).eval().requires_grad_(False), load_companions(folder), settings)
        loaded.prompts = document.get("prompts", {})
        return loaded

    def _warn(self, text: str) -> list[str]:
        clip = self.companions.clip
        length = int(clip.model.config.text_config.max_position_embeddings)
        tokens = clip.tokenizer(text, add_special_tokens=False, verbose=False).tokens()
        notes = prompt_notes(tokens, length, len(clip.tokenizer))
        for note in shorten(notes):
            log.warning("%s: %s", note, text[:SHOWN_PROMPT])
        if shorten(notes) != notes:
            log.warning("%s", KNOWN)
        return notes

    def _compute_triplane(self, pixels: bytes, shape: tuple[int, ...], prompt: Prompt) -> tuple[Tensor, float]:
        """Compute the triplane (1, 3*C, h, w); returns it with the seconds it took."""
        import torch

        from models.pixels import signed

        device = self.settings.run.device
        started = time.perf_counter()
        with torch.no_grad():
            tokens = self._tokens(prompt).to(device)
            portrait = signed(np.frombuffer(pixels, np.uint8).reshape(1, *shape).copy(), device)
            triplane = self.encoder.encode(portrait, tokens, prompt.kind)
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)  # CUDA is asynchronous: synchronise before reading the clock.
        return triplane, time.perf_counter() - started

    def _compute_tokens(self, prompt: Prompt) -> Tensor:
        """(1, T, D)."""
        if prompt.text is not None:
            return text_tokens(self.network, self.companions.clip, [prompt.text])
        picture = np.frombuffer(prompt.pixels, np.uint8).reshape(1, *prompt.shape).copy()
        return image_tokens(self.network, self.companions.mae, picture)


def is_folder(student: str | Path, root: Path) -> bool:
    """Whether this is a student's folder, and not the name of a student that a folder has by chance, too."""
    folder = Path(student)
    return _holds_student(folder) or (folder.is_dir() and str(student) not in read_names(root))


def check_folder(folder: Path) -> None:
    """Raise UserError unless the folder is an export, or holds the files of a student as the store has them."""
    if not _holds_student(folder):
        raise UserError("there is no student here", folder=folder, hint="stillroom export FOLDER")


def _holds_student(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS, STORED_WEIGHTS))


def read_shown(picture: Picture, settings: Settings) -> np.ndarray:
    """Read a picture as `read_picture` does, and refuse one that shows nothing: a black, white or grey one."""
    rgb = read_picture(picture, settings)
    if is_constant(rgb, settings.score):
        level = ", ".join(str(round(value)) for value in rgb.mean(axis=(0, 1)))
        raise UserError("the picture shows nothing", found=f"one colour, RGB {level}", expected="a picture of a face")
    return rgb


def check_device(device: str) -> None:
    """Raise UserError unless torch can use the device here."""
    from models.devices import device_problem

    if (problem := device_problem(device)) is not None:
        raise UserError(f"the device {device} cannot be used", found=problem, hint="cpu works everywhere")


def find_student(catalog: Catalog, student: str | Path | None, settings: Settings) -> Entry:
    """Find a named student in the store, or, for None, the newest that these settings made."""
    from tasks.datasets.made import student_of

    return student_of(catalog, settings) if student is None else student_entry(catalog, str(student))


def _check_world(folder: Path, settings: Settings) -> None:
    """Raise UserError for a student of another world: its prompts are read by other networks."""
    path = folder / TRAINING
    world = json.loads(path.read_text(encoding="utf-8")).get("world") if path.is_file() else None
    if world not in (None, settings.world):
        raise UserError(
            f"the student is of the world '{world}'",
            expected=f"one of the world '{settings.world}', as the profile '{settings.profile}' is",
            hint="--profile paper" if world == "paper" else "--profile demo",
        )


def _adapt(network: Network, style: AdaptedStyle) -> None:
    from safetensors.torch import load_file

    from models.three_d.adaptation import apply_delta

    apply_delta(network, load_file(style.folder / DELTA))


def _warn_of_other_weights(catalog: Catalog, student: Entry, settings: Settings, own: Sequence[PromptKind]) -> None:
    """Warn where frozen weights that read a student's prompts differ from those it learned with."""
    from models.zoo import zoo

    learned_with = catalog.read(student).fingerprint_inputs.get("weights", {})
    frozen: dict[PromptKind, str] = {"text": "clip", "image": "mae"}
    for name in (name for kind, name in frozen.items() if kind not in own):
        if name in learned_with and learned_with[name] != zoo.digest(name, settings.world):
            log.warning("the student was trained with other weights of %s: edits may be wrong", name)
