"""Ready models that come with the package: files and folders here, by name wherever a model's path is taken."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def ready_models() -> dict[str, Path]:
    """List the ready models: a name and where its file or model folder lies."""
    found = (*_FOLDER.glob("*.onnx"), *(config.parent for config in _FOLDER.glob("*/config.json")))
    return {path.stem: path for path in sorted(found)}


def located(source: str | Path) -> str | Path:
    """Return where a ready model lies if a source is its name and nothing else lies there; any other source as it is.

    Example:
        >>> located("runs/student")
        'runs/student'
    """
    return source if Path(source).exists() else ready_models().get(str(source), source)
