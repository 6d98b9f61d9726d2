"""Golden cases computed by our networks: each family of cases by one function."""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models import camera
from models.three_d import mae, stylegan
from models.three_d.eg3d import PAPER as PAPER_GENERATOR
from models.three_d.eg3d import Generator
from models.three_d.encoder import Live3DEncoder
from models.three_d.live3d import PAPER_LT, PAPER_NORMAL, Render, TriplaneRenderer
from models.three_d.rendering import RayOptions, SamplingNoise, sample_planes, sample_rays
from models.three_d.student import PAPER, EditingEncoder
from tests.parity.cameras import eg3d_label, eg3d_look_at, focal_from_fov
from tests.parity.discriminator import Discriminator
from tests.parity.golden import Golden, weights

TOLERANCE = 1e-4  # relative, fp32 on a CPU: ten times the noise of another summation order

# Depth is sum(w * z) / sum(w). Where a ray meets almost nothing, it is a quotient of rounding errors. A
# backbone's own rounding differs by 1e-5 between processors; behind it, errors of depth count in full
# only from this opacity on.
MEANINGFUL_OPACITY = 1e-2
CONFIDENCE = "/confidence"  # an output of this name scales the errors of the output before the slash

Outputs = dict[str, Tensor]
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "eg3d_G": lambda: Generator(PAPER_GENERATOR),
    "live3d_renderer": lambda: TriplaneRenderer(PAPER_LT.renderer),
    "live3d_encoder": lambda: Live3DEncoder(PAPER_LT.encoder),
    "live3d_encoder_normal": lambda: Live3DEncoder(PAPER_NORMAL.encoder),
    "3dpe_encoder": lambda: EditingEncoder(PAPER),
    "3dpe_discriminator": Discriminator,
}


def relative_errors(path: Path) -> dict[str, float]:
    """Return the largest relative error of each output of a golden file.

    An output that has the wrong shape, or that we do not compute, counts as infinitely wrong.
    """
    golden = Golden.load(path)
    compute = CASES.get(family(golden.case))
    if compute is None:
        raise ValueError(f"{path}: unknown case {golden.case!r}; known: {', '.join(sorted(CASES))}")
    with torch.no_grad():
        outputs = compute(golden)
    return {name: _error(golden, name, outputs) for name in golden.outputs}


def golden_files(folder: Path) -> list[Path]:
    """List the golden files of a folder, cases of one network together, so that it is built once."""
    return sorted(folder.glob("*.npz"), key=lambda path: (family(path.stem), path.stem))


def _error(golden: Golden, name: str, outputs: Outputs) -> float:
    if name not in outputs:
        return math.inf
    confidence = outputs.get(name + CONFIDENCE)
    return golden.error(name, outputs[name].numpy(), None if confidence is None else confidence.numpy())


def family(case: str) -> str:
    """Return the name of a case without its number."""
    return re.sub(r"_\d+$", "", case)


@lru_cache(maxsize=2)
def _network(name: str, seed: int) -> nn.Module:
    network = BUILDERS[name]()
    state = network.state_dict()
    filled = weights({key: tuple(value.shape) for key, value in state.items()}, seed)
    network.load_state_dict(state | {key: torch.from_numpy(value) for key, value in filled.items()})
    return network.eval()


def _generator(golden: Golden) -> Generator:
    network = _network("eg3d_G", golden.seed)
    assert isinstance(network, Generator)
    return network


def _renderer(golden: Golden) -> TriplaneRenderer:
    network = _network("live3d_renderer", golden.seed)
    assert isinstance(network, TriplaneRenderer)
    return network


