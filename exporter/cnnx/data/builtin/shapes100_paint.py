"""Paints the scenes of the set "shapes100" layer by layer, for a batch of images at once.

Lengths are fractions of the image side, so a scene is the same at every size. Edges are as wide as the
scene's blur, at least one pixel. Brightness ranges from 0 to 1. Scalars have shape (N, 1, 1), colours
(3, N, 1, 1) and pixel planes (N, size, size). Only the operations of
`cnnx.data.builtin.shapes100_fields` are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.data.builtin.draws import Draws, Floats
from cnnx.data.builtin.shapes100_fields import SHAPES, TEXTURES, bands, evaluate

ARRANGEMENTS: dict[str, tuple[tuple[float, float], ...]] = {
    "alone": ((0, 0),),
    "pair": ((-0.5, 0), (0.5, 0)),
    "row": ((-1, 0), (0, 0), (1, 0)),
    "trio": ((0, -0.62), (-0.54, 0.31), (0.54, 0.31)),
}
"""Centres of the figures; neighbours are about 1 apart."""

_MOST = 3
_COUNTS = np.array([len(centres) for centres in ARRANGEMENTS.values()])
# Padded by repeating the last centre, so that the extent of an arrangement does not change.
_CENTRES = np.array(
    [centres + centres[-1:] * (_MOST - len(centres)) for centres in ARRANGEMENTS.values()], np.float32
)
# Smallest and largest radius of a figure, by arrangement.
_RADII = np.array([(0.19, 0.34), (0.155, 0.22), (0.125, 0.158), (0.145, 0.19)], np.float32)
_BEHIND, _BEFORE = 5, 3
_BYTES = np.uint64(0x00FF00FF00FF00FF)
_NOISE_DEVIATION = 104.5  # of the sum of two bytes


@dataclass(frozen=True, slots=True)
class _Scene:
    """Values shared by several layers: pixel coordinates, and parameters drawn once per image."""

    draws: Draws
    x: Floats
    y: Floats
    blur: Floats
    ground: Floats
    contrast: Floats

    def colour(self, level: Floats | float) -> Floats:
        """Draw a colour close to the gray that is `level` contrasts away from the ground."""
        return self.ground + self.contrast * level + self.draws.uniforms(3, -0.12, 0.12)

    def inside(self, distance: Floats) -> Floats:
        """Return the share of each pixel inside an edge, from the signed distance (negative inside)."""
        return np.clip(0.5 - distance / self.blur, 0, 1)


def paint(draws: Draws, kinds: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Paint one scene for each random stream.

    Args:
        draws: N random streams.
        kinds: indices into `SHAPES`, `TEXTURES` and `ARRANGEMENTS`, (3, N).
        size: side in pixels.

    Returns:
        Pixels, (N, size, size, 3).
    """
    scene = _scene(draws, size)
    canvas = _backdrop(scene)
    busy = draws.uniform(0.2, 1)
    for _ in range(_BEHIND):
        _fragment(scene, canvas, busy)
    _figures(scene, canvas, *kinds)
    for _ in range(_BEFORE):
        _fragment(scene, canvas, busy)
    _light(scene, canvas)
    return _photograph(scene, canvas)


def _scene(draws: Draws, size: int) -> _Scene:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    ground = draws.uniform(0.2, 0.8)
    darker = ground > draws.uniform(0.35, 0.65)
    contrast = draws.uniform(0.14, 0.5)
    return _Scene(
        draws=draws,
        x=axis[None, None, :],
        y=axis[None, :, None],
        blur=np.maximum(draws.uniform(0, 0.04), 1 / size),
        ground=ground,
        contrast=np.where(darker, -contrast, contrast),
    )


def _backdrop(scene: _Scene) -> Floats:
    """Paint the ground's colour with two waves across it, (3, N, size, size)."""
    draws = scene.draws
    cos, sin = draws.directions(2)
    pitch, phase = draws.uniforms(2, 1.5, 9), draws.uniforms(2, 0, 1)
    first, second = (
        bands(cos[i] * pitch[i] * scene.x + sin[i] * pitch[i] * scene.y + phase[i]) for i in range(2)
    )
    return scene.colour(0) + (first + second) * draws.uniform(0, 0.32)


def _fragment(scene: _Scene, canvas: Floats, busy: Floats) -> None:
    """Paint, with probability `busy`, a bar with round ends at a random position and brightness."""
    draws = scene.draws
    left, top = draws.uniforms(2, 0, 1)
    cos, sin = draws.directions(1)
    half, radius = draws.uniform(0, 0.16), draws.uniform(0.012, 0.045)
    colour = scene.colour(draws.uniform(-1.1, 1.1))
    shown = draws.uniform(0, 1) < busy
    x, y = scene.x - left, scene.y - top
    along = np.maximum(np.abs(cos[0] * x + sin[0] * y) - half, 0)
    across = cos[0] * y - sin[0] * x
    distance = np.sqrt(along * along + across * across) - radius
    canvas += (colour - canvas) * (scene.inside(distance) * shown)


