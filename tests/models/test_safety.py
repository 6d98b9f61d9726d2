"""Findings of a safety checker are a verdict on a sample, never a black frame in its place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.judges.safety import SafetyChecker
from models.libraries import transformers
from tasks.score import Judges, Pair, score_pairs
from tests.worlds.chain import SETTINGS, networks
from tests.worlds.tiny import noise_picture

CAMERA = np.array([*np.eye(4).ravel(), 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1])


@pytest.fixture
def checker(tmp_path: Path) -> SafetyChecker:
    """A small one, loaded from a pipeline's folders; it finds what is mostly white."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=tower, vision_config=tower | {"image_size": 224, "patch_size": 112}, projection_dim=8
    )
    torch.manual_seed(0)
    made = StableDiffusionSafetyChecker(config).eval()
    white = torch.full((1, 3, 224, 224), 2.0)
    with torch.no_grad():
        made.concept_embeds.copy_(made.visual_projection(made.vision_model(white)[1]).expand(17, -1))
        made.concept_embeds_weights.fill_(0.995)
        made.special_care_embeds_weights.fill_(2.0)
    made.save_pretrained(tmp_path / "safety_checker")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "feature_extractor")
    return SafetyChecker(tmp_path)


def test_each_sample_has_its_own_verdict_and_no_picture_is_touched(checker: SafetyChecker) -> None:
    pictures = np.stack([noise_picture(0), np.full((64, 64, 3), 255, np.uint8), noise_picture(1)])
    before = pictures.copy()
    assert checker.unsafe(pictures) == [False, True, False]
    assert np.array_equal(pictures, before)


def test_the_verdict_is_a_score_of_the_sample(checker: SafetyChecker) -> None:
    judges: Judges = replace(networks()[0], safety=checker)
    white = np.full((64, 64, 3), 255, np.uint8)
    white[::9, ::7] = 200  # not of one colour, or it would be lost for that
    pairs = [
        Pair("good", "train", noise_picture(0), noise_picture(1), CAMERA),
        Pair("bad", "train", noise_picture(0), white, CAMERA),
    ]
    scored = score_pairs(judges, pairs, ("a person", "a statue"), SETTINGS)
    assert [(row.score_unsafe, row.score_constant) for row in scored] == [(False, False), (True, False)]
