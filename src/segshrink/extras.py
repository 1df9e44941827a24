"""Other packages: which extra brings a missing one, and keeping one quiet."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from segshrink.errors import MissingExtraError

# Modules as they are imported, by the extra that brings them.
_EXTRAS = {
    "train": frozenset(
        (
            "lightning",
            "onnx",
            "onnxscript",
            "psutil",
            "safetensors",
            "scipy",
            "segmentation_models_pytorch",
            "timm",
            "torch",
            "torchmetrics",
            "torchvision",
        )
    ),
    "hf": frozenset(("transformers",)),
    "keras": frozenset(("h5py", "keras")),
    "tflite": frozenset(("ai_edge_litert",)),
    "litert": frozenset(("litert_torch",)),
    "openvino": frozenset(("openvino",)),
    "vector": frozenset(("pyogrio", "shapely")),
    "coco": frozenset(("pycocotools",)),
    "video": frozenset(("av",)),
    "compress": frozenset(("nncf", "torch_pruning")),
    "trackers": frozenset(("mlflow", "tensorboard", "wandb")),
    "tune": frozenset(("cmaes", "optuna", "psycopg", "pymysql", "sqlalchemy")),
}


def missing_extra(error: ModuleNotFoundError, *, feature: str) -> MissingExtraError | None:
    """Turn a missing module into an error that names the extra which brings it.

    Args:
        error: What the import raised.
        feature: What was asked for, such as "segshrink train".

    Returns:
        The error to raise, or None when no extra brings that module.
    """
    top = (error.name or "").partition(".")[0]
    return next((MissingExtraError(feature, extra) for extra, modules in _EXTRAS.items() if top in modules), None)


@contextmanager
def needing(feature: str, extra: str) -> Iterator[None]:
    """Import packages in the block that only an extra brings.

    Args:
        feature: What they are for, such as "running a .tflite file".
        extra: The extra.

    Raises:
        MissingExtraError: One of them isn't installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error


@contextmanager
def quiet_library() -> Iterator[None]:
    """Suppress warnings, logs and progress bars inside the block, of a library that reports on its own internals."""
    root = logging.getLogger()
    handler = logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(handler)  # or the first message would set the root logger up
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
