"""Directions of vectors, with a gradient of zero where a vector is zero and has none."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths(vectors: Tensor, dim: int) -> Tensor:
    """Return the Euclidean lengths along ``dim``, which stays with size 1; their gradient at 0 is 0."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return length


def divisors(length: Tensor, floor: float) -> Tensor:
    """Return lengths to divide by: at least ``floor``, and infinite for zero vectors.

    A zero vector divided by infinity is zero and passes no gradient on; divided by the floor it would pass on a
    gradient 1 / floor times too large.
    """
    return length.clamp(min=floor).masked_fill(length == 0, torch.inf)


def unit_vectors(vectors: Tensor, dim: int, *, floor: float = 1e-12) -> Tensor:
    """Return ``vectors / max(length, floor)`` along ``dim``; zero vectors stay zero and get no gradient."""
    return vectors / divisors(lengths(vectors, dim), floor)


def below_one(vectors: Tensor, dim: int) -> Tensor:
    """Scale down vectors along ``dim`` that reach above 1 until their largest entry is 1.

    For quantities whose direction alone counts: their squares can't overflow then.
    """
    return vectors / vectors.detach().abs().amax(dim, keepdim=True).clamp(min=1)
