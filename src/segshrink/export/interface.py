"""What an exported file takes and gives, for the pages and records that describe it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segshrink.model_description import ModelDescription


@dataclass(frozen=True)
class ExportedFile:
    """One exported model file.

    Attributes:
        path: The ``.onnx``, ``.xml`` or ``.tflite`` file.
        outputs: What it gives: some of "logits", "probabilities" and "classes".
        float_pixels: Whether it takes float32 whatever pixels the model was trained on.
    """

    path: Path
    outputs: tuple[str, ...] = ("logits", "classes")
    float_pixels: bool = False

    @property
    def tiles(self) -> bool:
        """Whether it takes one tile of a fixed size, channels last, instead of any number of images of any size."""
        return self.path.suffix == ".tflite"

    @property
    def parts(self) -> tuple[Path, ...]:
        """The file, and that of its weights where they have one."""
        return (self.path, self.path.with_suffix(".bin")) if self.path.suffix == ".xml" else (self.path,)

    def pixels(self, description: ModelDescription) -> str:
        """Return the type of the pixels that it takes."""
        return "uint8" if description.dtype == "uint8" and not self.float_pixels else "float32"
