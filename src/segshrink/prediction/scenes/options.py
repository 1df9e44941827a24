"""Options for predicting scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from segshrink.errors import UsageError
from segshrink.prediction.tiled import Blending, Tiling

_BLENDS = ("center", "cosine")
_VECTORS = ("gpkg", "geojson")
# Fields that change how long a prediction takes, not its results.
_NOT_RECORDED = ("batch", "threads", "overwrite")


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How to predict scenes and what to write; None leaves a choice to the model.

    Attributes:
        tile: Side of a tile in pixels; 512 at the model's working size, rounded up to the network's stride.
        overlap: Pixels that neighboring tiles share, less than ``tile``; four strides, at least 64.
        batch: Tiles run at once; 1 on a processor, 4 in torch.
        threads: Cores to use: one stream of tiles on each, or in torch as many threads; by default all, or
            ``OMP_NUM_THREADS`` if less.
        runtime: What runs the model, as ``open_backend`` takes it.
        bands: Bands of the scenes by number (from 1) or name, in the model's order.
        scale: (low, high) pixel values that become the ends of the model's range, for scenes of other numbers.
        nodata: A raw pixel value that means no data, for scenes that don't say so; beside what they say. 0, and other
            values that a measurement may have, must stand in all bands of a pixel.
        resolution: Meters a pixel to predict at; "native" is the scene's own; "model" is what the model was trained
            on, where that and the scene's own are known. The results have that grid.
        blend: "center" takes each pixel from the tile whose middle is nearest; "cosine" averages the logits of
            overlapping tiles under weights that fall to the tiles' borders. By default cosine where probabilities are
            wanted, or what comes from them, else center, which is quicker.
        probabilities: Write each class's probability.
        confidence: Write the probability of the most likely class.
        vectors: Write polygons, "gpkg" or "geojson".
        min_area: Smaller polygons are dropped; square meters (pixels where the ground is unknown).
        simplify: Tolerance when edges of polygons are simplified; meters (pixels where the ground is unknown).
        overlay: Write a small picture of the classes over the scene.
        overwrite: Replace results that exist.

    Raises:
        UsageError: A choice makes no sense.
    """

    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    threads: int | None = None
    runtime: str | None = None
    bands: Sequence[int | str] | None = None
    scale: tuple[float, float] | None = None
    nodata: float | None = None
    resolution: float | Literal["model", "native"] = "model"
    blend: Blending | None = None
    probabilities: bool = False
    confidence: bool = False
    vectors: str | None = None
    min_area: float = 0.0
    simplify: float = 0.0
    overlay: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("tile", 1), ("overlap", 0), ("batch", 1), ("threads", 1)):
            if (count := getattr(self, name)) is not None and count < least:
                raise UsageError(f"{name} must be at least {least}, found {count}")
        for name, choices in (("blend", _BLENDS), ("vectors", _VECTORS)):
            if (choice := getattr(self, name)) not in (None, *choices):
                raise UsageError(f"{name} must be one of {', '.join(choices)}, found '{choice}'")
        if min(self.min_area, self.simplify) < 0:
            raise UsageError(f"min_area and simplify can't be negative, found {self.min_area} and {self.simplify}")
        if self.tile is not None:
            Tiling(self.tile, self.overlap or 0)

    @property
    def needs_probabilities(self) -> bool:
        """Whether classes alone don't suffice. Polygons say how sure the model is."""
        return self.probabilities or self.confidence or self.vectors is not None

    @property
    def blending(self) -> Blending:
        """The blending that is used: what was asked for, or what suits the results."""
        return self.blend or ("cosine" if self.needs_probabilities else "center")

    def record(self) -> dict[str, Any]:
        """Return what the results depend on, JSON-able."""
        record = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_RECORDED}
        record["blend"] = self.blending
        record["bands"] = None if self.bands is None else [str(band) for band in self.bands]
        record["scale"] = None if self.scale is None else [float(value) for value in self.scale]
        nodata = record.pop("nodata")  # absent from older records
        return record if nodata is None else {**record, "nodata": str(float(nodata))}
