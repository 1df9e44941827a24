"""A GPU that has no memory for a step; a stand-in refuses batches as torch does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segshrink.config import Recipe
from segshrink.errors import TrainingError
from segshrink.training import SegmentationTask, train


@pytest.mark.parametrize(
    ("most", "advice"),
    [
        (2, r"for 2; set crops\.batch_size=2, and multiply training\.accumulate by 2"),
        (1, r"for 1; set crops\.batch_size=1, and multiply training\.accumulate by 4"),
        (0, r"nor for fewer; choose smaller crops"),
    ],
)
def test_the_largest_batch_that_fits_is_named(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, advice: str
) -> None:
    forward = SegmentationTask.forward

    def limited(self: SegmentationTask, images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, images)

    monkeypatch.setattr(SegmentationTask, "forward", limited)
    with pytest.raises(TrainingError, match=rf"no memory for a step of 4 crops of 48 × 48 pixels.*{advice}"):
        train(recipe, out=tmp_path)