def _stored(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(np.asarray(golden.inputs[name], dtype=np.float32))


def _noise_mode(golden: Golden) -> stylegan.NoiseMode:
    return "const" if str(golden.meta["noise_mode"]).startswith("const") else "none"


def _camera(golden: Golden) -> Outputs:
    yaw, pitch = _stored(golden, "yaw_pitch").unbind(dim=1)
    radius, target = golden.meta["radius"], tuple(golden.meta["lookat"])
    focals = [focal_from_fov(fov) for fov in golden.meta["fovs"]]
    return {
        "cam2world": eg3d_look_at(yaw, pitch, radius, target),
        "cam2world_origin": eg3d_look_at(yaw, pitch, radius, (0.0, 0.0, 0.0)),
        "intrinsics": torch.stack([camera.intrinsics(focal) for focal in focals]),
    }


def _multiview_cameras(golden: Golden) -> Outputs:
    frames = torch.arange(0, 288, 17, dtype=torch.float64)
    phase = 2 * 3.14 * frames / 288
    half = math.pi / 2
    return {
        "multi": eg3d_label(half, half + torch.linspace(-math.pi / 6, math.pi / 6, golden.meta["n"])),
        "video": eg3d_label(1.57 - 0.05 + 0.25 * phase.cos(), 1.57 + 0.35 * phase.sin()),
        "perturbed": eg3d_label(half - 0.2, half + 0.3, 17.7, 0.45, 0.56).repeat(2, 1),
    }


def _ray_sampler(golden: Golden) -> Outputs:
    origins, directions = sample_rays(_stored(golden, "c"), golden.meta["resolution"])
    return {"origins": origins, "directions": directions}


def _plane_sampling(golden: Golden) -> Outputs:
    planes = torch.from_numpy(golden.normal("planes", (2, 3, 32, 64, 64)))
    points = torch.from_numpy(golden.uniform("xyz", (2, 500, 3), -0.62, 0.62))
    batch, count = points.shape[:2]
    options = RayOptions()
    # One plane at a time, the others zero: the mean of three is a third of the one.
    single = planes[:, None] * torch.eye(3).view(1, 3, 3, 1, 1, 1)
    features = [3 * sample_planes(single[:, p].flatten(1, 2), points, options) for p in range(3)]
    colours, density = _renderer(golden).decoder(sample_planes(planes.flatten(1, 2), points, options))
    return {
        "features": torch.stack(features, dim=1).view(batch, 3, count, 32),
        "rgb": colours,
        "sigma": density,
    }


def _volume_renderer(golden: Golden) -> Outputs:
    labels, size = _stored(golden, "c"), golden.meta["resolution"]
    planes = torch.from_numpy(golden.smooth_planes("planes", len(labels)))
    noise = None
    if family(golden.case).endswith("_injected"):
        jitter = torch.from_numpy(golden.uniform("jitter", (1, size * size, 48, 1), 0, 1))[..., 0]
        noise = SamplingNoise(jitter, torch.from_numpy(golden.uniform("u", (size * size, 48), 0, 1))[None])
    rays = _renderer(golden).render_rays(planes, labels, torch.arange(size * size), noise, size)
    shape = (len(labels), -1, size, size)
    outputs = {
        "feature_image": (rays.features * 2 - 1).transpose(1, 2).reshape(shape),
        "depth": rays.depth.view(shape),
    }
    if "weight_total" in golden.outputs:
        outputs["weight_total"] = rays.opacity.reshape([int(n) for n in golden.outputs["weight_total"]["shape"]])
    return outputs


def _pictures(render: Render) -> Outputs:
    return {
        "image": render.image,
        "image_raw": render.image_raw,
        "image_depth": render.depth,
        "feature_image": render.features,
    }


def _triplane_renderer(golden: Golden) -> Outputs:
    planes = torch.from_numpy(golden.smooth_planes("planes", 1))
    return _pictures(_renderer(golden)(planes, _stored(golden, "c")))


def _live3d_sr(golden: Golden) -> Outputs:
    size = 64 if "(1,32,64,64)" in golden.meta["inputs"] else 128
    features = torch.from_numpy(golden.normal("x", (1, 32, size, size)))
    renderer = _renderer(golden)
    style = renderer.const[0]
    if "const parameter" not in golden.meta["inputs"]:
        style = torch.from_numpy(golden.normal("ws", (1, 14, 512), 0.5))[:, -1]
    return {"image": renderer.superresolution(features[:, :3], features, style, _noise_mode(golden))}


def _eg3d_mapping(golden: Golden) -> Outputs:
    noise = torch.from_numpy(golden.normal("z", (2, 512)))
    psi, cutoff = golden.meta["truncation_psi"], golden.meta["truncation_cutoff"]
    return {"ws": _generator(golden).backbone.mapping(noise, _stored(golden, "c"), psi, cutoff)}


def _eg3d_backbone(golden: Golden) -> Outputs:
    ws = torch.from_numpy(golden.normal("ws", (1, 14, 512), 0.5))
    seen = _generator(golden).backbone.synthesis(ws, _noise_mode(golden))
    outputs = {"planes": seen[256][1]}
    for size, (hidden, image) in seen.items():
        outputs |= {f"x{size}": hidden, f"img{size}": image}
    return outputs


def _eg3d_synthesis(golden: Golden) -> Outputs:
    generator, meta = _generator(golden), golden.meta
    noise = torch.from_numpy(golden.normal("z", (1, 512)))
    psi, cutoff = meta["truncation_psi"], meta["truncation_cutoff"]
    ws = generator.backbone.mapping(noise, _stored(golden, "c_cond"), psi, cutoff)
    planes = generator.planes(ws, _noise_mode(golden))
    made = generator.render(planes, ws, _stored(golden, "c"), meta["neural_rendering_resolution"])
    return {
        "ws": ws,
        "planes": planes,
        "feature_image": made.features,
        "image": made.image,
        "image_raw": made.image_raw,
        "image_depth": made.depth,
        "image_depth" + CONFIDENCE: (made.opacity / MEANINGFUL_OPACITY).clamp(0, 1),
    }


def _eg3d_sr(golden: Golden) -> Outputs:
    features = torch.from_numpy(golden.normal("x", (1, 32, 128, 128)))
    style = torch.from_numpy(golden.normal("ws", (1, 14, 512), 0.5))[:, -1]
    image = _generator(golden).superresolution(features[:, :3], features, style, _noise_mode(golden))
    return {"image": image}


def _encoder_outputs(encoder: Live3DEncoder, images: Tensor) -> Outputs:
    indexed = encoder.with_pixel_index(images)
    low, high = encoder.branches(images)
    features = {"backbone": encoder.encoder(indexed), "low": encoder.low_features(indexed)}
    return {**features, "f": low, "high": high}


def _live3d_encoder(golden: Golden) -> Outputs:
    encoder = _network(family(golden.case), golden.seed)
    assert isinstance(encoder, Live3DEncoder)
    images = torch.from_numpy(golden.uniform("image", (1, 3, 512, 512), -1, 1))
    outputs = _encoder_outputs(encoder, images)
    return outputs | {"triplane": encoder.Final_encoder(outputs["high"], outputs["f"])}


def _editing_encoder(golden: Golden) -> Outputs:
    encoder = _network("3dpe_encoder", golden.seed)
    assert isinstance(encoder, EditingEncoder)
    images = torch.from_numpy(golden.uniform("image", (1, 3, 512, 512), -1, 1))
    prompt = encoder.Ref_encoder
    assert prompt.mae_encoder is not None
    outputs = _encoder_outputs(encoder, images)
    tokens = prompt.mae_encoder(torch.from_numpy(golden.normal("ref", (1, 3, 224, 224))))
    high_ref = prompt(outputs["high"], tokens, "image")
    triplane = encoder.Final_encoder(high_ref, outputs["f"])
    return outputs | {"mae_tokens": tokens, "high_ref": high_ref, "triplane": triplane}


def _editing_e2e(golden: Golden) -> Outputs:
    triplane = _editing_encoder(golden)["triplane"]
    return {"triplane": triplane} | _pictures(_renderer(golden)(triplane, _stored(golden, "c")))


def _mae_preprocess(golden: Golden) -> Outputs:
    if "kron" in golden.meta["inputs"]:
        pixels = np.kron(golden.pixels("image", (16, 16, 3)), np.ones((32, 32, 1), np.uint8))
    else:
        pixels = golden.pixels("image", (512, 512, 3))
    images = torch.from_numpy(pixels)[None]
    return {
        "ref_no_antialias": mae.normalise(images, 224, antialias=False),
        "ref_antialias": mae.normalise(images, 224, antialias=True),
        "pos_embed_init": mae.position_table(768, 14),
    }


def _discriminator_editing(golden: Golden) -> Outputs:
    discriminator = _network("3dpe_discriminator", golden.seed)
    pictures = [torch.from_numpy(golden.uniform(n, (2, 3, 512, 512), -1, 1)) for n in ("image", "image_ref")]
    return {"logits": discriminator(*pictures, _stored(golden, "c"))}


CASES: dict[str, Callable[[Golden], Outputs]] = {
    "camera": _camera,
    "discriminator_editing": _discriminator_editing,
    "editing_e2e": _editing_e2e,
    "editing_encoder": _editing_encoder,
    "eg3d_backbone": _eg3d_backbone,
    "eg3d_mapping": _eg3d_mapping,
    "eg3d_sr": _eg3d_sr,
    "eg3d_synthesis": _eg3d_synthesis,
    "live3d_encoder": _live3d_encoder,
    "live3d_encoder_normal": _live3d_encoder,
    "live3d_sr": _live3d_sr,
    "mae_preprocess": _mae_preprocess,
    "multiview_cameras": _multiview_cameras,
    "plane_sampling": _plane_sampling,
    "ray_sampler": _ray_sampler,
    "triplane_renderer": _triplane_renderer,
    "volume_renderer": _volume_renderer,
    "volume_renderer_injected": _volume_renderer,
}
