"""What a network without PyTorch answers, as logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError, nearest
from segshrink.teachers.runtimes import Port, Runner
from segshrink.teachers.teacher import check_probabilities, tell_probabilities, to_log_probabilities

Kind = Literal["auto", "logits", "probabilities", "labels"]


@dataclass
class AnswerReader:
    """How one output of a network is read.

    Attributes:
        path: The network's file.
        port: The output.
        number: Its position.
        classes: K, how many classes the network knows.
        axis: Where its channels are, 1 or 3; None: it has no such axis.
        kind: What it holds. "auto" becomes "logits" or "probabilities" at the first batch.
        confidence: Probability of the class that a label map names.
    """

    path: Path
    port: Port
    number: int
    classes: int
    axis: Literal[1, 3] | None
    kind: Kind
    confidence: float

    def logits(self, raw: NDArray[Any]) -> Tensor:
        """Return float32 logits (N, K, h, w).

        Probabilities become their logarithms, one channel z becomes (0, z), and a label map becomes logits whose
        softmax is ``confidence`` at the class that it names.

        Args:
            raw: The output, as the network gave it.

        Raises:
            ModelError: Its shape or its labels don't fit the classes.
        """
        if raw.ndim != (3 if self.axis is None else 4):
            raise ModelError(f"{self.path}: '{self.port.name}' answers {raw.shape}, expected {self._expected()}")
        maps = torch.from_numpy(
            np.ascontiguousarray(raw[:, None] if self.axis is None else np.moveaxis(raw, self.axis, 1))
        )
        if maps.shape[1] not in ((1,) if self.kind == "labels" else channels_for(self.classes)):
            raise ModelError(f"{self.path}: '{self.port.name}' answers {raw.shape}, expected {self._expected()}")
        if self.kind == "labels":
            return one_hot_logits(maps[:, 0], self.classes, self.confidence, str(self.path))
        values = maps.float()
        if self.port.quantization is not None:
            scale, zero = self.port.quantization
            values = (values - zero) * scale
        return self._scores(values)

    def _scores(self, values: Tensor) -> Tensor:
        """Tell probabilities from logits at the first batch, and return logits."""
        # Each rounded probability may be half a step off.
        step = self.port.quantization[0] if self.port.quantization else 0.0
        tolerance = max(1e-2, self.classes * step / 2)
        if self.kind == "auto":
            self.kind = "probabilities" if tell_probabilities(values, str(self.path), tolerance=tolerance) else "logits"
        if self.kind == "probabilities":
            check_probabilities(values, str(self.path), tolerance=tolerance)
        if values.shape[1] == 1:
            return two_class_logits(values, probabilities=self.kind == "probabilities")
        return to_log_probabilities(values) if self.kind == "probabilities" else values

    def _expected(self) -> str:
        channels = 1 if self.kind == "labels" else self.classes
        return {None: "(N, h, w)", 1: f"(N, {channels}, h, w)", 3: f"(N, h, w, {channels})"}[self.axis]


def read_answers(runner: Runner, adapter: Adapter, classes: int, *, named: str, layout: str) -> AnswerReader:
    """Find out how a network's output is read, and refuse what can't be.

    Args:
        runner: The network.
        adapter: What is said about it.
        classes: K, how many classes it should know.
        named: Where that number comes from, for messages.
        layout: Order of the axes of its input.

    Raises:
        ConfigError: There is no such output, or the output isn't what the adapter says.
        ModelError: The output is no map, or has other channels than classes.
    """
    number = _output(runner, adapter.output_name)
    port = runner.outputs[number]
    said = f"{runner.path}: its output '{port.name}' {_shape(port)}"
    axis = _axis(port, adapter.output, classes, layout)
    if len(port.shape) not in (3, 4):
        raise ModelError(f"{said} is no map of classes; name another in the adapter ('output_name'){_others(runner)}")
    channels = 1 if axis is None else port.shape[axis]
    kind: Kind = adapter.output
    whole_numbers = port.dtype.kind in "iu" and port.quantization is None
    if kind == "auto" and channels in (1, None) and (whole_numbers or (channels == 1 and classes > 2)):
        kind = "labels"
    if kind == "labels":
        if channels not in (1, None):
            raise ConfigError(f"{said} has {channels} channels, but the adapter says 'output: labels'; correct it")
    elif channels is not None and channels not in channels_for(classes):
        raise ModelError(
            f"{said} has {channels} channel(s), but {named}; give its class names in order in the adapter ('classes')"
        )
    return AnswerReader(runner.path, port, number, classes, axis, kind, adapter.confidence)


def channels_for(classes: int) -> tuple[int, ...]:
    """Return how many channels of scores may stand for so many classes: two classes may share one."""
    return (1, 2) if classes == 2 else (classes,)


def two_class_logits(values: Tensor, *, probabilities: bool) -> Tensor:
    """Turn one channel z, or the probability of the second class, (N, 1, h, w) into logits (0, z), (N, 2, h, w)."""
    z = torch.logit(values, eps=1e-7) if probabilities else values
    return torch.cat([torch.zeros_like(z), z], dim=1)


def one_hot_logits(labels: Tensor, classes: int, confidence: float, where: str) -> Tensor:
    """Turn label maps (N, h, w) into logits (N, K, h, w) whose softmax is ``confidence`` at the label.

    The other classes share the rest, as in label smoothing (Szegedy et al. 2016, arXiv:1512.00567; 0.9 is theirs).
    All logits but the label's are 0.

    Raises:
        ModelError: A label isn't one of 0 to K - 1.
    """
    index = labels.round().long() if labels.is_floating_point() else labels.long()
    low, high = (int(value) for value in torch.aminmax(index))
    if low < 0 or high >= classes:
        raise ModelError(
            f"{where} answers with the class number {low if low < 0 else high}, but it has {classes} classes "
            f"(0 to {classes - 1}); correct its class names"
        )
    margin = math.log(confidence * (classes - 1) / (1 - confidence)) if classes > 1 else 0.0
    return _peaked(index, classes, margin)


def _peaked(index: Tensor, classes: int, height: float) -> Tensor:
    """Return zeros (N, K, h, w) with ``height`` at class indices (N, h, w), where these are."""
    logits = torch.zeros(index.shape[0], classes, *index.shape[1:], device=index.device)
    return logits.scatter_(1, index[:, None], height)


def _output(runner: Runner, wanted: str | int) -> int:
    names = [port.name for port in runner.outputs]
    if isinstance(wanted, str):
        if wanted not in names:
            raise ConfigError(f"{runner.path} has no output '{wanted}'{nearest(wanted, names)}")
        return names.index(wanted)
    if not 0 <= wanted < len(names):
        raise ConfigError(
            f"{runner.path} has {len(names)} output(s) ({', '.join(names)}), numbered from 0; the adapter's "
            f"'output_name' is {wanted}"
        )
    return wanted


def _axis(port: Port, kind: Kind, classes: int, layout: str) -> Literal[1, 3] | None:
    if len(port.shape) != 4:
        return None
    fitting = (1,) if kind == "labels" else (*channels_for(classes), 1)
    first, last = port.shape[1] in fitting, port.shape[3] in fitting
    if first != last:
        return 1 if first else 3
    return 1 if layout == "NCHW" else 3


def _shape(port: Port) -> str:
    return f"({', '.join('?' if length is None else str(length) for length in port.shape)})"


def _others(runner: Runner) -> str:
    if len(runner.outputs) < 2:
        return ""
    return ": " + ", ".join(f"{port.name} {_shape(port)}" for port in runner.outputs)
