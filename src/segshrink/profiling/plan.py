"""Which models are measured on which runtimes, and what can't be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from segshrink.errors import ConfigError, MissingExtraError, ModelError, UsageError, install_command, nearest
from segshrink.model_file import FOLDER, ModelFile
from segshrink.prediction.backends import PRECISIONS
from segshrink.profiling.jobs import (
    OWN_PRECISION,
    RUNTIMES,
    check_runtime,
    runtime_extra,
    runtime_module,
    runtime_title,
)

# What a folder is exported to, so that other runtimes can be measured with it: runtime → suffix of the file.
EXPORTED = {"onnxruntime": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class Entry:
    """A model on a runtime.

    Attributes:
        model: Its name in tables; no two sources share one.
        source: What the user named.
        runtime: One of ``jobs.RUNTIMES``.
        precision: "auto", "32" or "bf16".
    """

    model: str
    source: Path
    runtime: str
    precision: str

    @property
    def is_exported(self) -> bool:
        """Whether the runtime needs a file that is yet to be made from the folder."""
        return self.source.is_dir() and self.runtime in EXPORTED

    @property
    def title(self) -> str:
        """Model and runtime, for a progress bar."""
        return f"{self.model} on {runtime_title(self.runtime, self.precision)}"


def plan(
    sources: Sequence[str | Path], *, runtimes: Sequence[str] | None, precisions: Sequence[str]
) -> tuple[list[Entry], list[str]]:
    """Combine sources, runtimes and precisions.

    Args:
        sources: Model and run folders, .onnx, .xml and .tflite files.
        runtimes: Those wanted; by default all that suit a source.
        precisions: For runtimes that may compute in bf16; the others have one entry.

    Returns:
        The entries, source by source, and sentences about what was left out.

    Raises:
        ConfigError: There is no source, or a runtime or precision is unknown.
        FileError: Nothing is at a source.
        ModelError: A source is no model, or nothing is left to measure.
        MissingExtraError: Nothing is left because no runtime is installed.
    """
    paths = _checked(sources, runtimes, precisions)
    entries: list[Entry] = []
    notes: list[str] = []
    missing: dict[str, None] = {}
    for name, path in zip(_names(paths), paths, strict=True):
        able = _suitable(path)
        for runtime in runtimes or able:
            if runtime not in able:
                notes.append(f"{path} can't run in {runtime_title(runtime)}, but in {_titles(able)}")
            elif find_spec(runtime_module(runtime)) is None or (path.is_dir() and find_spec("torch") is None):
                missing.setdefault(runtime if find_spec(runtime_module(runtime)) is None else "torch")
            else:
                own = precisions if runtime in OWN_PRECISION else ("auto",)
                entries += [Entry(name, path, runtime, precision) for precision in dict.fromkeys(own)]
    if not entries and missing:
        runtime = next(iter(missing))
        raise MissingExtraError(f"measuring with {runtime_title(runtime)}", runtime_extra(runtime) or "train")
    if not entries:
        raise ModelError(f"nothing can be measured: {'; '.join(notes)}; choose other runtimes or export the model")
    return entries, notes + [_absent(runtime) for runtime in missing]


def _checked(sources: Sequence[str | Path], runtimes: Sequence[str] | None, precisions: Sequence[str]) -> list[Path]:
    if not sources:
        raise ConfigError("there is nothing to measure; name a model folder, a run folder or an exported file")
    for runtime in runtimes or ():
        check_runtime(runtime)
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"precision '{precision}' is unknown{nearest(precision, PRECISIONS)}")
    return list(dict.fromkeys(Path(source) for source in sources))


def _suitable(path: Path) -> tuple[str, ...]:
    """Return the runtimes that can run what is at a path, after an export where it is a folder."""
    file = ModelFile.find(path)
    return (*file.runtimes, *EXPORTED) if file.kind == FOLDER else file.runtimes


def _names(paths: Sequence[Path]) -> list[str]:
    """Return short names, longer ones where those would be the same."""
    short = [ModelFile(path).name for path in paths]
    named = [path.name if short.count(name) > 1 else name for name, path in zip(short, paths, strict=True)]
    return [str(path) if named.count(name) > 1 else name for name, path in zip(named, paths, strict=True)]


def _titles(runtimes: Sequence[str]) -> str:
    return " and ".join(runtime_title(runtime) for runtime in sorted(runtimes, key=RUNTIMES.index))


def _absent(runtime: str) -> str:
    extra = runtime_extra(runtime)
    how = install_command(extra) if extra else f"pip install {runtime_module(runtime)}"
    return f"{runtime_title(runtime)} is not installed, so it was not measured: {how}"
