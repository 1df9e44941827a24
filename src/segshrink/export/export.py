"""A model as files for other runtimes, with its card and its STAC items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.errors import UsageError, nearest
from segshrink.export.card import model_card
from segshrink.export.metadata import ExportedFile, refuse_tiles
from segshrink.export.stac import stac_items
from segshrink.export.web import export_web
from segshrink.files import refuse_foreign, write_json, write_text, writing
from segshrink.folder_lock import claimed
from segshrink.model_file import ModelFile
from segshrink.run_folder import RunFolder

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel

# Format → what is added to the stem.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "qgis": ".qgis.onnx", "tflite": ".tflite", "web": ".html"}
_SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite", ".html": "web"}
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """The files of an exported model.

    Attributes:
        files: One for each format but "web", with what it takes and gives.
        extra: The model card and the STAC items of these, and the page for browsers.
    """

    files: tuple[ExportedFile, ...]
    extra: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that was written."""
        return (*(part for file in self.files for part in ModelFile(file.path).parts), *self.extra)


def export(
    model: SegmentationModel | str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] | None = None,
    outputs: Sequence[str] = ("logits", "classes"),
    half: bool = False,
    card: bool = True,
    overwrite: bool = False,
) -> ExportResult:
    """Write a model as files for other runtimes, each proven against PyTorch before it gets its name.

    Args:
        model: Run folder, model folder, Keras file, or a model; for "web" alone also an .onnx file.
        out: A file whose suffix (.onnx, .xml, .tflite, .html) says the format, or a stem that suffixes are added to.
        formats: "onnx", "openvino", "qgis", "tflite", "web"; None takes that of the suffix.
        outputs: What a file gives: "logits", "probabilities", "classes".
        half: Store OpenVINO's weights in 16 bits.
        card: Write a model card (.md) and STAC items (.stac.json), too; a page for browsers has none.
        overwrite: Replace files that this program didn't write.

    Raises:
        UsageError: A format or output is unknown, or is not that of the suffix.
        ModelError: The model can't be exported, or differs from PyTorch.
        FileError: A file can't be written, or another process is writing into its folder.
        MissingExtraError: What a format needs isn't installed.
    """
    plan = plan_files(Path(out), formats)
    if plan.files:
        from segshrink.export.graph_interface import check_outputs

        outputs = check_outputs(list(outputs))
    card = card and bool(plan.files)
    _check_place(plan, card=card, overwrite=overwrite)
    with claimed(plan.stem.parent, tidy=False), writing(Path(out)):
        files, extra = [], []
        if plan.files:  # which need torch, as a page of an ONNX file doesn't
            from segshrink.models import load_model

            loaded = load_model(model) if isinstance(model, str | Path) else model
            for name in plan.files:
                refuse_tiles(loaded.description, name)
            files = _write_files(loaded, plan, outputs=outputs, half=half, overwrite=overwrite)
            run = Path(model) if isinstance(model, str | Path) else None
            extra = _describe(loaded, run, plan, files, overwrite=overwrite) if card else []
        if plan.page is not None:
            extra.append(export_web(model, plan.page, overwrite=overwrite))
    return ExportResult(tuple(files), tuple(extra))


@dataclass(frozen=True)
class _Plan:
    """Files to write: one for each format, the page for browsers, and the stem of those that go with them."""

    files: dict[str, Path]
    page: Path | None
    stem: Path

    @property
    def card(self) -> Path:
        """The model card."""
        return self.stem.with_name(f"{self.stem.name}.md")

    @property
    def parts(self) -> list[Path]:
        """All files of the models."""
        return [part for path in self.files.values() for part in ModelFile(path).parts]

    @property
    def items(self) -> list[Path]:
        """The STAC items that there may be: of the model, and of each file that is used unlike the first."""
        names = [self.stem.name, *(ExportedFile(path).stem for path in self.files.values())]
        return [self.stem.with_name(f"{name}.stac.json") for name in dict.fromkeys(names)]


def plan_files(out: Path, formats: Sequence[str] | None) -> _Plan:
    """Say what is written, before anything is.

    Args:
        out: A file whose suffix says the format, or a stem that suffixes are added to.
        formats: Formats; None takes that of the suffix.

    Raises:
        ConfigError: A format is unknown, or is not that of the suffix.
    """
    of_suffix = _SUFFIXES.get(out.suffix.lower())
    if formats is None and of_suffix is None and out.suffix:
        raise UsageError(
            f"--out {out} must end in .onnx, .xml, .tflite or .html; or give --format, whose suffix is added"
        )
    names = [of_suffix or "onnx"] if formats is None else list(formats)
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown '{name}'{nearest(name, FORMATS)}")
    if of_suffix is None:
        files = {name: out.with_name(out.name + FORMATS[name]) for name in names}
        page = files.pop("web", None)
        return _Plan(files, page, out)
    only_qgis = names == ["qgis"] and of_suffix == "onnx"
    if of_suffix not in names and not only_qgis:
        raise UsageError(
            f"--out {out} is a file for {of_suffix}, but --format asks for {', '.join(names)}; give one alone"
        )
    stem = out.with_suffix("")
    files = {name: out if name == of_suffix or only_qgis else Path(f"{stem}{FORMATS[name]}") for name in names}
    page = files.pop("web", None)
    return _Plan(files, page, stem)


def _write_files(
    model: SegmentationModel, plan: _Plan, *, outputs: Sequence[str], half: bool, overwrite: bool
) -> list[ExportedFile]:
    from segshrink.export import export_onnx, export_openvino, export_tflite

    interfaces = {"qgis": (("probabilities",), True), "tflite": (("logits",), False)}
    files = []
    for name, path in plan.files.items():
        file = ExportedFile(path, *interfaces.get(name, (tuple(outputs), False)))
        if name == "tflite":
            export_tflite(model, path, overwrite=overwrite)
        elif name == "openvino":
            export_openvino(model, path, outputs=file.outputs, half=half, overwrite=overwrite)
        else:
            export_onnx(model, path, outputs=file.outputs, float_pixels=file.float_pixels, overwrite=overwrite)
        files.append(file)
    return files


def _check_place(plan: _Plan, *, card: bool, overwrite: bool) -> None:
    """Refuse to replace files that this program didn't write, and say which earlier ones are replaced."""
    files = [*plan.parts, *((plan.card, *plan.items) if card else ()), *([plan.page] if plan.page else ())]
    refuse_foreign(*files, overwrite=overwrite)
    for path in files:
        if path.exists():
            _LOGGER.warning("%s is replaced", path)


def _describe(
    model: SegmentationModel, run: Path | None, plan: _Plan, files: Sequence[ExportedFile], *, overwrite: bool
) -> list[Path]:
    """Write the model card and the STAC items beside the files, with what a run folder knows of its model."""
    from segshrink.models import count_parameters

    name, parameters = plan.stem.name, count_parameters(model)
    items = stac_items(model.description, files, name=name, parameters=parameters)
    folder = None if run is None else RunFolder(run)
    card = model_card(
        model.description,
        files,
        name=name,
        parameters=parameters,
        evaluation=folder.evaluation() if folder and folder.has_evaluation else None,
        profile=folder.profile() if folder and folder.has_profile else None,
    )
    for file_name, item in items.items():
        write_json(plan.card.with_name(file_name), item, overwrite=overwrite)
    write_text(plan.card, card, overwrite=overwrite)
    return [plan.card, *(plan.card.with_name(file_name) for file_name in items)]
