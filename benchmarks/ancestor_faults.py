"""Teachers with the faults of earlier projects, for ``benchmarks/ancestors.py``: ``ancestor_faults:faulty``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from segshrink import load_model

# Fault → what was taken for the logits of the network.
FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax twice": lambda logits: logits.softmax(dim=1),
    "softmax over the rows": lambda logits: logits.softmax(dim=2),
    # One class for the whole image.
    "weak teacher": lambda logits: logits.mean(dim=(2, 3), keepdim=True).expand_as(logits),
}


class Faulty(nn.Module):
    """A trained network whose answers were spoiled: pixels (N, 3, H, W) in, (N, classes, H, W) out."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__()
        self.model = load_model(path)
        self.fault = fault

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what is taken for logits."""
        return FAULTS[self.fault](self.model(pixels))


def faulty(path: str, fault: str) -> nn.Module:
    """Return the network in a run folder with one of ``FAULTS``."""
    return Faulty(path, fault)
