"""All settings, one model a stage. A profile (YAML) lists only what differs from the defaults here.

Sections describe the bytes that a stage makes, except `llm` and `run`, which say how the work is carried out and are
in no fingerprint. Numbers have their unit in the name or beside them.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_catalog.config.errors import UserError


class Section(BaseModel):
    """Unknown keys are errors; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PortraitsSettings(Section):
    """Where portraits come from, and their frozen splits."""

    source: str = "procedural"  # or a folder of pictures, an EG3D or 3DPE zip or folder with dataset.json
    licences: str | None = None  # FFHQ's ffhq-dataset-v2.json; null: the one beside the pictures, if there is one
    pattern: str = "*"  # of file names in a folder or zip, such as "portrait_*.png"
    count: int | None = Field(72, ge=1)  # portraits taken; of a folder, null takes all
    block_size: int = Field(12, ge=1)  # portraits per block
    seed: int = Field(0, ge=0)  # first seed of the procedural world
    val_fraction: float = Field(0.08, ge=0.0, lt=1.0)
    test_fraction: float = Field(0.17, ge=0.0, lt=1.0)
    max_pixels: int = Field(50_000_000, ge=1)  # a larger image is rejected as a decompression bomb
    min_side: int = Field(32, ge=1)  # px; a smaller image is rejected


class AlignSettings(Section):
    """Crop and camera."""

    size: int = Field(64, ge=16)  # px, side of the aligned portrait
    landmarks: str | None = None  # JSON: name -> 5, 68 or 478 points in px; null: given labels, or the detector
    # Deep3DFaceRecon's results: a folder of .mat or .json files named as the pictures, or EG3D's cameras.json
    reconstructions: str | None = None
    min_confidence: float = Field(0.3, ge=0.0, le=1.0)
    max_reprojection: float = Field(0.05, gt=0.0)  # of the crop's side; a worse fit is rejected


