"""Colour of the ground: land, fields with crop rows, water, and the trees over them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic.layout import Layout, Parcels
from segshrink.data.synthetic.noise import Surface, fractal_noise, shifted, smooth_noise
from segshrink.data.synthetic.palette import Color, Palette

Picture = NDArray[np.float32]


def cover(picture: Picture, color: Picture | Color, share: Surface) -> None:
    """Lay ``color`` ((3,) or (H, W, 3)) over ``picture`` (H, W, 3) in place where ``share`` (H, W) is above 0."""
    picture += share[..., None] * (color - picture)


def paint_land(rng: np.random.Generator, layout: Layout, palette: Palette) -> Picture:
    """Return (H, W, 3): grass, dry grass and soil in patches, greener gardens and paved yards in settlements."""
    size = layout.size
    dryness = np.clip(0.4 + 0.35 * fractal_noise(rng, size, 130), 0, 1)[..., None]
    land: Picture = palette.grass + dryness * (palette.dry_grass - palette.grass)
    bare = np.clip(fractal_noise(rng, size, 60) * 0.9 - float(rng.uniform(0.3, 1.3)), 0, 1)
    cover(land, palette.soil, bare)
    gardens = smooth_noise(rng, size, 16)
    lush = np.clip(gardens - 0.2, 0, 1) * layout.settlement * np.float32(0.5)
    cover(land, palette.grass * np.float32(0.9), lush)
    yards = np.clip(-gardens * 1.5 - float(rng.uniform(0.6, 2.0)), 0, 1) * layout.settlement
    cover(land, (palette.asphalt + palette.soil) * np.float32(0.55), yards)
    texture = 1 + 0.05 * smooth_noise(rng, size, 2.2) + 0.05 * smooth_noise(rng, size, 6)
    land *= texture[..., None]
    return land


def paint_fields(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint the parcels: one crop each, rows along its axis, tramlines, uneven growth."""
    parcels = layout.parcels
    there = np.nonzero(parcels.index >= 0)
    if not there[0].size:
        return
    color, strength = _crop_choices(rng, parcels, palette)
    index = parcels.index[there]
    rows = _crop_rows(rng, parcels, there, scale=layout.scale)
    growth = (
        fractal_noise(rng, layout.size, 70)[there] * strength[index] + smooth_noise(rng, layout.size, 1.7)[there] * 0.03
    )
    shade = (1 + rows + growth.astype(np.float32))[:, None]
    picture[there] = color[index] * shade


def _crop_choices(rng: np.random.Generator, parcels: Parcels, palette: Palette) -> tuple[Color, Surface]:
    """Return each parcel's colour (n, 3) and how unevenly it grows (n,)."""
    count = parcels.count
    crop = rng.choice(len(palette.crops), count, p=palette.crop_chances)
    color = palette.crops[crop] * np.exp(rng.normal(0, 0.07, (count, 1)) + rng.normal(0, 0.03, (count, 3)))
    # Bare and fallow parcels take the colour of the land about them: only texture and outline tell them apart.
    bare = rng.random(count) < 0.15
    color[bare] = palette.soil * rng.uniform(0.85, 1.05, (int(bare.sum()), 1))
    fallow = rng.random(count) < 0.1
    color[fallow] = (palette.grass + palette.dry_grass) / 2
    return color.astype(np.float32), rng.uniform(0.03, 0.1, count).astype(np.float32)


def _crop_rows(
    rng: np.random.Generator, parcels: Parcels, there: tuple[NDArray[np.intp], ...], *, scale: float
) -> Surface:
    """Return the brightness change (n,) by crop rows and tramlines at the field pixels ``there``."""
    count = parcels.count
    index = parcels.index[there]
    period = (rng.uniform(2.6, 6.5, count) * scale).astype(np.float32)[index]
    strength = (rng.uniform(0.02, 0.13, count)).astype(np.float32)[index]
    across = parcels.across[there]
    rows: Surface = np.sin(across * np.float32(2 * math.pi) / period) * strength
    spacing = (rng.uniform(16, 30, count) * scale).astype(np.float32)[index]
    tram_strength = (rng.uniform(0, 0.2, count) * (rng.random(count) < 0.6)).astype(np.float32)[index]
    rows -= (np.abs(across % spacing - np.float32(1.5)) < 1.2) * tram_strength
    return rows


def paint_water(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint wet banks, shallows and deep water with ripples and, in some scenes, glint."""
    if not (layout.water > -6).any():
        return
    size = layout.size
    bank = np.clip(1 + layout.water / np.float32(rng.uniform(3, 7)), 0, 1) * np.float32(rng.uniform(0.2, 0.8))
    cover(picture, palette.soil * np.float32(0.9), bank)
    depth = np.clip(layout.water / np.float32(rng.uniform(6, 22)), 0, 1)[..., None]
    water = palette.shallow_water + depth * (palette.deep_water - palette.shallow_water)
    weeds = np.clip(fractal_noise(rng, size, 50) - float(rng.uniform(0.8, 2.2)), 0, 1) * np.float32(0.6)
    cover(water, palette.grass * np.float32(0.7), weeds)
    ripples = smooth_noise(rng, size, 2.5) * float(rng.uniform(0.01, 0.05)) + smooth_noise(rng, size, 90) * 0.06
    water *= (1 + ripples)[..., None]
    if rng.random() < 0.25:
        glint = np.clip(smooth_noise(rng, size, 1.6) - 1.2, 0, 1) * np.clip(smooth_noise(rng, size, 120), 0, 1)
        water += np.float32(0.35) * glint[..., None]
    cover(picture, water, np.clip(layout.water + np.float32(0.5), 0, 1))


def paint_trees(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint undergrowth in the woods and shaded crowns over everything."""
    crowns = layout.crowns
    gaps = layout.woods * np.float32(0.85)
    cover(picture, palette.wood * np.float32(0.5), gaps)
    mix = np.clip(crowns.tint + 0.25 * fractal_noise(rng, layout.size, 80), 0, 1)[..., None]
    color = palette.wood + mix * (palette.other_wood - palette.wood)
    up = np.sqrt(np.clip(1 - crowns.east**2 - crowns.south**2, 0, 1))
    flat = math.cos(palette.elevation)
    light = crowns.east * (palette.sun[0] * flat) + crowns.south * (palette.sun[1] * flat)
    light = light + up * math.sin(palette.elevation)
    brightness = 0.5 + 0.7 * np.clip(light, 0, 1) + 0.09 * smooth_noise(rng, layout.size, 1.6)
    cover(picture, color * brightness[..., None].astype(np.float32), np.minimum(crowns.cover * 1.5, 1))


def tree_shadow(layout: Layout, palette: Palette) -> Surface:
    """Return the share (H, W) of light that crowns take from the ground beside them."""
    dx, dy = palette.shadow(5.5 * layout.scale)
    canopy = np.minimum(layout.crowns.cover * 2, 1)
    falls = [shifted(canopy, dx * share, dy * share) for share in (0.3, 0.65, 1.0)]
    shadow: Surface = np.maximum.reduce(falls) * (1 - canopy)
    return shadow
