"""The look of a scene: season, sun, materials. Colours are sRGB in 0 .. 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = NDArray[np.float32]

# Each season: grass, dry grass, soil, wood, other wood, deep water, shallow water.
_SEASONS = {
    "spring": ((88, 116, 56), (120, 132, 74), (134, 112, 84), (52, 84, 38), (78, 108, 50), (42, 62, 72), (78, 98, 90)),
    "summer": ((102, 112, 62), (146, 138, 92), (152, 128, 96), (38, 62, 34), (58, 78, 40), (36, 58, 62), (74, 96, 84)),
    "autumn": ((112, 108, 66), (138, 122, 84), (118, 94, 72), (96, 78, 40), (128, 88, 42), (44, 54, 58), (84, 88, 78)),
    "arid": (
        (158, 142, 106),
        (184, 164, 128),
        (196, 172, 136),
        (64, 74, 46),
        (88, 92, 58),
        (38, 78, 92),
        (92, 128, 126),
    ),
    "winter": ((110, 104, 78), (130, 120, 94), (116, 100, 82), (74, 68, 54), (54, 62, 44), (52, 60, 66), (88, 92, 90)),
}
# Crop colours: young, lush and dark green, rape, ripe grain, stubble, bare brown, bare pale.
_CROPS = (
    (118, 138, 74), (86, 124, 54), (58, 88, 42), (178, 168, 72),
    (186, 164, 104), (172, 154, 112), (112, 88, 66), (156, 132, 102),
)  # fmt: skip
_CROP_CHANCES = {
    "spring": (5, 5, 3, 2, 0.3, 0.5, 3, 2),
    "summer": (2, 4, 3, 0.5, 4, 3, 1, 1),
    "autumn": (2, 1, 1, 0.1, 1, 4, 4, 3),
    "arid": (2, 4, 2, 0.2, 1, 2, 2, 4),
    "winter": (4, 1, 0.5, 0.1, 0.3, 2, 5, 3),
}
# Tile red, brown, dark grey, mid grey, white, sand, and two that are taken for water.
_ROOFS = (
    (156, 84, 62), (112, 84, 68), (78, 78, 82), (136, 136, 134),
    (214, 212, 206), (176, 158, 130), (58, 84, 104), (52, 68, 74),
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """Colours and light of one scene; colours are (3,) or (n, 3) float32."""

    grass: Color
    dry_grass: Color
    soil: Color
    wood: Color
    other_wood: Color
    deep_water: Color
    shallow_water: Color
    asphalt: Color
    crops: Color  # (8, 3)
    crop_chances: NDArray[np.float64]  # (8,)
    roofs: Color  # (8, 3)
    roof_chances: NDArray[np.float64]  # (8,)
    sun: tuple[float, float]  # where the light comes from in the picture: unit vector (x, y)
    elevation: float  # of the sun above the horizon, radians

    def shadow(self, height: float) -> tuple[float, float]:
        """Return how far (x, y) the shadow of something ``height`` pixels high falls."""
        length = height / math.tan(self.elevation)
        return -self.sun[0] * length, -self.sun[1] * length

    @classmethod
    def random(cls, rng: np.random.Generator) -> Palette:
        """Draw a palette between two seasons, with hues of its own."""
        names = list(_SEASONS)
        first, second = (names[k] for k in rng.choice(len(names), 2, replace=False, p=[0.28, 0.28, 0.2, 0.12, 0.12]))
        mix = float(rng.beta(0.8, 2.5))
        ground = _vary(rng, (1 - mix) * np.array(_SEASONS[first]) + mix * np.array(_SEASONS[second]), 0.09)
        # Water between blue and brown, between green and blue.
        ground[5:] += rng.normal(0, 0.03) * np.array([-1, 0.3, 1], np.float32)
        ground[5:] += rng.normal(0, 0.03) * np.array([1, 1, -0.3], np.float32)
        grass, dry_grass, soil, wood, other_wood, deep_water, shallow_water = np.clip(ground, 0.03, 0.97)
        asphalt = rng.uniform(0.3, 0.62) + rng.uniform(0, 0.07) * np.array([1, 0.4, -0.6])
        chances = (1 - mix) * np.array(_CROP_CHANCES[first]) + mix * np.array(_CROP_CHANCES[second])
        azimuth = rng.uniform(0, 2 * math.pi)
        return cls(
            grass=grass,
            dry_grass=dry_grass,
            soil=soil,
            wood=wood,
            other_wood=other_wood,
            deep_water=deep_water,
            shallow_water=shallow_water,
            asphalt=asphalt.astype(np.float32),
            crops=_vary(rng, np.array(_CROPS), 0.08),
            crop_chances=chances / chances.sum(),
            roofs=_vary(rng, np.array(_ROOFS), 0.06),
            roof_chances=rng.dirichlet([2.2, 1.2, 1, 1.2, 0.7, 0.9, 0.45, 0.4]),
            sun=(math.cos(azimuth), math.sin(azimuth)),
            elevation=math.radians(rng.uniform(30, 62)),
        )


def _vary(rng: np.random.Generator, colors: NDArray[Any], deviation: float) -> Color:
    """Return 8-bit ``colors`` (n, 3) as 0 .. 1, hue and brightness changed by about the share ``deviation``."""
    factor = np.exp(rng.normal(0, 0.7 * deviation, colors.shape) + rng.normal(0, 0.7 * deviation, (len(colors), 1)))
    return np.clip(colors / 255 * factor, 0, 1).astype(np.float32)
