"""The embedded editor: a small InstructPix2Pix UNet on the latents of true edits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.judges.clip import Clip
from models.judges.perceptual import Perceptual
from models.libraries import diffusers, transformers
from tasks.lab.pretraining import captions
from tasks.lab.pretraining.loop import Draw, Recipe, to_signed
from tasks.lab.pretraining.pictures import LOOKS, Pictures, changed_pixels, share_out

BATCH = 16
DROP = 0.06  # share of samples without text, without image, and without either, for guidance
CHANGED_WEIGHT = 3.0  # extra weight, shared by the latents that the true edit changes: ears count as much as a statue
SMALLEST_CHANGE = 0.06  # share of the picture below which an edit's latents gain no more weight
PICTURE_FROM = 0.3  # share of the training from which on the decoded picture counts, which doubles a step's cost
PIXEL_WEIGHT, LPIPS_WEIGHT = 3.0, 0.5  # of the decoded picture, where portrait and text are given
SMALLEST_CHANGE_IN_PICTURE = 0.01  # as SMALLEST_CHANGE, of its pixels


class EditorTraining(nn.Module):
    """UNet in training, with the frozen autoencoder, text tower and LPIPS."""

    latents: Tensor  # (N, looks, C, 16, 16) float16
    changed: Tensor  # (N, looks, 1, 16, 16) float16 in [0, 1]

    def __init__(self, weights: Path) -> None:
        super().__init__()
        fresh, kept = weights / "vae", weights / "editor" / "vae"  # the saved pipeline keeps its autoencoder
        self.vae = diffusers.AutoencoderKL.from_pretrained(fresh if fresh.exists() else kept, dtype=torch.float32)
        self.vae.requires_grad_(False)
        self.clip = Clip.load(weights / "clip").requires_grad_(False)
        self.perceptual = Perceptual.load(weights / "perceptual")
        channels = int(self.vae.config.latent_channels)
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=16, in_channels=2 * channels, out_channels=channels, block_out_channels=(48, 96),
            layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4, norm_num_groups=8,
            cross_attention_dim=int(self.clip.model.config.text_config.hidden_size),
        )  # fmt: skip
        self.scheduler = diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=True, rescale_betas_zero_snr=True, timestep_spacing="trailing",
        )  # fmt: skip

    def pipeline(self) -> diffusers.StableDiffusionInstructPix2PixPipeline:
        """Return the pipeline for saving and use."""
        text = transformers.CLIPTextModel(self.clip.model.config.text_config)
        text.load_state_dict(self.clip.model.text_model.state_dict())
        return diffusers.StableDiffusionInstructPix2PixPipeline(
            vae=self.vae, text_encoder=text.eval(), tokenizer=self.clip.tokenizer, unet=self.unet,
            scheduler=self.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip


def build(weights: Path) -> nn.Module:
    return EditorTraining(weights)


@torch.no_grad()
def prepare(network: nn.Module, pictures: Pictures) -> None:
    """Encode every training picture once."""
    assert isinstance(network, EditorTraining)
    network.eval()
    latents, changed = [], []
    for crops in pictures.crops:
        latents.append(network.vae.encode(to_signed(crops)).latent_dist.mode().half())
        changed.append(nn.functional.max_pool2d(changed_pixels(crops, crops[:1]), 4).half())
    network.latents, network.changed = torch.stack(latents), torch.stack(changed)


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """Denoise the true edit's latents, given the portrait's latents and an instruction (Brooks et al., section 3.2).

    The network predicts the clean latents, so that they can be decoded: an error of the picture counts too, above all
    where nothing should change, of which the latents' squared error says little.
    """
    assert isinstance(network, EditorTraining)
    people = draw.rng.integers(len(network.latents), size=BATCH)
    looks = draw.rng.integers(len(LOOKS), size=BATCH)
    portrait = network.latents[people, 0].float()
    target = network.latents[people, looks].float()
    texts = [captions.instruction(LOOKS[look], draw.rng) for look in looks]
    drop = draw.rng.random(BATCH)
    texts = ["" if value < 2 * DROP else text for value, text in zip(drop, texts, strict=True)]
    without_image = torch.from_numpy((drop >= DROP) & (drop < 3 * DROP))
    portrait = torch.where(without_image[:, None, None, None], torch.zeros(()), portrait)
    noise = torch.randn(target.shape, generator=draw.torch_rng)
    timesteps = torch.randint(1000, (BATCH,), generator=draw.torch_rng)
    noisy = network.scheduler.add_noise(target, noise, timesteps)
    tokens = network.clip.text_tokens(texts)
    output = network.unet(torch.cat([noisy, portrait], dim=1), timesteps, tokens).sample.float()
    weight = share_out(network.changed[people, looks].float(), SMALLEST_CHANGE, CHANGED_WEIGHT)
    latents = ((output - target).square() * weight).mean()
    parts = {"mse": (output - target).square().mean()}
    if draw.progress < PICTURE_FROM:
        return latents, parts
    told = drop >= 3 * DROP  # of both, portrait and text
    truth, plain = pictures.crops[people[told], looks[told]], pictures.crops[people[told], 0]
    picture = picture_error(network, output[torch.from_numpy(told)], truth, plain)
    return latents + picture, parts | {"picture": picture}


def picture_error(network: EditorTraining, output: Tensor, truth: np.ndarray, plain: np.ndarray) -> Tensor:
    """L1 and LPIPS of the decoded latents (B, C, 16, 16) to the true edits.  truth, plain: (B, 64, 64, 3) uint8."""
    if not len(output):  # of an empty mean there is none
        return output.sum()
    picture, true_edit = network.vae.decode(output).sample.float(), to_signed(truth)
    weight = share_out(changed_pixels(truth, plain), SMALLEST_CHANGE_IN_PICTURE, 1.0)
    pixels = ((picture - true_edit).abs() * weight).mean()
    return PIXEL_WEIGHT * pixels + LPIPS_WEIGHT * network.perceptual(picture, true_edit).mean()


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, EditorTraining)
    pipeline = network.pipeline().to(dtype=torch.float16)
    words = pipeline.tokenizer.backend_tokenizer  # keeps the lengths of its last call, which are no part of it
    words.no_truncation()
    words.no_padding()
    pipeline.save_pretrained(folder / "editor")
    described = folder / "editor" / "vae" / "config.json"  # diffusers notes the folder that it was read from
    entries = json.loads(described.read_text())
    entries.pop("_name_or_path", None)
    described.write_text(json.dumps(entries, indent=2) + "\n")
    shutil.rmtree(folder / "vae", ignore_errors=True)  # the pipeline holds it from now on


RECIPE = Recipe(
    "editor", steps=12000, lr=2e-3, build=build, loss=loss, save=save, prepare=prepare,
    bfloat16=True, ema=0.998, optimizer="muon",
)  # fmt: skip
