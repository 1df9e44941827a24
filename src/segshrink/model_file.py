"""A model on disk, of whatever kind: a run folder, a model folder, or a file of ONNX, OpenVINO, TFLite or Keras."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from segshrink.errors import FileError, ModelError
from segshrink.file_kinds import explain, refuse_no_model
from segshrink.library import located, ready_models
from segshrink.user_code import is_function

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Inside a run folder.
MODEL_FOLDER_NAME = "model"
FOLDER = "folder"
# May stand before the path of a Keras file, as recipes write it.
KERAS = "keras:"
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
# Kind of a model → the runtimes that can run it; the first is taken when nobody says.
RUNTIMES = {
    FOLDER: ("torch", "torch-compile"),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".tflite": ("litert",),
    **dict.fromkeys(KERAS_SUFFIXES, ("torch",)),
}
_DESCRIBING = (".json", ".yaml")
# Suffix of a file that holds the weights of another → that one's suffix.
_GRAPHS = {".bin": ".xml"}
# How the key begins under which a tensor of ONNX names the file that its values are in.
ELSEWHERE = b"\n\x08location\x12"


@dataclass(frozen=True)
class ModelFile:
    """A model folder or an exported file, there or yet to be written.

    Attributes:
        path: The folder with ``config.json``, or the file.

    Example:
        >>> [part.name for part in ModelFile(Path("small.xml")).parts]
        ['small.xml', 'small.bin']
    """

    path: Path

    @classmethod
    def find(cls, source: str | Path) -> ModelFile:
        """Return the model at a path: a file, a model folder, or the ``model/`` of a run folder.

        ``keras:FILE`` is the file, the name of a ready model that one.

        Raises:
            FileError: Nothing is there, or a folder without a model.
            ModelError: A file of another kind is there.
        """
        path = keras_path(source) or Path(located(source))
        if not path.exists():
            if is_function(str(source)):
                raise FileError(saved_once(str(source)))
            raise FileError(
                f"{path} does not exist; give a model folder, a run folder, an exported file such as .onnx or a ready "
                f"model: {', '.join(ready_models())}"
            )
        if path.is_dir():
            return cls(_model_folder(path))
        refuse_no_model(path)
        if path.suffix.lower() not in RUNTIMES:
            raise ModelError(
                explain(path)
                or f"{path} is neither a model folder nor a file with the suffix .onnx, .xml, .tflite, .keras or .h5; "
                f"give the folder with {CONFIG_FILE}"
            )
        return cls(path)

    @property
    def kind(self) -> str:
        """What it is: "folder", or a file's suffix, such as ".onnx"."""
        suffix = self.path.suffix.lower()
        return suffix if suffix in RUNTIMES and not self.path.is_dir() else FOLDER

    @property
    def is_torch(self) -> bool:
        """Whether torch runs it, so that it can be exported for other runtimes."""
        return "torch" in self.runtimes

    @property
    def adapter(self) -> Path:
        """The file beside one of Keras or of anybody that says what it doesn't: class names, how pixels are scaled."""
        return self.path.with_name(f"{self.path.name}.yaml")

    @property
    def name(self) -> str:
        """A short name for people: that of the run of a run folder's model, of a file without its suffix."""
        if self.kind != FOLDER:
            return self.path.stem
        resolved = self.path.resolve()
        return resolved.parent.name if resolved.name == MODEL_FOLDER_NAME else resolved.name

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files that belong together.

        Those of a folder, an ``.xml`` or ``.onnx`` file and the files that hold its weights, a Keras file and its
        adapter.
        """
        if self.kind == FOLDER:
            weights = self.path / WEIGHTS_FILE  # of others there may be several files
            spread = () if weights.is_file() else tuple(sorted(self.path.glob("*.safetensors")))
            return (self.path / CONFIG_FILE, *(spread or (weights,)))
        if self.kind in KERAS_SUFFIXES:
            return (self.path, self.adapter) if self.adapter.exists() else (self.path,)
        if self.kind == ".onnx":
            return (self.path, *_weights_of_onnx(self.path))
        beside = [suffix for suffix, graph in _GRAPHS.items() if graph == self.kind]
        return (self.path, *(self.path.with_suffix(suffix) for suffix in beside))

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What can run it, the usual one first."""
        return RUNTIMES[self.kind]

    @property
    def size_bytes(self) -> int:
        """Bytes of graph and weights, without the file that describes them.

        Raises:
            FileError: A part is missing.
        """
        try:
            return sum(part.stat().st_size for part in self.parts if part.suffix not in _DESCRIBING)
        except FileNotFoundError as error:
            raise FileError(f"{error.filename} is missing, which belongs to {self.path}; copy all its files") from error

    def sha256(self) -> str:
        """Return a name for its content, in hexadecimal: the same for the same bytes in all parts and in ``adapter``.

        Raises:
            FileError: A part can't be read.
        """
        digests = []
        described = (self.adapter,) if self.kind != FOLDER and self.adapter.exists() else ()
        for part in dict.fromkeys((*self.parts, *described)):
            try:
                with part.open("rb") as stream:
                    digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
            except OSError as error:
                raise FileError(f"can't read {part}: {error.strerror}; copy all files of {self.path}") from error
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def keras_path(source: str | Path) -> Path | None:
    """Return the path in ``keras:FILE``, or one with the suffix of a Keras file; None: it is neither."""
    text = str(source)
    path = Path(os.path.expanduser(text.removeprefix(KERAS)))  # noqa: PTH111 - leaves users who aren't there as they are
    return path if text.startswith(KERAS) or path.suffix.lower() in KERAS_SUFFIXES else None


def saved_once(function: str) -> str:
    """Say how the network of a function becomes a model folder, for verbs that take no functions."""
    return (
        f"{function} names a function, which has no classes by itself; save its network as a model folder once, "
        f"segshrink.build_model('{function}', segshrink.ClassMap.build([...])).save('FOLDER'), and give that "
        "with --trust"
    )


def runs_in_torch(source: str | Path) -> bool:
    """Tell whether torch runs what is at a path: a folder, be it a bank's, or a Keras file."""
    return Path(located(source)).is_dir() or keras_path(source) is not None


def graph_of(path: Path) -> Path:
    """Return the file that says what is in ``path``: weights beside an OpenVINO graph belong to that graph."""
    suffix = _GRAPHS.get(path.suffix.lower())
    return path if suffix is None else path.with_suffix(suffix)


def _weights_of_onnx(path: Path) -> list[Path]:
    """Return the files in the folder of an ONNX file that it keeps weights in; none where it can't be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    names = set()
    for key in re.finditer(ELSEWHERE + rb"([\x80-\xff]?[\x01-\x7f])", content):
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(key[1]))  # as protobuf writes numbers
        names.add(os.fsdecode(content[key.end() : key.end() + length]))
    inside = (name for name in sorted(names) if "\0" not in name and ".." not in Path(name).parts)
    return [path.parent / name for name in inside if not Path(name).is_absolute()]


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / MODEL_FOLDER_NAME):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    if (folder / "saved_model.pb").is_file():
        raise ModelError(
            f"{folder} is a TensorFlow SavedModel, which TensorFlow alone can open; where it is installed (pip install "
            'tensorflow tf-keras), save the model as .h5: TF_USE_LEGACY_KERAS=1 python -c "import tensorflow as tf; '
            f"tf.keras.models.load_model('{folder}').save('{folder}.h5')\""
        )
    if sentence := explain(folder):
        raise ModelError(sentence)
    raise FileError(f"{folder} has no {CONFIG_FILE}; give a model folder or a run folder that has {MODEL_FOLDER_NAME}/")
