"""What is made of logits: classes and probabilities, in numpy and without large temporaries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS_AT_ONCE = 64  # rows of logits worked on together: small enough to stay in the processor's cache


def most_likely(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the class (H, W) with the highest of (C, H, W) logits, the first of equals."""
    index = np.zeros(logits.shape[1:], np.uint8)
    for start in range(0, logits.shape[1], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        best = logits[0, rows].copy()
        for channel in range(1, logits.shape[0]):
            values = logits[channel, rows]
            np.copyto(index[rows], channel, where=values > best)
            np.maximum(best, values, out=best)
    return index


def softmax_in_place(logits: npt.NDArray[np.float32]) -> None:
    """Replace (C, H, W) float32 logits by probabilities over C, block of rows by block of rows."""
    for start in range(0, logits.shape[1], ROWS_AT_ONCE):
        block = logits[:, start : start + ROWS_AT_ONCE]
        block -= block.max(axis=0)
        np.exp(block, out=block)
        block /= block.sum(axis=0)


def log_probabilities(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return logits whose softmax is what was given; no probability counts as less than float32's smallest."""
    logits: npt.NDArray[np.float32] = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logits
