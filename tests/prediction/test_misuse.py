"""Faults made on synthetic scenes are named by a model of others; sound scenes are not accused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segshrink.classes import ClassMap
from segshrink.data.synthetic import generate_scene
from segshrink.imagery.image_features import (
    ImageSample,
    feature_groups,
    image_distribution,
    image_features,
)
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction.misuse import CAUSES, Misuse, exchanged, find_misuse, inverted

Pixels = NDArray[Any]


def scene(number: int, size: int = 400) -> Pixels:
    return np.asarray(generate_scene(0, "val", number=number, size=size).image)


def described(images: list[Pixels], **changes: Any) -> ModelDescription:
    classes = ClassMap.build([("ground", None, None), ("roof", None, None)])
    bands = images[0].shape[2]
    known = image_distribution([ImageSample.of(image) for image in images], **({"low": 0, "high": 255} | changes))
    return ModelDescription("unet", classes, bands, Normalization.named("imagenet", bands), 32, images=known)


@pytest.fixture(scope="module")
def training() -> list[Pixels]:
    return [generate_scene(0, "train", number=number, size=256).image for number in range(12)]


@pytest.fixture(scope="module")
def model(training: list[Pixels]) -> ModelDescription:
    return described(training)


def compressed(image: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    return np.asarray(Image.open(file))


def enlarged(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((2 * image.shape[1], 2 * image.shape[0]), Image.Resampling.BICUBIC))


def stretched(image: Pixels) -> Pixels:
    low, high = np.percentile(image, (2, 98), axis=(0, 1))
    return np.clip((image - low) * 255 / (high - low), 0, 255).astype(np.uint8)


def half_empty(image: Pixels) -> Pixels:
    image = image.copy()
    image[:, image.shape[1] // 2 :] = 0
    return image


def infrared(image: Pixels) -> Pixels:
    """Vegetation bright in the first band."""
    red, green, blue = np.moveaxis(image.astype(float), -1, 0)
    green_share = np.clip((2 * green - red - blue) / (red + green + blue + 1) / 0.15, 0, 1)
    return np.stack([np.clip(1.1 * red + 90 * green_share, 0, 255), green, blue], axis=-1).astype(np.uint8)


FAULTS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "exchanged bands": ("exchanged", lambda image: image[..., ::-1]),
    "negative": ("inverted", lambda image: 255 - image),
    "16 bits": ("unscaled", lambda image: image.astype(np.uint16) * 16),
    "12 bits scaled as 16": ("unscaled", lambda image: image // 16),
    "0 to 1": ("unit", lambda image: image / np.float32(255)),
    "0 or 1": ("unit", lambda image: image // 255),
    "gray": ("gray", lambda image: image[..., [1, 1, 1]]),
    "near infrared": ("infrared", infrared),
    "blur": ("blurred", lambda image: ndimage.gaussian_filter(image, (3, 3, 0))),
    "JPEG": ("compressed", compressed),
    "stretch": ("stretched", stretched),
    "enlarged": ("fine", enlarged),
    "half empty": ("empty", half_empty),
    "noise": ("other", lambda image: np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)),
}


def test_sound_scenes_are_not_accused(model: ModelDescription) -> None:
    assert [find_misuse(model, ImageSample.of(scene(number))) for number in range(4)] == [None] * 4


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(model: ModelDescription, name: str) -> None:
    cause, make = FAULTS[name]
    misuse = find_misuse(model, ImageSample.of(make(scene(3))))
    assert misuse is not None
    assert misuse.cause == cause
    assert "{" not in str(misuse)


def test_a_coarse_scene_is_named(model: ModelDescription) -> None:
    tiles = [[scene(2 * row + col, 512) for col in range(2)] for row in range(2)]
    fine = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    coarse = fine.reshape(256, 4, 256, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    misuse = find_misuse(model, ImageSample.of(coarse))
    assert misuse is not None
    assert misuse.cause == "coarse"


def test_small_images_are_not_said_to_show_infrared(model: ModelDescription) -> None:
    """A few red roofs pass for it."""
    misuse = find_misuse(model, ImageSample.of(infrared(scene(3)[:256, :256])))
    assert misuse is not None
    assert misuse.cause == "other"


def test_a_sentence_says_the_numbers(model: ModelDescription) -> None:
    sixteen = find_misuse(model, ImageSample.of(np.full((128, 128, 3), 4000, np.uint16)))
    assert sixteen is not None
    assert "4000" in sixteen.looks_like
    assert "255" in sixteen.looks_like
    half = find_misuse(model, ImageSample.of(half_empty(scene(0))))
    assert half is not None
    assert "50%" in half.looks_like


def test_every_cause_is_written_about() -> None:
    assert {cause for cause, _ in FAULTS.values()} | {"coarse"} == set(CAUSES)
    assert str(Misuse("gray", "it is gray", "color it")) == "it is gray; color it"


def test_faults_are_undone_on_features() -> None:
    names = list(chain(*feature_groups(3)))
    at = {name: place for place, name in enumerate(names)}

    def features(image: Pixels) -> NDArray[np.float64]:
        return image_features(ImageSample.of(image), 0, 255)

    sound = features(scene(0))
    blues = [place for name, place in at.items() if not name.startswith(("lowest", "highest"))]
    np.testing.assert_allclose(exchanged(features(scene(0)[..., ::-1]), at)[blues], sound[blues], atol=2e-3)
    kept = [place for name, place in at.items() if name not in ("lowest", "highest", "warm_dark")]
    np.testing.assert_allclose(inverted(features(255 - scene(0)), at)[kept], sound[kept], atol=2e-3)


def test_numbers_of_other_kinds_have_their_own_range(training: list[Pixels]) -> None:
    reflectances = [image.astype(np.uint16) * 12 for image in training]
    model = described(reflectances, low=0, high=3060)
    assert find_misuse(model, ImageSample.of(scene(1).astype(np.uint16) * 12)) is None
    unscaled = find_misuse(model, ImageSample.of(scene(1).astype(np.uint16) * 257))
    assert unscaled is not None
    assert unscaled.cause == "unscaled"


def test_one_band(training: list[Pixels]) -> None:
    model = described([image[..., :1] for image in training])
    assert find_misuse(model, ImageSample.of(scene(1)[..., :1])) is None
    negative = find_misuse(model, ImageSample.of(255 - scene(1)[..., :1]))
    assert negative is not None
    assert negative.cause == "inverted"


def test_who_knows_too_little_is_silent(model: ModelDescription) -> None:
    odd = ImageSample.of(scene(0)[..., ::-1])
    assert find_misuse(None, odd) is None
    assert find_misuse(replace(model, images=None), odd) is None
    assert find_misuse(model, ImageSample.of(scene(0)[:90])) is None
    assert model.images is not None
    of_others = replace(model.images, groups=(50,), correlation=(0.0,) * 1225)
    assert find_misuse(replace(model, images=of_others), odd) is None
