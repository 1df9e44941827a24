"""``segshrink inspect``: looks through a data set before anything is trained on it, or into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import AsJson, Trust
from segshrink.errors import ModelError, UsageError
from segshrink.library import located

_YAML = (".yaml", ".yml")
_NETWORKS = (".onnx", ".tflite", ".xml")


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA|MODEL",
            help="Data set description (YAML); or run folder, model folder, Keras, ONNX, OpenVINO or TFLite file, or "
            "network id such as smp:Unet/resnet34 or my_nets:small.",
        ),
    ],
    others: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|KEY=VALUE]...",
            help="More models, to compare layers with; or a data set's overrides, such as root=/data.",
        ),
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with a data set, or at the features inside a model.

    Of a data set: pairs, sizes and class shares; unreadable, unpaired or mismatched files, undeclared mask colors, and
    images or ground that occur twice, above all across splits. Exit status 1 when something must be fixed.

    Of a model: its classes and parameters, and the features that a distillation can tap: their roles (encoder,
    decoder, stage:3), paths, channels, strides and shapes. Of several models: channels, parameters and multiply-adds
    of their stages side by side. Of a file of ONNX, OpenVINO or TFLite, from anybody: what it takes and gives, and how
    it is read.
    """
    others = others or []
    if _is_dataset(source):
        _inspect_data(Path(source), others, as_json)
        return
    if wrong := next((text for text in others if "=" in text), None):
        raise UsageError(f"'{wrong}' is an override for a data set, but {source} is none; leave it out")
    if Path(located(source)).suffix.lower() in _NETWORKS:
        _inspect_files([source, *others], as_json)
    elif others:
        _compare_models([source, *others], as_json, trust=trust)
    else:
        _inspect_model(source, as_json, trust=trust)


def _is_dataset(source: str) -> bool:
    """Tell whether a source is a data set description rather than a model, by its name and what lies there.

    Raises:
        ModelError: It is a file of weights alone, or of another program; says what it needs.
    """
    from segshrink.file_kinds import explain, refuse_no_model
    from segshrink.model_file import keras_path

    path = Path(source)
    if keras_path(source) is not None or path.suffix.lower() in _NETWORKS:
        return False
    if path.exists():
        refuse_no_model(path)
        if sentence := explain(path):
            raise ModelError(sentence)
    return path.is_file() or (path.suffix.lower() in _YAML and not path.is_dir())


def _inspect_data(data: Path, overrides: list[str], as_json: bool) -> None:
    from segshrink.config import load_dataset
    from segshrink.data import with_files

    description = with_files(load_dataset(data, overrides))
    from segshrink.cli._console import print_json, progress_bar
    from segshrink.cli._tables import print_inspection
    from segshrink.data import inspect_dataset

    with progress_bar("inspect") as advance:
        inspection = inspect_dataset(description, progress=advance)
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection)
    if not inspection.sound:
        raise typer.Exit(1)


def _inspect_model(source: str, as_json: bool, *, trust: bool) -> None:
    from segshrink.cli._console import print_json
    from segshrink.cli._tables import print_model
    from segshrink.models.inspection import inspect_model

    finding = inspect_model(source, trust=trust)
    if as_json:
        print_json(finding.to_dict())
    else:
        print_model(finding)


def _inspect_files(sources: list[str], as_json: bool) -> None:
    from segshrink.cli._console import print_json
    from segshrink.cli._tables import print_file
    from segshrink.prediction.inspection import inspect_file
    from segshrink.profiling.parameters_and_macs import count_file_parameters

    findings = {source: (inspect_file(source), count_file_parameters(Path(source))) for source in sources}
    if not as_json:
        for finding, parameters in findings.values():
            print_file(finding, parameters)
        return
    parts = {source: {**found.to_dict(), "parameters": count} for source, (found, count) in findings.items()}
    print_json(parts if len(parts) > 1 else parts[sources[0]])


def _compare_models(sources: list[str], as_json: bool, *, trust: bool) -> None:
    from segshrink.cli._console import print_json
    from segshrink.cli._tables import print_stages
    from segshrink.models.inspection import SIZE, open_source
    from segshrink.profiling.stages import count_stages

    stages = {source: count_stages(open_source(source, trust=trust)[0], size=SIZE) for source in sources}
    if as_json:
        print_json({source: [stage.to_json() for stage in of_model] for source, of_model in stages.items()})
    else:
        print_stages(stages, size=SIZE)
