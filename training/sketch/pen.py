"""Flat shapes and tapered lines, given in face units or any other and drawn onto a picture."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

from .identities import Color


@functools.cache
def span(count: int) -> np.ndarray:
    return np.linspace(-1, 1, count)


@functools.cache
def _spline_basis(num_points: int, closed: bool, steps: int) -> np.ndarray:
    """(num_samples, num_points) weights of a Catmull-Rom curve through the points."""
    num_segments = num_points if closed else num_points - 1
    basis = np.zeros((num_segments * steps + (not closed), num_points))
    for row in range(len(basis)):
        segment, t = divmod(row / steps, 1)
        segment = int(segment)
        weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            index = segment + offset
            index = index % num_points if closed else min(max(index, 0), num_points - 1)
            basis[row, index] += weight / 2
    return basis


def curve(points, *, closed: bool = False, steps: int = 6) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    return _spline_basis(len(points), closed, steps) @ points


def line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([x, y]).T


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline of the region between two curves over `x`; where they cross the region is empty."""
    return np.concatenate([line(x, top), line(x, np.maximum(bottom, top))[::-1]])


def mirrored(right_side) -> np.ndarray:
    """A closed outline from its right half, given from top to bottom; both ends lie on the axis."""
    right = np.asarray(right_side, dtype=float)
    return np.concatenate([right, (right[1:-1] * (-1, 1))[::-1]])


CIRCLE = np.array([(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 2 * math.pi, 24, endpoint=False)])
# Shares of the normal and of the direction of a line that round its end, from one side to the other.
CAP = np.array([(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, math.pi, 7)[1:-1]])


class Pen:
    """Draws shapes given in face units onto a picture."""

    def __init__(self, image: Image.Image, *, scale: float, center: tuple[float, float], tilt: float = 0.0):
        self.draw = ImageDraw.Draw(image)
        cos, sin = scale * math.cos(tilt), scale * math.sin(tilt)
        self.matrix = np.array([[cos, sin], [-sin, cos]])
        self.center = np.array(center)

    def fill(self, points: np.ndarray, color: Color) -> None:
        self.draw.polygon((points @ self.matrix + self.center).ravel().tolist(), fill=color)

    def disc(self, center, radius, color: Color) -> None:
        self.fill(np.asarray(center) + CIRCLE * radius, color)

    def stroke(self, points: np.ndarray, width: float, color: Color, *, taper: float = 0.0) -> None:
        """A line of `width` along `points`, its ends thinner by `taper` (0 to 1) and round."""
        steps = np.empty_like(points)
        steps[1:-1] = points[2:] - points[:-2]
        steps[0], steps[-1] = points[1] - points[0], points[-1] - points[-2]
        half = width / 2 * (1 - taper * span(len(points)) ** 2)
        steps *= (half / np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9))[:, None]
        normal = steps[:, ::-1] * (1, -1)
        sides = [points + normal, (points - normal)[::-1]]
        if width * (1 - taper) > 0.025:
            sides.insert(1, points[-1] + CAP @ np.array([normal[-1], steps[-1]]))
            sides.append(points[0] - CAP @ np.array([normal[0], steps[0]]))
        self.fill(np.concatenate(sides), color)

    def outline(self, points: np.ndarray, width: float, color: Color) -> None:
        normal = (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))[:, ::-1] * (1, -1)
        normal *= width / 2 / np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
        outer, inner = points + normal, points - normal
        self.fill(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), color)
