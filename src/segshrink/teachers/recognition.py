"""What a file or folder is that a source names without saying so: told by its content, never by running it."""

from __future__ import annotations

from pathlib import Path

from segshrink.config import TeacherSource
from segshrink.errors import FileError, ModelError
from segshrink.file_kinds import WEIGHT_SUFFIXES, explain, explain_checkpoint, refuse_no_model, torch_program
from segshrink.library import located
from segshrink.model_file import keras_path
from segshrink.models import read_tensors
from segshrink.models.foreign_folder import is_transformers, smp_folder
from segshrink.models.weights import pickled_class
from segshrink.models.whole_weights import espnetv2_scale

# What a teacher's source may be, for messages.
KINDS = (
    "a run folder, model folder or bank, smp:ARCHITECTURE/ENCODER, torchvision:NAME, espnetv2, hf:FOLDER or hub name, "
    "module:function, onnx:FILE, tflite:FILE, keras:FILE or labels:FOLDER"
)


def recognized(source: TeacherSource) -> TeacherSource:
    """Return a source with its kind in front, where it names an existing file or folder of a known one.

    Raises:
        FileError: It can't be read.
        ModelError: It needs something beside it, or another program's export first; says what.
    """
    path = Path(located(source.source))
    if path.is_dir():
        return _folder(source, path)
    if not path.is_file():
        return source
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    suffix = path.suffix.lower()
    if suffix == ".py":
        raise ModelError(f"{path} is code; name its function as {path.stem}:FUNCTION, in this folder or on the path")
    refuse_no_model(path)
    if suffix == ".onnx":
        return _as(source, f"onnx:{path}")
    if head[4:8] == b"TFL3":
        return _as(source, f"tflite:{path}")
    if suffix == ".xml":
        raise ModelError(f"{path} is a graph of OpenVINO, which doesn't teach; give the .onnx file it was made from")
    if head[:2] == b"PK" and (kind := torch_program(path)) is not None:
        return _as(source, f"{kind}:{path}")
    if suffix in WEIGHT_SUFFIXES:
        return _weights(source, path)
    if keras_path(path) is None:
        raise ModelError(explain(path) or f"{path} is no kind of file that teaches; give {KINDS}")
    return source


def _folder(source: TeacherSource, path: Path) -> TeacherSource:
    """Tell folders that segmentation-models-pytorch and transformers saved."""
    if is_transformers(path):
        return _as(source, f"hf:{path}")
    saved = smp_folder(path)
    if saved is None:
        return source
    options = {**saved.options, **source.options}
    return source.model_copy(update={"source": saved.identity, "weights": saved.weights, "options": options})


def _weights(source: TeacherSource, path: Path) -> TeacherSource:
    """Tell ESPNetv2's published weights; of others say what they need, or which program exports them."""
    if sentence := explain_checkpoint(path):
        raise ModelError(sentence)
    names = read_tensors(path)
    if espnetv2_scale(names) is not None:
        return source.model_copy(update={"source": "espnetv2", "weights": path})
    function = pickled_class(path) or "MODULE:FUNCTION"
    raise ModelError(
        f"{path} holds the weights of a network and not how it is built ({', '.join(list(names)[:2])}, ...); write "
        f"{{source: {function}, weights: {path}}}, or {{source: smp:ARCHITECTURE/ENCODER, weights: {path}}}"
    )


def _as(source: TeacherSource, text: str) -> TeacherSource:
    return source.model_copy(update={"source": text})