def _figures(
    scene: _Scene,
    canvas: Floats,
    shape: NDArray[np.int64],
    texture: NDArray[np.int64],
    arrangement: NDArray[np.int64],
) -> None:
    """Paint the figures that define the class; they vary in position, rotation and, slightly, size."""
    draws = scene.draws
    smallest, largest = _RADII[arrangement].T[:, :, None, None]
    radius = smallest + (largest - smallest) * draws.uniform(0, 1)
    x, y = _about_nearest(scene, _centres(draws, arrangement, radius), _COUNTS[arrangement], radius)
    stretch = draws.uniform(0.86, 1)
    x, y = x * stretch, y / stretch
    body = scene.inside(evaluate(list(SHAPES.values()), shape, x, y) * radius)

    period, phase = draws.uniform(0.62, 0.95), draws.uniforms(2, -0.3, 0.3)
    cos, sin = (each[0] / period for each in draws.directions(1))
    u, v = cos * x + sin * y + phase[0], cos * y - sin * x + phase[1]
    share = scene.inside(evaluate(list(TEXTURES.values()), texture, u, v) * (-period * radius))
    first, second = _two_colours(scene, texture)
    canvas += (second + (first - second) * share - canvas) * body


def _centres(draws: Draws, arrangement: NDArray[np.int64], radius: Floats) -> Floats:
    """Return x and y of the figures, (2, 3, N, 1, 1): the arrangement, rotated and jittered."""
    spacing = radius * draws.uniform(2.2, 2.7)
    cos, sin = (each[0] * spacing for each in draws.directions(1))
    x, y = _CENTRES[arrangement].T[..., None, None]
    centres = np.stack([cos * x - sin * y, sin * x + cos * y])
    centres += draws.uniforms(2 * _MOST, -0.12, 0.12).reshape(centres.shape) * radius
    margin = 1.05 * radius
    low, high = margin - centres.min(axis=1), 1 - margin - centres.max(axis=1)
    room = np.maximum(high - low, 0)
    shift = (low + high) / 2 + room * draws.uniforms(2, -0.5, 0.5)
    placed: Floats = centres + shift[:, None]
    return placed


def _about_nearest(
    scene: _Scene, centres: Floats, counts: NDArray[np.int64], radius: Floats
) -> tuple[Floats, Floats]:
    """Return each pixel's coordinates along the axes of the nearest figure, in units of its radius."""
    cos, sin = scene.draws.directions(_MOST)
    scale = 1 / (radius * scene.draws.uniforms(_MOST, 0.88, 1.12))
    nearest = np.full((len(counts), scene.y.size, scene.x.size), np.inf, np.float32)
    u, v = np.empty_like(nearest), np.empty_like(nearest)
    for figure in range(_MOST):
        x, y = scene.x - centres[0, figure], scene.y - centres[1, figure]
        squared = x * x + y * y
        nearer = (squared < nearest) & (figure < counts)[:, None, None]
        c, s = cos[figure] * scale[figure], sin[figure] * scale[figure]
        np.copyto(u, c * x + s * y, where=nearer)
        np.copyto(v, c * y - s * x, where=nearer)
        np.copyto(nearest, squared, where=nearer)
    return u, v


def _two_colours(scene: _Scene, texture: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Draw the two colours of a texture in random order; a plain texture shows the stronger one.

    One colour contrasts with the ground. The other is between it and the ground, or beyond the ground.
    """
    draws = scene.draws
    strong = scene.colour(1)
    between, beyond = draws.uniform(0.2, 0.45), draws.uniform(-0.9, -0.3)
    other = scene.colour(np.where(draws.coin(), between, beyond))
    straight = draws.coin() | (texture == list(TEXTURES).index("plain"))[:, None, None]
    return np.where(straight, strong, other), np.where(straight, other, strong)


def _light(scene: _Scene, canvas: Floats) -> None:
    """Brighten one side of the image and darken the other."""
    cos, sin = (each[0] for each in scene.draws.directions(1))
    slope = scene.draws.uniform(0, 0.6)
    canvas *= 1 + slope * (cos * (scene.x - 0.5) + sin * (scene.y - 0.5))


def _photograph(scene: _Scene, canvas: Floats) -> NDArray[np.uint8]:
    """Add sensor noise, each value the sum of two random bytes, and round to 8 bits."""
    _, count, size, _ = canvas.shape
    strength = scene.draws.uniform(0.01, 0.09) * (255 / _NOISE_DEVIATION)
    words = scene.draws.words(-(-3 * size * size // 4))
    sums = (words & _BYTES) + (words >> np.uint64(8) & _BYTES)
    noise = sums.astype("<u8", copy=False).view("<u2")[:, : 3 * size * size].reshape(count, 3, size, size)
    values = canvas * 255 + (noise.swapaxes(0, 1).astype(np.float32) - 255) * strength
    pixels: NDArray[np.uint8] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 3, 0))
