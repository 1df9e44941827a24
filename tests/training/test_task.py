from __future__ import annotations

from itertools import pairwise

import pytest

from segshrink.training.task import warmup_cosine


def test_rises_linearly_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, total=100, warmup=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert warmup_cosine(0, total=10, warmup=0.0) == 1.0
