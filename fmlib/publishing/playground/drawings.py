"""Pictures of two of the photographs' classes, drawn in code and chosen such that networks N and A recognise them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: A drawing is made at this many times the side of the picture, and averaged.
FINE = 8


class Drawing:
    """A square gray picture of shapes; places and lengths are shares of its side, levels are 0 (black) to 255."""

    def __init__(self, side: int, level: float) -> None:
        self.side = side
        self.y, self.x = (np.mgrid[: side * FINE, : side * FINE] + 0.5) / (side * FINE)
        self.levels = np.full_like(self.x, level)

    def ellipse(self, x: float, y: float, width: float, height: float, level: float, degrees: float = 0) -> None:
        """A filled ellipse about (x, y), with half-axes `width` and `height`, turned clockwise."""
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        along, across = (self.x - x) * cos + (self.y - y) * sin, (self.y - y) * cos - (self.x - x) * sin
        self.levels[(along / width) ** 2 + (across / height) ** 2 <= 1] = level

    def rectangle(self, left: float, top: float, right: float, bottom: float, level: float) -> None:
        """A filled rectangle."""
        self.levels[(self.x >= left) & (self.x <= right) & (self.y >= top) & (self.y <= bottom)] = level

    def picture(self) -> Tensor:
        """The pixels: uint8 (side, side)."""
        blocks = self.levels.reshape(self.side, FINE, self.side, FINE)
        return torch.from_numpy(blocks.mean((1, 3)).round().astype(np.uint8))


def dog(side: int) -> Tensor:
    """The head of an English springer: dark ears beside a white blaze. uint8 (side, side)."""
    drawn = Drawing(side, 110)
    drawn.ellipse(0.5, 1.1, 0.38, 0.35, 225)  # chest
    drawn.ellipse(0.5, 0.42, 0.24, 0.30, 40)  # head
    drawn.ellipse(0.5, 0.46, 0.085, 0.32, 235)  # blaze
    drawn.ellipse(0.5, 0.62, 0.15, 0.14, 235)  # muzzle
    for side_of_face in (-1, 1):
        drawn.ellipse(0.5 + 0.26 * side_of_face, 0.48, 0.10, 0.26, 30, -12 * side_of_face)  # ear
        drawn.ellipse(0.5 + 0.10 * side_of_face, 0.40, 0.035, 0.03, 5)  # eye
    drawn.ellipse(0.5, 0.60, 0.06, 0.045, 5)  # nose
    return drawn.picture()


def cassette_player(side: int) -> Tensor:
    """A cassette player with two loudspeakers and a handle. uint8 (side, side)."""
    drawn = Drawing(side, 200)
    drawn.ellipse(0.5, 0.30, 0.225, 0.20, 30)  # handle
    drawn.ellipse(0.5, 0.30, 0.195, 0.17, 200)
    drawn.rectangle(0.05, 0.30, 0.95, 0.80, 15)  # case
    drawn.rectangle(0.063, 0.313, 0.937, 0.787, 80)
    for x in (0.235, 0.765):
        for radius, level in ((0.152, 25), (0.121, 70), (0.078, 30), (0.035, 150)):
            drawn.ellipse(x, 0.537, radius, radius, level)
    drawn.rectangle(0.41, 0.46, 0.59, 0.664, 10)  # deck
    drawn.rectangle(0.418, 0.468, 0.582, 0.656, 190)
    for x in (0.459, 0.541):
        drawn.ellipse(x, 0.555, 0.027, 0.027, 20)
    drawn.rectangle(0.40, 0.342, 0.605, 0.43, 220)  # dial
    for button in range(5):
        drawn.rectangle(0.402 + 0.04 * button, 0.693, 0.434 + 0.04 * button, 0.742, 200)
    return drawn.picture()


#: Name -> title and the function that draws the picture at a side. The first is the one on which the page opens.
DRAWINGS = {
    "dog": ("Dog, drawn in code", dog),
    "cassette-player": ("Cassette player, drawn in code", cassette_player),
}
