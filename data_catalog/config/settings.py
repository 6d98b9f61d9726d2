"""Settings, one model a stage. A profile (YAML) lists only what differs from the defaults here.

Every section changes the bytes that its stage makes, except `llm` and `run`: those two control how the work is done and
are in no fingerprint. Numbers have their unit in the name or beside them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from data_catalog.config.addresses import check_address
from data_catalog.config.errors import UserError

PROCEDURAL = "procedural"  # portraits.source of the heads that are rendered from seeds
LARGEST = 2**63 - 1  # generators, tables and records hold no larger number


def reject_bool(cls: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """Refuse yes, no, true and false where a number belongs: they would be read as 1 and 0."""
    annotation = str(cls.model_fields[info.field_name or ""].annotation)
    if "bool" not in annotation and ("int" in annotation or "float" in annotation):
        given = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, bool) for each in given):
            raise ValueError("a number is expected, not yes, no, true or false")
    return value


class Section(BaseModel):
    """Base of the sections. Unknown keys are errors; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits_into_64_bits(cls, value: object) -> object:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError("input should be a number of 64 bits at most")
        return value

    _no_bool = field_validator("*", mode="before")(reject_bool)


def _is_a_count(count: object) -> object:
    if count != "auto" and (not isinstance(count, int) or count < 1):
        raise ValueError("input should be a whole number from 1, or auto")
    return count


CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_is_a_count)]


