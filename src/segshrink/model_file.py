"""A model on disk, of whatever kind: a run folder, a model folder, or a file of ONNX, OpenVINO or TFLite."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segshrink.errors import FileError, ModelError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Inside a run folder.
MODEL_FOLDER_NAME = "model"
FOLDER = "folder"
# Kind of a model → the runtimes that can run it; the first is taken when nobody says.
RUNTIMES = {
    FOLDER: ("torch", "torch-compile"),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".tflite": ("litert",),
}
# Suffix of a file that holds the weights of another → that one's suffix.
_GRAPHS = {".bin": ".xml"}


@dataclass(frozen=True)
class ModelFile:
    """A model folder or an exported file, there or yet to be written.

    Attributes:
        path: The folder with ``config.json``, or the ``.onnx``, ``.xml`` or ``.tflite`` file.

    Example:
        >>> [part.name for part in ModelFile(Path("small.xml")).parts]
        ['small.xml', 'small.bin']
    """

    path: Path

    @classmethod
    def find(cls, source: str | Path) -> ModelFile:
        """Return the model at a path: an exported file, a model folder, or the ``model/`` of a run folder.

        Raises:
            FileError: Nothing is there, or a folder without a model.
            ModelError: A file of another kind is there.
        """
        path = Path(source)
        if not path.exists():
            raise FileError(
                f"{path} does not exist; give a model folder, a run folder or an exported file such as .onnx"
            )
        if path.is_dir():
            return cls(_model_folder(path))
        if path.suffix.lower() not in RUNTIMES:
            raise ModelError(
                f"{path} is neither a model folder nor a file with the suffix .onnx, .xml or .tflite; give the folder "
                f"with {CONFIG_FILE}"
            )
        return cls(path)

    @property
    def kind(self) -> str:
        """What it is: "folder", ".onnx", ".xml" or ".tflite"."""
        suffix = self.path.suffix.lower()
        return suffix if suffix in RUNTIMES and not self.path.is_dir() else FOLDER

    @property
    def name(self) -> str:
        """A short name for people: that of the run of a run folder's model, of a file without its suffix."""
        if self.kind != FOLDER:
            return self.path.stem
        resolved = self.path.resolve()
        return resolved.parent.name if resolved.name == MODEL_FOLDER_NAME else resolved.name

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files that belong together: of an ``.xml``, its weights as well."""
        if self.kind == FOLDER:
            return (self.path / CONFIG_FILE, self.path / WEIGHTS_FILE)
        beside = [suffix for suffix, graph in _GRAPHS.items() if graph == self.kind]
        return (self.path, *(self.path.with_suffix(suffix) for suffix in beside))

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What can run it, the usual one first."""
        return RUNTIMES[self.kind]

    @property
    def size_bytes(self) -> int:
        """Bytes of graph and weights; of a folder, its weights.

        Raises:
            FileError: A part is missing.
        """
        counted = self.parts[1:] if self.kind == FOLDER else self.parts
        try:
            return sum(part.stat().st_size for part in counted)
        except FileNotFoundError as error:
            raise FileError(f"{error.filename} is missing, which belongs to {self.path}; copy all its files") from error

    def sha256(self) -> str:
        """Return a name for its content, in hexadecimal: the same for the same bytes in all parts.

        Raises:
            FileError: A part can't be read.
        """
        digests = []
        for part in self.parts:
            try:
                with part.open("rb") as stream:
                    digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
            except OSError as error:
                raise FileError(f"can't read {part}: {error.strerror}; copy all files of {self.path}") from error
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def graph_of(path: Path) -> Path:
    """Return the file that says what is in ``path``: weights beside an OpenVINO graph belong to that graph."""
    suffix = _GRAPHS.get(path.suffix.lower())
    return path if suffix is None else path.with_suffix(suffix)


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / MODEL_FOLDER_NAME):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    raise FileError(f"{folder} has no {CONFIG_FILE}; give a model folder or a run folder that has {MODEL_FOLDER_NAME}/")
