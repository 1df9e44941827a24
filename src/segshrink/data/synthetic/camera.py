"""From the lit ground to the recorded picture: clouds, haze, white balance, contrast, blur, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from segshrink.data.synthetic.ground import Picture
from segshrink.data.synthetic.noise import fractal_noise, smooth_noise


def cast_shadow(picture: Picture, shadow: NDArray[np.float32], *, depth: float) -> None:
    """Darken ``picture`` (H, W, 3) in place where ``shadow`` (H, W) is above 0; the sky's light stays, so bluer."""
    lost = np.array([depth, depth * 0.95, depth * 0.85], np.float32)
    picture *= 1 - shadow[..., None] * lost


def light_terrain(rng: np.random.Generator, picture: Picture) -> None:
    """Brighten and darken ``picture`` in place by gentle slopes and, in some scenes, the shadow of a cloud."""
    size = picture.shape[0]
    light = 1 + np.float32(rng.uniform(0.02, 0.07)) * fractal_noise(rng, size, 200, octaves=2)
    if rng.random() < 0.25:
        cloud = np.clip(fractal_noise(rng, size, 260, octaves=3) * 1.6 - float(rng.uniform(0.6, 1.8)), 0, 1)
        light = light - np.float32(rng.uniform(0.15, 0.4)) * cloud
    picture *= light[..., None]


def record(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """Return ``picture`` (H, W, 3), 0 .. 1, as an uint8 photograph; every scene has its own camera and air."""
    size = picture.shape[0]
    white_balance = np.exp(np.clip(rng.normal(0, 1), -1.6, 1.6) * np.array([0.07, 0, -0.08]) + rng.normal(0, 0.02, 3))
    exposure = np.exp(rng.normal(0.1, 0.16))
    picture = picture * (white_balance * exposure).astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(rng.uniform(0.6, 1.15))
    haze = np.float32(rng.beta(1.2, 4) * 0.55) * (1 + 0.25 * smooth_noise(rng, size, 300))[..., None]
    haze_color = np.array([0.66, 0.71, 0.76], np.float32) * np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    picture = picture + np.clip(haze, 0, 0.6) * (haze_color - picture)
    contrast = np.float32(rng.uniform(0.85, 1.3))
    picture = np.clip((picture - np.float32(0.42)) * contrast + np.float32(0.42), 0, 1)
    picture = np.power(picture, np.float32(np.exp(rng.normal(0, 0.12))))
    # Blur in 8 bits, then add the sensor's noise, which blur would remove.
    photograph = Image.fromarray((picture * 255 + 0.5).astype(np.uint8))
    photograph = photograph.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.25, 0.85))))
    values = np.asarray(photograph, dtype=np.float32)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(0.7)
    grain = grain + rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(0.6)
    values = values + grain * np.float32(rng.uniform(1, 6)) * (np.float32(0.5) + values / np.float32(255))
    photo: NDArray[np.uint8] = np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)
    return photo
