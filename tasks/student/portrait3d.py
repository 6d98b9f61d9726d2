"""Edited portrait in 3D: a triplane, and its pictures, videos and meshes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tasks.pictures.inline import thumbnail
from tasks.pictures.video import FPS, write_video
from tasks.student.mesh import extract_mesh, write_mesh
from tasks.student.user_portrait import Portrait

if TYPE_CHECKING:
    import trimesh
    from torch import Tensor

    from models.three_d.student import Student as Network

TURN_YAW = 0.5  # rad, each side; the student is trained on portraits, not on the back of a head
TURN_PITCH = 0.15  # rad, up and down
TURN_SECONDS = 3
# Share of the box's side within which half of the light is lost at the surface. A smaller share cuts off hair and
# ears; a larger one puts the surface before the depth of the renderer.
SURFACE = 1 / 32


@dataclass(frozen=True, eq=False, repr=False)
class Portrait3D:
    """Head that is edited once and viewed from anywhere. A notebook shows the edited portrait.

    >>> head = student.edit("portrait.png", "turn her into a bronze statue")
    >>> head.render(yaw=0.3, pitch=0.1).save("side.png")
    >>> head.save_mesh("head.ply").name
    'head.ply'

    triplane: (1, 3*C, h, w).  portrait: the input, aligned.  seconds: what making the triplane took.
    Angles are radians, 0 is frontal: yaw > 0 moves the camera to the viewer's right, pitch > 0 up.
    """

    network: Network
    triplane: Tensor
    portrait: Portrait
    seconds: float

    def __repr__(self) -> str:
        channels, height, width = self.triplane.shape[1:]
        return f"Portrait3D(triplane {channels}x{height}x{width}, {self.seconds:.3f} s, of {self.portrait!r})"

    def _repr_png_(self) -> bytes | None:
        return thumbnail(lambda: np.asarray(self.own_view()))

    def render(self, yaw: float = 0.0, pitch: float = 0.0) -> Image.Image:
        """Render the head from a camera on the orbit; the triplane stays the same."""
        return Image.fromarray(self.look(yaw, pitch))

    def own_view(self) -> Image.Image:
        """The head from the camera of the portrait: the edited portrait."""
        return Image.fromarray(self._show(self._label())[0])

    def look(self, yaw: float, pitch: float) -> np.ndarray:
        """Render as `render` does, to (H, W, 3) uint8."""
        return self.see(yaw, pitch)[0]

    def depth(self, yaw: float = 0.0, pitch: float = 0.0) -> np.ndarray:
        """World units along each ray, (h, w) float32; NaN where a ray passes the head."""
        return self.see(yaw, pitch)[1]

    def see(self, yaw: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the results of `look` and `depth` from one rendering."""
        from models.camera import orbit_label

        return self._show(orbit_label(yaw, pitch))

    def views(self, count: int) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 from left to right at eye level; a single one is frontal."""
        yaws = np.linspace(-TURN_YAW, TURN_YAW, count) if count > 1 else np.zeros(count)
        return (self.look(float(yaw), 0.0) for yaw in yaws)

    def turntable(self, count: int) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8, once around an ellipse before the face; ends where it began."""
        phases = (2 * math.pi * number / count for number in range(count))
        return (self.look(TURN_YAW * math.sin(phase), TURN_PITCH * math.cos(phase)) for phase in phases)

    def save_video(self, path: str | Path, seconds: float = TURN_SECONDS) -> Path:
        """Write the turntable as a video (.mp4, .mov, .mkv)."""
        return write_video(Path(path), self.turntable(max(1, round(seconds * FPS))))

    def mesh(self) -> trimesh.Trimesh:
        """The head's surface with vertex colours, in world units."""
        side = self.network.renderer.config.rays.box_warp
        return extract_mesh(self._field, math.log(2) / (SURFACE * side), side)

    def save_mesh(self, path: str | Path) -> Path:
        """Write the mesh (.ply, .glb, .obj)."""
        return write_mesh(Path(path), self.mesh())

    def _label(self) -> Tensor:
        import torch

        return torch.as_tensor(self.portrait.camera, dtype=torch.float32)[None]

    def _show(self, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """label: (1, 25).  Returns the picture (H, W, 3) uint8 and the depth (h, w)."""
        import torch

        from models.pixels import to_bytes

        with torch.no_grad():
            view = self.network.render(self.triplane, label.to(self.triplane))
        depth = torch.where(view.opacity > 0.5, view.depth, torch.nan)
        return to_bytes(view.image)[0], depth[0, 0].float().cpu().numpy()

    def _field(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `tasks.student.mesh.Field`."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            values = self.network.query(self.triplane, torch.from_numpy(points).to(self.triplane)[None])
            opacity = F.softplus(values.density - 1.0)  # as the renderer reads the raw density
        return values.features[0, :, :3].cpu().numpy(), opacity[0, :, 0].cpu().numpy()
