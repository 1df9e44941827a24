"""Directions of vectors, zero vectors and huge ones among them."""

from __future__ import annotations

import torch

from segshrink.losses.vectors import below_one, unit_vectors


def test_unit_vectors_point_where_the_vectors_do_and_zero_ones_nowhere():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-13, 4e-13]], dtype=torch.float64, requires_grad=True)
    units = unit_vectors(vectors, dim=1)
    units.sum().backward()
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(units.detach(), expected)
    torch.testing.assert_close(vectors.grad[0], torch.tensor([0.032, -0.024], dtype=torch.float64))
    assert torch.equal(vectors.grad[1], torch.zeros(2, dtype=torch.float64))


def test_below_one_scales_down_only_and_keeps_directions():
    vectors = torch.tensor([[3e30, -6e30], [0.25, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(below_one(vectors, dim=1), torch.tensor([[0.5, -1.0], [0.25, 0.5], [0.0, 0.0]]))