class PortraitsSettings(Section):
    """Source of the portraits, and their frozen splits."""

    source: str = PROCEDURAL  # or the path of a folder of pictures, or of an EG3D or 3DPE zip or folder
    licences: str | None = None  # FFHQ's ffhq-dataset-v2.json; null: the one beside the pictures, if it exists
    pattern: str = "*"  # file names to take from a folder or zip, such as "portrait_*.png"
    # Number of portraits; null: all of a folder or zip. Unless you set it, a folder or zip of yours is taken whole.
    count: int | None = Field(72, ge=1)
    block_size: int = Field(12, ge=1)  # portraits per block
    seed: int = Field(0, ge=0, le=LARGEST // 2)  # first seed of the procedural world
    val_fraction: float = Field(0.08, ge=0.0, lt=1.0)
    test_fraction: float = Field(0.17, ge=0.0, lt=1.0)
    max_pixels: int = Field(50_000_000, ge=1)  # a larger image is rejected as a decompression bomb
    min_side: int = Field(32, ge=1)  # px; a smaller image is rejected


class AlignSettings(Section):
    """Crop and camera."""

    # px, side of the aligned portrait: a multiple of 8, as the editors' networks halve it three times.
    size: int = Field(64, ge=24, le=4096, multiple_of=8)
    landmarks: str | None = None  # JSON file: name -> 5, 68 or 478 points, px; null: given labels, or the detector
    # Deep3DFaceRecon's results: a folder of .mat or .json files named like the pictures, or EG3D's cameras.json.
    reconstructions: str | None = None
    min_confidence: float = Field(0.3, ge=0.0, le=1.0)
    max_reprojection: float = Field(0.05, gt=0.0)  # share of the crop's side; a worse fit is rejected
    # Photographs with several faces. reject: none of them; largest: that one; all: each is a portrait, with its number
    # in its id. aligned: no face is looked for, a picture's middle square counts as an aligned, frontal portrait.
    faces: Literal["reject", "largest", "all", "aligned"] = "reject"
    min_face_px: int = Field(48, ge=16)  # px, from forehead to chin; smaller faces do not count
    max_blur: float = Field(0.82, gt=0.0, le=1.0)  # of 1; a face that is blurred more is rejected


class PromptsSettings(Section):
    """Style files and their paraphrases."""

    styles_dir: str = "configs/styles"
    styles: list[str] | None = None  # slugs; null: every style file but those held out
    held_out: list[str] = []  # slugs of styles that no dataset takes by itself: students are adapted to them
    backend: Literal["builtin", "openai"] = "builtin"
    model: str = "gpt-4o-mini"  # model name for the openai backend
    base_url: str | None = None  # null: OPENAI_BASE_URL, or OpenAI's own
    temperature: float = Field(0.8, ge=0.0, le=2.0)
    max_tokens: int = Field(2000, ge=1)  # tokens of one answer
    train: int = Field(8, ge=1)  # prompts per style
    test: int = Field(5, ge=0)  # prompts per style
    # CLIP text cosine from which two prompts count as the same; null: not computed. The embedded CLIP tells styles
    # apart, not sentences: all prompts of a style have the same features.
    max_clip_text: float | None = Field(None, gt=0.0, le=1.0)
    seed: int = Field(0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            check_address(url, "prompts.base_url")
        return url


class LlmSettings(Section):
    """Requests to a language model. Part of no fingerprint."""

    timeout_s: float = Field(60.0, gt=0.0)  # for one request, to the last byte of its answer
    retries: int = Field(5, ge=0)  # further attempts at one request
    budget_tokens: int | None = Field(30_000, ge=0)  # tokens per style, in and out; null: no limit
    budget_usd: float | None = Field(None, ge=0.0)  # US dollars per style; needs the prices; null: no limit
    usd_per_million_input: float | None = Field(None, ge=0.0)  # US dollars
    usd_per_million_output: float | None = Field(None, ge=0.0)  # US dollars


class EditSettings(Section):
    """InstructPix2Pix sampling."""

    # editor: the editor makes the edits; dataset: the portraits are a 3DPE dataset with edits (docs/data.md).
    source: Literal["editor", "dataset"] = "editor"
    prompts_per_portrait: int = Field(1, ge=1)
    steps: int = Field(20, ge=1)
    guidance_scale: float = Field(7.5, ge=1.0)
    image_guidance_scale: float = Field(1.5, ge=1.0)
    # First and last share of the steps with guidance; a step without it costs a third.
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    # Sampler; null: the checkpoint's own. Samplers differ in the number of steps they need.
    scheduler: Literal["ddim", "euler", "euler_a", "dpmpp"] | None = None
    # Samples at once on a GPU; auto: as many as its free memory holds. In no fingerprint: samples stay the same.
    batch_size: CountOrAuto = 16
    seed: int = Field(0, ge=0)

    @field_validator("guidance_interval")
    @classmethod
    def _is_an_interval(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 <= interval[0] <= interval[1] <= 1.0:
            raise ValueError("input should be two shares of the steps, from 0 to 1, the smaller one first")
        return interval


class ScoreSettings(Section):
    """Measurements of a pseudo-label."""

    batch_size: int = Field(32, ge=1)  # samples at once; in no fingerprint
    constant_std: float = Field(0.01, ge=0.0)  # deviation of values in [0, 1]; a frame below counts as constant


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
    require_face: bool = False  # true: a pseudo-label without a detected face is rejected
    calibration: Literal["none", "quantile"] = "none"  # quantile: the gates' numbers come from the style's own scores
    quantile: float = Field(0.05, ge=0.0, lt=0.5)  # share of a style's samples that a calibrated gate rejects
    calibration_blocks: int = Field(4, ge=1)  # number of first blocks whose samples calibrate the gates
    keep: int | None = Field(None, ge=1)  # training samples a style needs; fewer: its blocks are attempted again
    attempts: int = Field(4, ge=1)  # attempts per block at most, the first included
    min_yield: float = Field(0.25, ge=0.0, le=1.0)  # kept / made; below it a style counts as failed
    # stop: a style below min_yield, or below keep after all attempts, ends the build. leave_out: the first gives no
    # sample to the dataset, the second those that it has; both are reported.
    on_low_yield: Literal["stop", "leave_out"] = "stop"


class TeachSettings(Section):
    """Views and triplane of each pseudo-label, as the teacher stores them."""

    views: int = Field(4, ge=1)  # novel views per sample
    triplane: Literal["none", "q8", "fp16"] = "fp16"
    view_format: Literal["npy", "jpg"] = "npy"  # npy: uint8 array; jpg: one JPEG (q95 4:4:4) a view
    yaw_range: float = Field(0.6, ge=0.0)  # rad, each side
    pitch_range: float = Field(0.25, ge=0.0)  # rad, each side
    fov_range: float = Field(0.0, ge=0.0)  # deg, each side, of the field of view; the paper's public code: 2.4
    center_range: float = Field(0.0, ge=0.0)  # share of the picture, each side, of the principal point; there: 0.1
    seed: int = Field(0, ge=0)


class DatasetSettings(Section):
    """Dataset snapshot."""

    name: str = "stillroom"
    licence: str = "see the sources of the portraits"
    # Gates over the teacher's renderings of a pseudo-label; null: open. Test samples pass every gate.
    max_teacher_lpips: float | None = Field(None, ge=0.0)  # LPIPS of the teacher's view from the portrait's camera
    min_view_identity: float | None = Field(None, ge=-1.0, le=1.0)  # mean cosine of its views to the pseudo-label


class DistillSettings(Section):
    """Training of the student: lambda_2d * L2D + lambda_3d * L3D (3DPE, section 3.2)."""

    iterations: int = Field(600, ge=1)
    # Number of first iterations that compare triplanes only. They render nothing and cost a third. The paper: 0.
    triplane_iterations: int = Field(300, ge=0)
    batch_size: int = Field(12, ge=1)  # samples per iteration over all processes
    # Samples whose gradients a process computes together; the sum over a batch is the same. auto: as many as the free
    # memory of the GPU holds; on a CPU all of them. In no fingerprint.
    micro_batch: CountOrAuto = "auto"
    lr: float = Field(2e-3, gt=0.0)  # learning rate of what E_p has of its own, from random weights
    lr_transformer: float = Field(1e-3, gt=0.0)  # learning rate of what starts trained: E_t, and E_p's encoders
    # muon: orthogonalised momentum for matrices and kernels (Jordan et al. 2024), AdamW for the rest.
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr_end_fraction: float = Field(0.1, ge=0.0, le=1.0)  # final share of lr, reached by a cosine; 1 keeps lr constant
    weight_decay: float = Field(0.0, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW, each from 0 to below 1
    clip_norm: float | None = Field(1.0, gt=0.0)  # longest gradient of a step; null: any
    # Decay of the moving average of weights, which is the student. 0: the last weights are the student.
    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)
    warmup: int = Field(20, ge=0)  # iterations
    # Precision of E_p and E_t in training; weights, rendering and losses stay float32. auto: bfloat16 where the device
    # has it in hardware.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    lambda_2d: float = Field(1.0, ge=0.0)
    lambda_3d: float = Field(1.0, ge=0.0)
    image_l2_weight: float = Field(1.0, ge=0.0)
    image_lpips_weight: float = Field(0.2, ge=0.0)  # weight of LPIPS in L2D; the paper: 2.0
    # Weight of LPIPS of the novel views in L3D; the paper: 2.0. With l2d_target pseudo_label, 0 keeps the sides sharp:
    # the teacher's views are soft.
    view_lpips_weight: float = Field(0.2, ge=0.0)
    triplane_weight: float = Field(0.1, ge=0.0)  # weight of the triplanes' L1
    depth_weight: float = Field(1.0, ge=0.0)
    # Extra weight of a place of the triplane for each multiple of the mean change by the edit; the paper: 0.
    changed_weight: float = Field(0.0, ge=0.0)
    # Extra weight of a value of the triplane for each multiple of the mean sensitivity of the teacher's pictures to it
    # (models/three_d/sensitivity.py); the paper: 0.
    sensitivity_weight: float = Field(0.0, ge=0.0)
    # Target of L2D from the portrait's camera (3DPE, equation 4). pseudo_label: the edited picture itself, as in the
    # paper; sharper, but it includes the error of an estimated camera. teacher: the teacher's rendering of it, as in
    # the paper's public code.
    l2d_target: Literal["pseudo_label", "teacher"] = "pseudo_label"
    # true: each sample is also used mirrored, its triplane made by the teacher; for small sets of portraits.
    mirror: bool = False
    image_prompt_fraction: float = Field(0.3, ge=0.0, le=1.0)  # share of samples whose prompt is an image
    # CLIP's text transformer and the MAE. learn: part of E_p, learning with it from their own weights, as in the paper.
    # frozen: as they are, each prompt read once; for trainings of minutes.
    prompt_encoder: Literal["frozen", "learn"] = "frozen"
    # Source of the teacher's part of a batch. cached: triplane and views as `teach` stored them; rendered: stored
    # triplane, new cameras; online: triplane and views are made at each step, as in the paper's public code.
    teacher: Literal["cached", "rendered", "online"] = "cached"
    view_yaw_range: float = Field(0.6, ge=0.0)  # rad, each side, of new cameras
    view_pitch_range: float = Field(0.25, ge=0.0)  # rad, each side, of new cameras
    view_fov_range: float = Field(0.0, ge=0.0)  # deg, each side, of new cameras; as teach.fov_range
    view_center_range: float = Field(0.0, ge=0.0)  # share of the picture, each side, of new cameras
    views_per_sample: int = Field(1, ge=1)  # novel views per iteration, drawn anew; cached: from the stored ones
    patch_rays: int | None = Field(16, ge=4)  # side of the compared patch of each view, rays; null: the whole view
    # MB of cached samples, of portraits' features, and of each kind of the teacher's outputs. auto: as far as the free
    # memory goes. In no fingerprint.
    memory_mb: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    checkpoint_every: int = Field(50, ge=1)  # iterations; in no fingerprint
    log_every: int = Field(10, ge=1)  # iterations between points of the curve
    grid_every: int = Field(100, ge=1)  # iterations between pictures and measurements on the val split
    seed: int = Field(0, ge=0)


class AdaptSettings(Section):
    """Customisation of a student to a style from a few pairs (3DPE, section 3.3); the rest is as in `distill`."""

    pairs: int = Field(10, ge=1)  # training pairs at most
    held_out: int = Field(4, ge=1)  # pairs at most on which the curve is measured
    seconds: float = Field(60.0, gt=0.0)  # seconds of training by the clock; measurements are not counted
    looks_s: tuple[float, ...] = (2.0, 10.0, 20.0, 60.0)  # times of measurements and pictures; the paper: 6 to 300
    batch_size: int = Field(4, ge=1)  # samples per iteration
    lr: float = Field(1e-2, gt=0.0)  # learning rate of E_p; every learning rate falls to a tenth over the time
    lr_norm: float = Field(6e-3, gt=0.0)  # learning rate of E_t's normalisation layers, which all styles share
    warmup: int = Field(10, ge=0)  # iterations
    # Share of the time in which triplanes alone are compared, as in `distill`.
    triplane_share: float = Field(0.7, ge=0.0, lt=1.0)
    # Rehearsals per pair: edits of its portrait into known styles by the unadapted student. They are half of each
    # batch and keep the old styles; the paper: 0.
    rehearsals: int = Field(8, ge=0)
    mirror: bool = True  # each pair is also used mirrored; the paper: false
    old_samples: int = Field(4, ge=1)  # test samples of each known style, measured before and after
    pairs_folder: str | None = None  # folder with input/ and edited/ pictures; null: the editor makes the pairs
    prompt: str | None = None  # prompt of the pairs in the folder; null: the prompts of the style's file
    seed: int = Field(0, ge=0)


class EvaluateSettings(Section):
    """Table 1 of the paper, and the comparison with the true styled head where it is known."""

    max_samples_per_style: int | None = Field(None, ge=1)
    samples: int | None = Field(None, ge=1)  # at most so many in all, equally many of each style; null: all
    novel_views: int = Field(2, ge=2)  # views on an ellipse around the front; of two, one is on each side
    view_yaw: float = Field(0.35, ge=0.0)  # rad, half axes of that ellipse
    view_pitch: float = Field(0.25, ge=0.0)  # rad
    # Pairs of views of each head, from cameras of random training portraits, whose mean identity is the measure 3D.
    pose_pairs: int = Field(1, ge=1)
    # Editor steps in the timing of editor + teacher; null: edit.steps. If the pseudo-labels were made with another
    # number, that is timed too, and both ratios are reported.
    timed_editor_steps: int | None = Field(None, ge=1)
    timing_repeats: int = Field(7, ge=0)  # timed runs after one that warms up; 0: only the first run, cold
    bootstrap: int = Field(1000, ge=100)  # bootstrap draws for the 95 % intervals
    pictures_per_style: int = Field(4, ge=1)
    turntable_frames: int = Field(16, ge=2)
    batch_size: int = Field(8, ge=1)  # samples at once; in no fingerprint
    seed: int = Field(0, ge=0)


class BaselinesSettings(Section):
    """The other systems of Table 1. The paper profile has their published numbers, with the source of each."""

    portraits: int = Field(4, ge=1)  # test portraits, each in every style
    # PTI and SPI: steps and learning rate of the latent, then of the generator.
    invert_steps: int = Field(150, ge=0)
    spi_invert_steps: int = Field(100, ge=0)
    invert_rate: float = Field(5e-2, gt=0.0)
    pti_steps: int = Field(80, ge=0)
    spi_steps: int = Field(60, ge=0)
    tune_rate: float = Field(1e-3, gt=0.0)
    # LPIPS at which their tuning ends early.
    pti_enough: float = Field(0.0, ge=0.0)
    spi_enough: float = Field(0.0, ge=0.0)
    # Weight of LPIPS beside L2 in both. The embedded LPIPS is some thirty times as large as the published one.
    lpips_weight: float = Field(0.03, ge=0.0)
    # StyleCLIP: steps, learning rates of a latent and of a triplane, weights of the leash and of the identity.
    styleclip_steps: int = Field(60, ge=0)
    styleclip_rate: float = Field(0.05, gt=0.0)
    live3d_rate: float = Field(0.05, gt=0.0)
    styleclip_leash: float = Field(8e-3, ge=0.0)
    styleclip_identity: float = Field(5e-3, ge=0.0)
    # StyleGAN-NADA: steps and learning rate of the synthesis; heads of a step: the portrait's, and others drawn.
    nada_steps: int = Field(40, ge=0)
    nada_rate: float = Field(5e-3, gt=0.0)  # as its `lr`, of which its optimiser takes 4/5
    nada_batch: int = Field(3, ge=1)
    seed: int = Field(0, ge=0)


class RunSettings(Section):
    """Resources of a run. Part of no fingerprint."""

    workers: int = Field(2, ge=1)  # processes
    threads: int = Field(1, ge=1, le=1024)  # torch threads per process
    # Processes that share the batches of `distill`, one GPU each. auto: a process for each visible GPU, as many of them
    # as share a batch evenly; 1 on a CPU or on a GPU that `device` names by number.
    training_processes: CountOrAuto = "auto"
    device: str = "cpu"  # cpu, cuda, cuda:N for one of several, mps or xpu
    compile: bool = False  # compile the editor's UNet: takes minutes, pays on a GPU with many edits
    cluster: str | None = None  # a file of configs/clusters; null: processes of this machine
    wait: bool = True  # until no other flow run is in work on the data root; false: run beside it
    mlflow_uri: str | None = None  # null: MLFLOW_TRACKING_URI, or sqlite under the data root

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d{1,3})?", device):
            raise ValueError("input should be cpu, cuda, or cuda:N for one of several")
        return device

    @field_validator("mlflow_uri")
    @classmethod
    def _holds_no_password(cls, uri: str | None) -> str | None:
        # Settings go into records, MLflow and reports.
        if uri and "@" in uri and not uri.startswith(("sqlite:", "file:")):
            raise UserError("run.mlflow_uri holds a password", hint="put the whole address into MLFLOW_TRACKING_URI")
        return uri


class Settings(Section):
    """All settings of a run. `profile` names their origin."""

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
    baselines: BaselinesSettings = BaselinesSettings()
    llm: LlmSettings = LlmSettings()
    run: RunSettings = RunSettings()