class PromptsSettings(Section):
    """Style files and their paraphrases."""

    styles_dir: str = "configs/styles"
    styles: list[str] | None = None  # a subset by slug; null takes every style file
    backend: Literal["builtin", "openai"] = "builtin"
    model: str = "gpt-4o-mini"  # of the openai backend
    base_url: str | None = None  # null: OPENAI_BASE_URL, or OpenAI's own
    temperature: float = Field(0.8, ge=0.0, le=2.0)
    max_tokens: int = Field(2000, ge=1)  # of one answer
    train: int = Field(8, ge=1)  # prompts per style
    test: int = Field(5, ge=0)  # prompts per style
    # CLIP text cosine at which they do; null: not asked. The embedded CLIP knows styles, not sentences: to it all
    # prompts of a style are one.
    max_clip_text: float | None = Field(None, gt=0.0, le=1.0)
    seed: int = Field(0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        # Settings go into records, MLflow and reports; a UserError is not quoted with its value as a ValueError is.
        parts = urlsplit(url or "http://")
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query:
            raise UserError(
                "prompts.base_url is not the plain address of a server",
                expected="http:// or https://, host, port and path, without a password or a query",
                hint="the key goes into OPENAI_API_KEY",
            )
        return url


class LlmSettings(Section):
    """How a language model is asked. Part of no fingerprint."""

    timeout_s: float = Field(60.0, gt=0.0)  # of one request, to the last byte of its answer
    retries: int = Field(5, ge=0)  # of one request
    budget_tokens: int | None = Field(30_000, ge=0)  # per style, in and out; null: no limit
    budget_usd: float | None = Field(None, ge=0.0)  # per style; needs the prices
    usd_per_million_input: float | None = Field(None, ge=0.0)  # tokens
    usd_per_million_output: float | None = Field(None, ge=0.0)  # tokens


class EditSettings(Section):
    """InstructPix2Pix sampling."""

    # dataset: the portraits are a 3DPE dataset, and its edits are the pseudo-labels: docs/data.md.
    source: Literal["editor", "dataset"] = "editor"
    prompts_per_portrait: int = Field(1, ge=1)
    steps: int = Field(20, ge=1)
    guidance_scale: float = Field(7.5, ge=1.0)
    image_guidance_scale: float = Field(1.5, ge=1.0)
    # The share of the steps that is guided; the others cost a third. It changes the pictures: docs/editor.md.
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    # The sampler; null: what the checkpoint ships. One of another kind wants another number of steps.
    scheduler: Literal["ddim", "euler", "euler_a", "dpmpp"] | None = None
    # On a GPU; auto: as many as its free memory holds. In no fingerprint: a sample does not depend on its batch.
    batch_size: int | Literal["auto"] = 16
    seed: int = Field(0, ge=0)

    @field_validator("batch_size", mode="before")
    @classmethod
    def _is_a_size(cls, size: object) -> object:
        if size != "auto" and (not isinstance(size, int) or size < 1):
            raise ValueError("input should be a whole number from 1, or auto")
        return size

    @field_validator("guidance_interval")
    @classmethod
    def _is_an_interval(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 <= interval[0] <= interval[1] <= 1.0:
            raise ValueError("input should be two shares of the steps, from 0 to 1, the smaller one first")
        return interval


class ScoreSettings(Section):
    """Measurements of a pseudo-label."""

    batch_size: int = Field(32, ge=1)  # in no fingerprint
    constant_std: float = Field(0.01, ge=0.0)  # of values in [0, 1]; a frame below it counts as constant


class SelectSettings(Section):
    """Gates over the scores. A gate without a number is open; test samples pass every gate."""

    min_clip_image: float | None = Field(None, ge=-1.0, le=1.0)  # cosine to the portrait
    min_clip_text: float | None = Field(None, ge=-1.0, le=1.0)  # cosine to the style's caption
    min_clip_direction: float | None = Field(0.2, ge=-1.0, le=1.0)  # cosine of change and caption's change
    min_identity: float | None = Field(None, ge=-1.0, le=1.0)  # cosine to the portrait
    min_ssim: float | None = Field(None, ge=-1.0, le=1.0)  # below: the edit destroyed the portrait
    max_ssim: float | None = Field(0.995, ge=-1.0, le=1.0)  # above: the edit changed nothing
    min_lpips: float | None = Field(None, ge=0.0)  # below: the edit changed nothing
    max_lpips: float | None = Field(None, ge=0.0)  # above: the edit destroyed the portrait
    max_camera_drift_deg: float | None = Field(None, ge=0.0)
    require_face: bool = False  # a pseudo-label in which no face is found again is lost
    calibration: Literal["none", "quantile"] = "none"  # quantile: the style's own scores set its gates' numbers
    quantile: float = Field(0.05, ge=0.0, lt=0.5)  # share of a style's samples that a calibrated gate drops
    calibration_blocks: int = Field(4, ge=1)  # the first blocks, whose samples set them
    keep: int | None = Field(None, ge=1)  # training samples of a style; fewer: its blocks are attempted again
    attempts: int = Field(4, ge=1)  # at a block at most, the first included
    min_yield: float = Field(0.25, ge=0.0, le=1.0)  # kept / made below which a style counts as failed
    image_prompts: int = Field(4, ge=0)  # samples per style that serve as image prompts


class TeachSettings(Section):
    """What the teacher stores of each pseudo-label."""

    views: int = Field(4, ge=1)  # novel views per sample
    triplane: Literal["none", "q8", "fp16"] = "fp16"
    view_format: Literal["npy", "jpg"] = "npy"  # uint8 array, or one JPEG (q95 4:4:4) a view
    yaw_range: float = Field(0.6, ge=0.0)  # rad, each side
    pitch_range: float = Field(0.25, ge=0.0)  # rad, each side
    seed: int = Field(0, ge=0)


class DatasetSettings(Section):
    """The snapshot."""

    name: str = "stillroom"
    licence: str = "see the sources of the portraits"
    # Gates over what the teacher made of a pseudo-label; open without a number, and for test samples.
    max_teacher_lpips: float | None = Field(None, ge=0.0)  # of its render from the portrait's camera
    min_view_identity: float | None = Field(None, ge=-1.0, le=1.0)  # mean cosine of its views to the pseudo-label


class DistillSettings(Section):
    """Training of the student: lambda_2d * L2D + lambda_3d * L3D (3DPE, section 3.2)."""

    iterations: int = Field(600, ge=1)
    # The first of them compare triplanes alone: without rendering they cost a third, and most of an edit is
    # learned there. The paper has none.
    triplane_iterations: int = Field(300, ge=0)
    batch_size: int = Field(12, ge=1)  # samples per iteration over all processes
    lr: float = Field(2e-3, gt=0.0)  # of E_p, which starts anew
    lr_transformer: float = Field(1e-3, gt=0.0)  # of E_t, which starts as the teacher's
    # muon: orthogonalised momentum for matrices and kernels (Jordan et al. 2024), AdamW for the rest. At the same
    # learning rates it comes nearer to the teacher in as many iterations.
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr_end_fraction: float = Field(0.1, ge=0.0, le=1.0)  # cosine down to this share of lr; 1 keeps it
    weight_decay: float = Field(0.0, ge=0.0)
    # The student is the moving average of its weights: each step counts by 1 - ema_decay. 0: the last weights.
    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)
    warmup: int = Field(20, ge=0)  # iterations
    # Of E_p and E_t while they learn; weights, rendering and losses stay float32. auto: bfloat16 where the processor or
    # GPU computes in it; a triplane iteration is 1.2 times as fast by it: docs/benchmarks.md.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    lambda_2d: float = Field(1.0, ge=0.0)
    lambda_3d: float = Field(1.0, ge=0.0)
    image_l2_weight: float = Field(1.0, ge=0.0)
    image_lpips_weight: float = Field(0.2, ge=0.0)  # of L2D; the paper's 2.0, at the embedded metric's scale
    # Of the other views, in L3D; the paper's 2.0. Where L2D compares with the pseudo-label, 0 lets the student be as
    # sharp from the sides, where the teacher is soft.
    view_lpips_weight: float = Field(0.2, ge=0.0)
    triplane_weight: float = Field(0.1, ge=0.0)  # above 0.1 it swamps the pictures at the embedded size
    depth_weight: float = Field(1.0, ge=0.0)
    # How much more a place of the triplane counts for each time the mean that the edit moves it; the paper's is 0.
    changed_weight: float = Field(0.0, ge=0.0)
    # How much more a value of the triplane counts for each time the mean that the teacher's pictures depend on it (see
    # models/three_d/sensitivity.py); the paper's is 0.
    sensitivity_weight: float = Field(0.0, ge=0.0)
    # The picture L2D compares with, from the portrait's camera: the teacher's rendering, as in the paper's public code
    # (where a discriminator sees the pseudo-label), or the pseudo-label, which is sharper, but teaches the error of an
    # estimated camera, too.
    l2d_target: Literal["teacher", "pseudo_label"] = "teacher"
    # Each sample is met mirrored, too, lifted by the teacher: of a few dozen portraits a student learns many by heart.
    mirror: bool = False
    image_prompt_fraction: float = Field(0.3, ge=0.0, le=1.0)  # samples whose prompt is an image
    # What the teacher's part of a batch is. cached: triplane and views as `teach` stored them; rendered: the stored
    # triplane from cameras drawn anew; online: the triplane, too, is made at each step, as in the paper's public code.
    teacher: Literal["cached", "rendered", "online"] = "cached"
    view_yaw_range: float = Field(0.6, ge=0.0)  # rad, each side, of cameras drawn anew
    view_pitch_range: float = Field(0.25, ge=0.0)  # rad, each side
    views_per_sample: int = Field(1, ge=1)  # novel views, of the stored ones if cached, drawn anew each iteration
    patch_rays: int | None = Field(16, ge=4)  # a side of the patch of each view that is compared; null: all of it
    memory_mb: int = Field(2048, ge=0)  # of samples and of features kept, each; in no fingerprint
    checkpoint_every: int = Field(50, ge=1)  # iterations; in no fingerprint
    log_every: int = Field(10, ge=1)  # iterations between points of the curve
    grid_every: int = Field(100, ge=1)  # iterations between pictures and looks at the val split
    seed: int = Field(0, ge=0)


class AdaptSettings(Section):
    """Customising a student to a style from a few pairs (3DPE, section 3.3); the rest is as in `distill`."""

    pairs: int = Field(10, ge=1)  # learned from, at most
    held_out: int = Field(4, ge=1)  # pairs that the curve is measured on, at most
    seconds: float = Field(60.0, gt=0.0)  # of learning, by the clock; looking at the held-out pairs is not counted
    looks_s: tuple[float, ...] = (2.0, 10.0, 20.0, 60.0)  # when they are looked at; the paper's are 6, 60, 120, 300
    batch_size: int = Field(4, ge=1)  # samples per iteration
    lr: float = Field(1e-2, gt=0.0)  # of E_p; it falls to a tenth as the time runs out, that of the others too
    lr_norm: float = Field(6e-3, gt=0.0)  # of the normalisation layers of E_t, which all styles share
    warmup: int = Field(10, ge=0)  # iterations
    # Of the seconds: first triplanes alone are compared, as in `distill`, at a third of a step's price.
    triplane_share: float = Field(0.7, ge=0.0, lt=1.0)
    # For each pair, as many edits of its portrait into styles that the student knows, as the student itself makes
    # them: half of what is learned then, they keep the old styles. The paper has none, and without them an
    # embedded student forgets: its other edits get twice as far from the truth in half a minute.
    rehearsals: int = Field(8, ge=0)
    mirror: bool = True  # each pair is met mirrored, too; the paper has none, and ten portraits are soon known by heart
    old_samples: int = Field(4, ge=1)  # test samples of each style it knows, measured before and after
    pairs_folder: str | None = None  # with input/ and edited/ pictures of one's own; null: the editor makes the pairs
    prompt: str | None = None  # of the pairs in the folder; null: those of the style's file
    seed: int = Field(0, ge=0)


class EvaluateSettings(Section):
    """The paper's Table 1, and the comparison with the true styled head where it is known."""

    max_samples_per_style: int | None = Field(None, ge=1)
    novel_views: int = Field(2, ge=2)  # on an ellipse around the front; of two, one is on each side
    view_yaw: float = Field(0.35, ge=0.0)  # rad, half axes of that ellipse
    view_pitch: float = Field(0.25, ge=0.0)  # rad
    # Editor steps behind the seconds of editor + teacher; null: edit.steps. Where the pseudo-labels were made by other
    # steps, those are timed, too, and both ratios are reported.
    timed_editor_steps: int | None = Field(None, ge=1)
    timing_repeats: int = Field(7, ge=0)  # after a first turn that warms up; 0: that one counts, cold
    bootstrap: int = Field(1000, ge=100)  # draws behind the 95 % intervals
    pictures_per_style: int = Field(4, ge=1)
    turntable_frames: int = Field(16, ge=2)
    batch_size: int = Field(8, ge=1)  # in no fingerprint
    seed: int = Field(0, ge=0)


class RunSettings(Section):
    """How the work is carried out. Part of no fingerprint."""

    workers: int = Field(2, ge=1)  # processes
    threads: int = Field(1, ge=1)  # torch threads per process
    training_processes: int = Field(1, ge=1)  # that share the batches of `distill`, on a GPU each
    device: str = "cpu"
    compile: bool = False  # the editor's UNet, by torch.compile: minutes at first, for a GPU with much to edit
    cluster: str | None = None  # a file of configs/clusters; null: processes of this machine
    mlflow_uri: str | None = None  # null: MLFLOW_TRACKING_URI, or sqlite under the data root


class Settings(Section):
    """Everything that a run can be told. `profile` names where it came from."""

    profile: str = "demo"
    world: Literal["embedded", "paper"] = "embedded"
    on_code_change: Literal["rerun", "keep"] = "rerun"

    portraits: PortraitsSettings = PortraitsSettings()
    align: AlignSettings = AlignSettings()
    prompts: PromptsSettings = PromptsSettings()
    edit: EditSettings = EditSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = SelectSettings()
    teach: TeachSettings = TeachSettings()
    dataset: DatasetSettings = DatasetSettings()
    distill: DistillSettings = DistillSettings()
    adapt: AdaptSettings = AdaptSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    llm: LlmSettings = LlmSettings()
    run: RunSettings = RunSettings()
