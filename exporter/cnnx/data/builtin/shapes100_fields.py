"""Shapes and textures of the set "shapes100", as signed distance fields.

A shape gives the distance to its edge, negative inside. All shapes have area 2, that of a disc of radius 0.8,
so that size does not reveal the class. A texture gives the distance to the boundary between its two colours,
positive in the first; its period is 1. Each field equals its mirror image up to rotation or translation.

Only + - * / sqrt, floor and comparisons of float32 are used, which IEEE 754 defines to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnx.data.builtin.draws import Floats

Field = Callable[[Floats, Floats], Floats]


def evaluate(fields: Sequence[Field], kinds: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
    """Evaluate the field of each image's kind at its coordinates, (N, size, size)."""
    values = np.empty_like(x)
    for kind, field in enumerate(fields):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            values[rows] = field(x[rows], y[rows])
    return values


def _disc(x: Floats, y: Floats) -> Floats:
    return _radius(x, y) - 0.798


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - 0.707


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(-y, 0.8660254 * np.abs(x) + 0.5 * y) - 0.62


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.93, np.minimum(x, y) - 0.323)


def _star(x: Floats, y: Floats) -> Floats:
    """Star with five points at radius 1.17 and five notches at radius 0.58.

    Mirroring at three axes of symmetry reduces the plane to a wedge of 36 degrees, from a point on the y axis
    to its notch. The edge is a single straight line in this wedge.
    """
    x = np.abs(x)
    twice = 2 * np.maximum(0.80901699 * x - 0.58778525 * y, 0)
    x, y = x - 0.80901699 * twice, y + 0.58778525 * twice
    twice = 2 * np.maximum(-0.80901699 * x - 0.58778525 * y, 0)
    x, y = np.abs(x + 0.80901699 * twice), y + 0.58778525 * twice
    return 0.8984 * x + 0.4392 * (y - 1.17)


def _plain(u: Floats, _v: Floats) -> Floats:
    return np.ones_like(u)


def _striped(u: Floats, _v: Floats) -> Floats:
    return bands(u)


def _checked(u: Floats, v: Floats) -> Floats:
    across, down = bands(0.75 * u), bands(0.75 * v)
    return np.maximum(np.minimum(across, -down), np.minimum(-across, down))


def _dotted(u: Floats, v: Floats) -> Floats:
    return 0.37 - _radius(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5)


def _ringed(u: Floats, v: Floats) -> Floats:
    return bands(_radius(u, v))


def bands(u: Floats) -> Floats:
    """Return the distance to the edges of bands half a period wide: a triangle wave from -1/4 to 1/4."""
    wave: Floats = 0.25 - np.abs(u - np.floor(u) - 0.5)
    return wave


def _radius(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y)


SHAPES: dict[str, Field] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}
TEXTURES: dict[str, Field] = {
    "plain": _plain,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "ringed": _ringed,
}
