"""Scenes of colors and stripes, and a teacher that is good at them: what faults are planted in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segshrink.config import Recipe, TeacherSource
from segshrink.data import SceneStore, open_dataset
from segshrink.doctor import Finding
from segshrink.doctor.diagnose import diagnose_teacher
from segshrink.doctor.findings import RecipeTerms, ranked
from segshrink.doctor.sample import Sample, draw_sample
from segshrink.doctor.teacher_checks import TeacherEntry
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel, build_model
from segshrink.teachers import Teacher

# Color of each class; the last two are stripes that only their width tells apart.
COLORS = {
    "Ground": (120, 90, 60),
    "Roof": (200, 60, 50),
    "Water": (40, 80, 190),
    "Fine": (130, 150, 60),
    "Coarse": (130, 150, 61),
}
PERIODS = {"Fine": 6, "Coarse": 12}
SIZE, CROP = 128, 48


def paint(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the image of a mask of class indices."""
    image = np.array(list(COLORS.values()), float)[mask]
    columns = np.arange(mask.shape[1])
    for index, name in enumerate(COLORS):
        if name in PERIODS:
            waves = 45 * np.sin(2 * np.pi * (columns + rng.integers(12)) / PERIODS[name])
            image += np.where(mask == index, waves, 0)[..., None]
    return np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


def draw_mask(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Rectangles of these classes on the first of them."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(3):
        for index in range(1, classes):
            row, col = rng.integers(0, SIZE - 24, 2)
            height, width = rng.integers(24, 48, 2)
            mask[row : row + height, col : col + width] = index
    return mask


def write_data(root: Path, *, classes: int = 5, absent: int | None = None, seed: int = 0) -> Recipe:
    """A recipe on scenes of the first classes, one of them absent from the validation scenes."""
    rng = np.random.default_rng(seed)
    colors = np.array(list(COLORS.values()), np.uint8)
    for part in ("train", "val"):
        for number in range(6):
            mask = draw_mask(rng, classes)
            if part == "val" and absent is not None:
                mask[mask == absent] = 0
            for kind, pixels in (("images", paint(mask, rng)), ("masks", colors[mask])):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / part / kind / f"{number}.png")
    names = list(COLORS)[:classes]
    return Recipe.model_validate(
        {
            "name": "stripes",
            "data": {
                "name": "stripes",
                "root": root,
                "images": "*/images/*.png",
                "masks": "*/masks/*.png",
                "classes": [{"name": name, "color": "#{:02X}{:02X}{:02X}".format(*COLORS[name])} for name in names],
                "split": {"train": ["train"], "val": ["val"]},
            },
            "crops": {"size": CROP, "batch_size": 4, "workers": 0},
            "student": {"model": {"id": "unet", "options": {"width": 4, "depth": 2}}},
        }
    )


def fit(recipe: Recipe, *, seed: int = 0, steps: int = 110) -> SegmentationModel:
    """Train a tiny U-Net on the training scenes."""
    torch.manual_seed(seed)
    dataset = open_dataset(recipe.data)
    store = SceneStore(dataset.train, dataset.classes)
    images = torch.stack([torch.from_numpy(np.array(store.image(i))).permute(2, 0, 1) for i in range(len(store))])
    masks = torch.stack([torch.from_numpy(np.array(store.mask(i))) for i in range(len(store))]).long()
    scaling = Normalization(mean=(127.5,) * 3, std=(64.0,) * 3)
    model = build_model("unet", dataset.classes, options={"width": 8, "depth": 3}, normalization=scaling)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
    for _ in range(steps):
        batch, target = random_crops(images, masks)
        loss = F.cross_entropy(model(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def random_crops(images: Tensor, masks: Tensor, *, count: int = 6, size: int = 48) -> tuple[Tensor, Tensor]:
    picks = torch.randint(len(images), (count,)).tolist()
    corners = torch.randint(SIZE - size, (count, 2)).tolist()
    places = [(pick, slice(y, y + size), slice(x, x + size)) for pick, (y, x) in zip(picks, corners, strict=True)]
    return (
        torch.stack([images[pick, :, rows, cols] for pick, rows, cols in places]),
        torch.stack([masks[pick, rows, cols] for pick, rows, cols in places]),
    )


def look(teacher: Teacher, sample: Sample, recipe: Recipe, source: TeacherSource | None = None) -> tuple[Finding, ...]:
    """Everything that is found about one teacher, what matters most first."""
    entry = TeacherEntry(teacher, [source or TeacherSource(source="runs/teacher")], 0, RecipeTerms.of(recipe))
    findings, _ = diagnose_teacher(entry, sample)
    return ranked(findings)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, _one_cache: None) -> Recipe:
    return write_data(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="session")
def good(recipe: Recipe) -> SegmentationModel:
    """A teacher that is good at the scenes; copy it before changing it."""
    return fit(recipe)


@pytest.fixture(scope="session")
def sample(recipe: Recipe) -> Sample:
    return draw_sample(open_dataset(recipe.data), images=12, size=CROP)


@pytest.fixture(scope="session")
def student(recipe: Recipe) -> Callable[[], SegmentationModel]:
    """Makes an untrained student."""

    def make() -> SegmentationModel:
        torch.manual_seed(0)
        return build_model("unet", open_dataset(recipe.data).classes, options={"width": 4, "depth": 2})

    return make
