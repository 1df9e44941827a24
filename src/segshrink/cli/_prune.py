"""Making the smaller copy, showing what it saves, and letting the original teach it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from segshrink.cli._console import out_console, progress_bar, tell
from segshrink.cli._errors import writing
from segshrink.cli._tables import print_comparison
from segshrink.cli._work import distill_all, refuse_foreign_runs, use_free_threads
from segshrink.compression import prune, shrink
from segshrink.config import DatasetDescription, load_dataset, load_recipe
from segshrink.data import SceneStore, open_dataset
from segshrink.data.crops import cut, plan_crop
from segshrink.errors import ConfigError, FileError, ModelError, UsageError
from segshrink.files import claimed, refuse_foreign
from segshrink.formatting import percent
from segshrink.machine import default_threads
from segshrink.model_file import CONFIG_FILE
from segshrink.models import SegmentationModel, load_model
from segshrink.models.folder import MODEL_FOLDER
from segshrink.profiling.jobs import threads_title
from segshrink.profiling.profile import profile_models

# Crops that say which channels matter, and their side in pixels.
_CROPS, _CROP = 16, 192
_RUNS = 10
_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


@dataclass(frozen=True)
class Cut:
    """How small a copy is to be; what isn't asked for is None."""

    width: float | None
    depth: float | None
    ratio: float | None
    macs: float | None
    parameters: float | None
    size: int
    steps: int

    @classmethod
    def parse(
        cls,
        *,
        width: float | None,
        depth: float | None,
        ratio: float | None,
        macs: str | None,
        parameters: str | None,
        size: int,
        steps: int,
    ) -> Cut:
        """Read numbers and check that they can be asked for together.

        Raises:
            ConfigError: Nothing or too much is asked for, or a number can't be read.
        """
        shapes = [name for name, value in (("--width", width), ("--depth", depth)) if value is not None]
        targets = [
            name
            for name, value in (("--ratio", ratio), ("--macs", macs), ("--parameters", parameters))
            if value is not None
        ]
        if len(targets) + bool(shapes) != 1:
            raise UsageError(
                "give --width or --depth or both, or one of --ratio, --macs and --parameters, found "
                f"{', '.join([*shapes, *targets]) or 'none'}"
            )
        if size < 1:
            raise UsageError(f"--size must be at least 1, found {size}")
        return cls(width, depth, ratio, _number("--macs", macs), _number("--parameters", parameters), size, steps)

    def apply(self, model: SegmentationModel, images: Any) -> SegmentationModel:
        """Return the smaller copy under a progress bar."""
        with progress_bar("prune") as advance:
            if self.width is not None or self.depth is not None:
                width, depth = (1.0 if share is None else share for share in (self.width, self.depth))
                smaller = shrink(model, width=width, depth=depth, images=images)
                advance(1, 1)
                return smaller
            return prune(
                model,
                ratio=self.ratio,
                macs=self.macs,
                parameters=self.parameters,
                steps=self.steps,
                size=self.size,
                images=images,
                progress=advance,
            )


def make_copy(
    source: str, out: Path, wanted: Cut, *, data: Path | None, overwrite: bool, overrides: Sequence[str] = ()
) -> None:
    """Write the smaller copy and show what it saves.

    Raises:
        ConfigError: Overrides without a recipe.
        FileError: There is no model, or ``out`` is something else or the model itself.
        ModelError: The model can't be made as small.
    """
    if overrides:
        raise UsageError(f"'{overrides[0]}' changes a recipe; give one with --recipe")
    if out.resolve() in (Path(source).resolve(), Path(source, "model").resolve()) and not overwrite:
        raise FileError(
            f"{out} is the model itself, which its copy doesn't replace; choose another folder, or allow it with "
            "--overwrite"
        )
    with claimed(out):
        if (out / CONFIG_FILE).exists():
            tell(f"the model in {out} is replaced")
        _write_copy(source, out, wanted, None if data is None else load_dataset(data), overwrite=overwrite)
    tell(
        f"{out} has lost accuracy until the original teaches it: "
        f"segshrink distill RECIPE --teacher {source} --student {out} --out RUN"
    )


def distil_copy(
    source: str,
    out: Path,
    wanted: Cut,
    recipe: Path,
    overrides: Sequence[str],
    *,
    data: Path | None,
    control: bool,
    resume: bool,
) -> None:
    """Write the smaller copy to ``out/pruned``, let the original teach it, and print the comparison.

    Raises:
        ConfigError: The recipe is wrong.
        FileError: ``out`` holds a run already, and it isn't resumed.
        ModelError: The model can't be made as small.
    """
    with claimed(out):
        refuse_foreign_runs(out)
        _distil_copy(source, out, wanted, recipe, overrides, data=data, control=control, resume=resume)


