"""A few crops of the user's own validation images, and scores on them.

There is one confusion matrix a crop, so that two uses of a teacher can be compared in pairs. The mean IoU here is over
the classes that the crops' labels hold: on a few crops a single pixel of an absent class would otherwise move it by a
whole class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.data import CropPlan, Dataset, SceneStore, cut, plan_crop
from segshrink.data.crops import inside
from segshrink.errors import ConfigError, DataError
from segshrink.evaluation import Confusion
from segshrink.model_description import Normalization
from segshrink.scores import marginals, mean_iou_of_marginals
from segshrink.teachers.teacher import TILE
from segshrink.working_size import Resize

# Confusion matrices (n, C, C) of [true, predicted] counts, one a crop.
Matrices = NDArray[np.int64]

# Scenes decoded at most.
_SCENES = 24
# Foreign networks take sides that are multiples of this.
_MULTIPLE = 32
_RESAMPLES = 500
# Share of the resamples that a gain's lower bound leaves below it.
_TAIL = 0.025
# Breaks ties in favor of leaving a class where it is.
_STAY = 1e-6


@dataclass(frozen=True)
class Sample:
    """Crops that aren't zoomed, in random order.

    Attributes:
        images: Raw pixel values (n, bands, size, size), uint8 or float32.
        targets: Class indices (n, size, size) int64, 255 where unlabeled or outside the scene.
        inside: Bool (n, size, size), False outside the scene and where the image has no value.
        plans: Where the crops lie.
        store: The scenes they were cut from.
    """

    images: Tensor
    targets: Tensor
    inside: Tensor
    plans: tuple[CropPlan, ...] = field(repr=False)
    store: SceneStore = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of a crop in pixels."""
        return int(self.images.shape[-1])

    @cached_property
    def statistics(self) -> Normalization:
        """Mean and deviation of each band over the crops, in raw pixel units."""
        values = self.images.float().transpose(0, 1).flatten(1)
        return Normalization(tuple(values.mean(dim=1).tolist()), tuple(values.std(dim=1).clamp_min(1e-6).tolist()))

    @cached_property
    def holds_bytes(self) -> bool:
        """Whether all pixels are from 0 to 255."""
        return bool((self.images >= 0).all()) and bool((self.images <= 255).all())

    @property
    def has_surroundings(self) -> bool:
        """Whether a scene shows more than its crop does."""
        return self.size < TILE and any(max(self.store.shape(plan.sample)) > self.size for plan in self.plans)

    def surroundings(self, index: int) -> tuple[Tensor, tuple[slice, slice]]:
        """Return what a tile of deployment shows around a crop, (1, bands, H, W), and where the crop lies in it."""
        plan = self.plans[index]
        height, width = self.store.shape(plan.sample)
        rows, crop_rows = _around(plan.row, self.size, height)
        cols, crop_cols = _around(plan.col, self.size, width)
        window = self.store.image(plan.sample)[np.ix_(rows, cols)]
        return _tensor(window).permute(2, 0, 1)[None], (crop_rows, crop_cols)


