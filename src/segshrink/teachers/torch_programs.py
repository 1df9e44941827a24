"""Networks that torch saved as programs: TorchScript, and what ``torch.export`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segshrink.errors import FileError, ModelError, first_line


class Program(nn.Module):
    """A program of torch as a network that can't be trained."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self._program = (program,)  # no part of this module: such programs refuse train() and eval()

    def forward(self, images: torch.Tensor) -> Any:
        """Run it."""
        return self._program[0](images)


def open_program(kind: str, path: Path) -> Program:
    """Open a program, on the CPU.

    Args:
        kind: "torchscript" or "exported".
        path: The file.

    Raises:
        FileError: There is no such file.
        ModelError: It is damaged, or torch's version can't read it.
    """
    if not path.is_file():
        raise FileError(f"no teacher at {path}; check the path")
    try:
        if kind == "torchscript":
            return Program(torch.jit.load(str(path), map_location="cpu").eval())  # type: ignore[no-untyped-call]
        return Program(torch.export.load(str(path)).module())
    except Exception as error:  # damage can look like anything to torch
        raise ModelError(
            f"{path} can't be opened by torch {torch.__version__} ({first_line(error)}); save it again"
        ) from error