def _distil_copy(
    source: str,
    out: Path,
    wanted: Cut,
    recipe: Path,
    overrides: Sequence[str],
    *,
    data: Path | None,
    control: bool,
    resume: bool,
) -> None:
    copy = out / "pruned"
    original = str(Path(source).resolve())
    chosen = [
        f"student.model={json.dumps({'id': str(copy.resolve())})}",
        f"distillation.teachers={json.dumps([{'source': original}])}",
        "distillation.inherit_encoder=false",
    ]
    loaded = load_recipe(recipe, [*chosen, *overrides], data)
    if (out / "run.json").exists() and not resume:
        raise FileError(f"{out} already holds a run; add --resume to go on with it, or choose another folder")
    if not (resume and (copy / CONFIG_FILE).exists()):
        _write_copy(source, copy, wanted, loaded.data)
    print_comparison(distill_all(loaded, out=out, control=control, resume=resume))


def example_crops(description: DatasetDescription) -> Any:
    """Cut crops from training images of a data set, or where it has none from unlabelled ones: (N, bands, H, W).

    Raises:
        ConfigError: It has neither.
    """
    import numpy as np
    import torch

    dataset = open_dataset(description)
    samples = dataset.train or dataset.unlabeled
    if not samples:
        raise ConfigError(f"data set '{description.name}' has no training images that could say which channels matter")
    rng = np.random.default_rng(0)
    places = rng.permutation(len(samples))[:_CROPS]
    store = SceneStore([samples[place] for place in places], dataset.classes)
    crops = []
    for number in range(_CROPS):
        index = number % len(store)
        plan = plan_crop(rng, index, shape=store.shape(index), size=_CROP)
        crops.append(np.ascontiguousarray(cut(store.image(index), plan).transpose(2, 0, 1)).astype(np.float32))
    return torch.from_numpy(np.stack(crops))


def _write_copy(
    source: str, out: Path, wanted: Cut, description: DatasetDescription | None, *, overwrite: bool = False
) -> None:
    refuse_foreign(out, overwrite=overwrite, kind=MODEL_FOLDER)
    use_free_threads()
    model = load_model(source).eval()
    images = None
    if description is not None:
        images = example_crops(description)
        if images.shape[1] != model.description.bands:
            raise ModelError(
                f"the model takes {model.description.bands} bands but the images of '{description.name}' have "
                f"{images.shape[1]}; give images like those that it was trained on"
            )
    smaller = wanted.apply(model, images)
    with writing(out):
        smaller.save(out, overwrite=overwrite)
    _show(model, smaller, wanted.size)


def _show(model: SegmentationModel, smaller: SegmentationModel, size: int) -> None:
    """Print what both cost here."""
    with progress_bar("measure speed") as advance:
        profiles = profile_models({"original": model, "copy": smaller}, size=size, runs=_RUNS, progress=advance)
    before, after = profiles["original"], profiles["copy"]
    load = before["load"]
    table = Table(title_justify="left")
    for name in ("", "original", "copy", "share"):
        table.add_column(name, justify="left" if not name else "right")
    for name, key, form in (
        ("parameters", "parameters", "{:,.0f}"),
        (f"multiply-accumulates at {size} pixels", "macs", "{:,.0f}"),
        ("file in bytes", "file_bytes", "{:,.0f}"),
        (f"milliseconds at {size} pixels (PyTorch, {threads_title(default_threads())})", "latency_ms", "{:.1f}"),
    ):
        old, new = (one[key]["median"] if key == "latency_ms" else one[key] for one in (before, after))
        table.add_row(name, form.format(old), form.format(new), f"{new / old:.0%}")
    table.add_row("other programs' share of the cores meanwhile", *[percent(load["others"])] * 2, "")
    out_console().print(table)
    if load["busy"]:
        tell(
            "other programs kept the cores busy meanwhile, so the times are too long: measure again on a quiet machine"
        )


def _number(option: str, text: str | None) -> float | None:
    """Read "500M", "1.2M", "64k" or "250000"."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:[._]\d+)*)\s*([KMGB]?)", text.strip().upper())
    try:
        value = float(found[1].replace("_", "")) * _SUFFIXES[found[2]] if found else 0.0
    except ValueError:
        value = 0.0
    if value < 1:
        raise UsageError(f"{option} must be a number such as 500M, 1.2M or 250000, found '{text}'")
    return value