def draw_sample(
    dataset: Dataset, *, images: int, size: int, shrink: bool = False, seed: int = 0, resize: Resize | None = None
) -> Sample:
    """Draw crops of validation scenes, each centered on a pixel of a class drawn among those of its scene.

    Every scene and every class is looked at about equally often, so scores aren't those of an evaluation.

    Args:
        dataset: The data set.
        images: Number of crops.
        size: Their side in pixels.
        shrink: Let crops be no larger than the largest scene, in whole multiples of 32 pixels.
        seed: The same seed gives the same crops.
        resize: Working size of the scenes that crops are cut from.

    Raises:
        ConfigError: The validation split is empty.
        DataError: No validation scene has a labeled pixel.
    """
    if not dataset.val:
        raise ConfigError(f"data set '{dataset.description.name}' has no images in its val split to judge a teacher by")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset.val))[: min(images, _SCENES)]
    store = SceneStore([dataset.val[number] for number in chosen], dataset.classes, resize=resize)
    present = [np.bincount(store.mask(index).ravel(), minlength=256)[:IGNORE_INDEX] for index in range(len(store))]
    labeled = [index for index, counts in enumerate(present) if counts.any()]
    if not labeled:
        raise DataError(f"none of {len(store)} validation scenes of '{dataset.description.name}' has a labeled pixel")
    if shrink:
        longest = max(max(store.shape(index)) for index in labeled)
        size = min(size, -(-longest // _MULTIPLE) * _MULTIPLE)
    plans = []
    for number in range(images):
        index = labeled[number % len(labeled)]
        mask = store.mask(index)
        class_index = rng.choice(np.flatnonzero(present[index]))
        row, col = divmod(int(rng.choice(np.flatnonzero(mask == class_index))), mask.shape[1])
        plans.append(plan_crop(rng, index, shape=store.shape(index), size=size, center=(row, col)))
    plans = [plans[place] for place in rng.permutation(images)]
    return Sample(
        images=torch.stack([_tensor(cut(store.image(plan.sample), plan)).permute(2, 0, 1) for plan in plans]),
        targets=torch.stack([_target(store, plan) for plan in plans]),
        inside=torch.stack([_inside(store, plan) for plan in plans]),
        plans=tuple(plans),
        store=store,
    )


def _inside(store: SceneStore, plan: CropPlan) -> Tensor:
    return torch.from_numpy(inside(plan, store.shape(plan.sample), store.valid(plan.sample)))


def _target(store: SceneStore, plan: CropPlan) -> Tensor:
    return torch.from_numpy(cut(store.mask(plan.sample), plan, fill=IGNORE_INDEX, order="nearest")).long()


def _around(start: int, size: int, extent: int) -> tuple[NDArray[np.intp], slice]:
    """Return the pixels along an axis that a tile around a crop takes, and the crop's place among them."""
    side = max(size, min(TILE, extent))
    first = min(max(start - (side - size) // 2, 0), extent - side) if extent >= side else start
    return np.clip(np.arange(first, first + side), 0, extent - 1), slice(start - first, start - first + size)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    """Return (H, W, bands) as a tensor of bytes, or else float32."""
    return torch.from_numpy(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))


def predictions(logits: Tensor) -> Tensor:
    """Return the likeliest class of each pixel, uint8 (n, H, W), of logits (n, C, H, W); NaN is the lowest value."""
    return logits.nan_to_num(nan=-torch.inf, posinf=None, neginf=-torch.inf).argmax(dim=1).to(torch.uint8).cpu()


def confusions(predicted: Tensor, targets: Tensor, classes: int) -> Matrices:
    """Return the confusion matrix of each crop, (n, C, C).

    Args:
        predicted: Class indices (n, H, W), uint8.
        targets: Class indices (n, H, W), 255 where they don't count.
        classes: C.
    """
    pairs = zip(predicted, targets.to(torch.uint8), strict=True)
    return np.stack([Confusion(classes).update(answer, truth).matrix for answer, truth in pairs])


def mean_iou(matrices: Matrices) -> float:
    """Return the mean IoU, over the classes that the labels hold, of all crops together; NaN without labels."""
    return float(_scores(matrices.sum(axis=0, keepdims=True))[0])


def majority_iou(matrices: Matrices) -> float:
    """Return the mean IoU of an answer that names the most frequent class everywhere."""
    truth = matrices.sum(axis=(0, 2))
    return float(truth.max() / truth.sum() / np.count_nonzero(truth)) if truth.any() else float("nan")


def level(matrices: Matrices) -> float:
    """Return a mean IoU as a share of the way from naming the most frequent class everywhere (0) to perfect (1)."""
    majority = majority_iou(matrices)
    return (mean_iou(matrices) - majority) / max(1 - majority, 1e-9)


def gain(before: Matrices, after: Matrices, *, seed: int = 0) -> tuple[float, float]:
    """Return how much mean IoU the same crops gained, and the lower end of the gain's 95 % bootstrap interval.

    Crops are drawn with replacement, the same ones before and after.
    """
    crops = len(before)
    drawn = np.random.default_rng(seed).multinomial(crops, np.full(crops, 1 / crops), size=_RESAMPLES)
    weights = drawn.astype(np.float64)
    differences = _scores(np.tensordot(weights, after, axes=1)) - _scores(np.tensordot(weights, before, axes=1))
    return mean_iou(after) - mean_iou(before), float(np.nanquantile(differences, _TAIL))


def best_order(matrices: Matrices) -> tuple[int, ...]:
    """Return, for each true class, the predicted class that stands for it when the mean IoU is to be highest.

    The IoU of a true class depends on the predicted class that it gets and on no other, so the best order is a linear
    assignment (Kuhn 1955), exact for any number of classes. It says nothing about classes that the labels don't hold:
    all move by one where that does as well. Unless most classes move, those that only change places with absent ones
    stay where they are: one class taken for another is a confusion, not another order.
    """
    counts = matrices.sum(axis=0).astype(np.float64)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    iou = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)
    classes, present = np.arange(len(counts)), counts.sum(axis=1) > 0
    _, columns = linear_sum_assignment(iou + _STAY * np.eye(len(counts)), maximize=True)
    moved = np.count_nonzero(present & (columns != classes))
    if moved < 2 or 2 * moved <= np.count_nonzero(present):
        columns = _present_cycles(columns, present)
    rolled = max((np.roll(classes, step) for step in (1, -1)), key=lambda order: iou[classes, order].sum())
    as_good = moved > 1 and iou[classes, rolled].sum() >= iou[classes, columns].sum() - _STAY
    return tuple(int(column) for column in (rolled if as_good else columns))


def reordered(matrices: Matrices) -> Matrices:
    """Return what each crop's matrix is in the class order that is best for all the other crops.

    An order that was chosen and scored on the same crops would always look better than it is.
    """
    total = matrices.sum(axis=0)
    return np.stack([matrix[:, list(best_order((total - matrix)[None]))] for matrix in matrices])


def _present_cycles(order: NDArray[np.intp], present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return an order without the cycles in which fewer than two classes are present."""
    result = np.arange(len(order))
    for start in range(len(order)):
        cycle = [start]
        while order[cycle[-1]] != start:
            cycle.append(int(order[cycle[-1]]))
        if present[cycle].sum() > 1:
            result[start] = order[start]
    return result


def _scores(sums: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU (n,) of matrices (n, C, C), over the classes that their labels hold."""
    counts = marginals(sums)
    counts[:, 1] = np.where(counts[:, 0] > 0, counts[:, 1], 0)  # predicted without being there: no class of its own
    return mean_iou_of_marginals(counts)
