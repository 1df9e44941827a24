"""What ``segshrink export`` writes where, and writing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.cli._console import tell
from segshrink.errors import UsageError, nearest
from segshrink.files import refuse_foreign, write_json, write_text
from segshrink.model_file import ModelFile

if TYPE_CHECKING:
    from segshrink.export.interface import ExportedFile
    from segshrink.models import SegmentationModel

# Format → what is added to the stem.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "qgis": ".qgis.onnx", "tflite": ".tflite"}
_SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite"}


@dataclass(frozen=True)
class Plan:
    """Files to write: one for each format, and the stem of those that go with them."""

    files: dict[str, Path]
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
        names = [self.stem.name, *(path.name.removesuffix(".onnx") for path in self.files.values())]
        return [self.stem.with_name(f"{name}.stac.json") for name in dict.fromkeys(names)]


def plan(out: Path, formats: str | None) -> Plan:
    """Say what is written, before anything is.

    Args:
        out: A file whose suffix says the format, or a stem that suffixes are added to.
        formats: Formats, separated by commas; None takes that of the suffix.

    Raises:
        ConfigError: A format is unknown, or is not that of the suffix.
    """
    own = _SUFFIXES.get(out.suffix.lower())
    wanted = [name.strip() for name in formats.split(",")] if formats is not None else [own or ""]
    if formats is None and own is None:
        if out.suffix:
            raise UsageError(f"--out {out} must end in .onnx, .xml or .tflite; or give --format, whose suffix is added")
        wanted = ["onnx"]
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown '{name}'{nearest(name, FORMATS)}")
    if own is None:
        return Plan({name: out.with_name(out.name + FORMATS[name]) for name in wanted}, out)
    if own not in wanted and not (wanted == ["qgis"] and own == "onnx"):
        raise UsageError(f"--out {out} is a file for {own}, but --format asks for {', '.join(wanted)}; give one alone")
    stem = out.with_suffix("")
    return Plan(
        {name: out if name == own or wanted == ["qgis"] else Path(f"{stem}{FORMATS[name]}") for name in wanted}, stem
    )


def export_all(
    model: SegmentationModel, planned: Plan, *, outputs: Sequence[str], half: bool, overwrite: bool
) -> list[ExportedFile]:
    """Write the model's files, each proven against PyTorch, and return them.

    Raises:
        ModelError: The model can't be exported, or differs from PyTorch.
        FileError: A file can't be written.
        MissingExtraError: What a format needs isn't installed.
    """
    from segshrink.export import export_onnx, export_openvino, export_tflite
    from segshrink.export.interface import ExportedFile

    written = []
    for name, path in planned.files.items():
        if name == "qgis":
            file = ExportedFile(path, ("probabilities",), float_pixels=True)
            export_onnx(model, path, outputs=file.outputs, float_pixels=True, overwrite=overwrite)
        elif name == "tflite":
            file = ExportedFile(export_tflite(model, path, overwrite=overwrite), ("logits",))
        elif name == "openvino":
            made = export_openvino(model, path, outputs=outputs, half=half, overwrite=overwrite)
            file = ExportedFile(made, tuple(outputs))
        else:
            file = ExportedFile(export_onnx(model, path, outputs=outputs, overwrite=overwrite), tuple(outputs))
        written.append(file)
    return written


def check_place(planned: Plan, *, card: bool, overwrite: bool) -> None:
    """Refuse to replace files that this program didn't write, and say which earlier ones are replaced.

    Raises:
        FileError: There is such a file.
    """
    files = [*planned.parts, *((planned.card, *planned.items) if card else ())]
    refuse_foreign(*files, overwrite=overwrite)
    for path in files:
        if path.exists():
            tell(f"{path} is replaced")


def describe(
    model: SegmentationModel, source: str, planned: Plan, files: Sequence[ExportedFile], *, overwrite: bool
) -> list[Path]:
    """Write the model card and the STAC item beside the files, with what a run folder knows of its model.

    Raises:
        FileError: One can't be written, or the run folder's numbers can't be read.
    """
    from segshrink.export.card import model_card
    from segshrink.export.measured import read_measured
    from segshrink.export.stac import stac_items
    from segshrink.models import count_parameters

    name, parameters = planned.stem.name, count_parameters(model)
    items = stac_items(model.description, files, name=name, parameters=parameters)
    measured = read_measured(Path(source))
    card = model_card(model.description, files, name=name, parameters=parameters, measured=measured)
    for own, item in items.items():
        write_json(planned.card.with_name(own), item, overwrite=overwrite)
    write_text(planned.card, card, overwrite=overwrite)
    return [planned.card, *(planned.card.with_name(own) for own in items)]
