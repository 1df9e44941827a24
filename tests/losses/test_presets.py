"""Presets: the published weights, converted; checked against the published reductions where they differ from ours."""

from __future__ import annotations

import pytest
import torch

from segshrink.config import Term
from segshrink.errors import ConfigError
from segshrink.losses import PRESETS, build_terms, pixel_kl, preset_terms

CROSS_ENTROPY = [Term(name="cross_entropy")]
# What a student with plain cross-entropy gets.
EXPECTED = {
    "hinton": {"cross_entropy": 1, "pixel_kl": 1},
    "cwd": {"cross_entropy": 1, "channel_kl": 3},
    "dist": {"cross_entropy": 1, "dist": 1},
    "jml": {"cross_entropy": 0.125, "jaccard": 0.375, "pixel_kl": 0.125, "soft_jaccard": 0.375},
    "mgd": {"cross_entropy": 1, "masked_generation": 167.77216, "channel_kl": 3},
    "cirkd": {"cross_entropy": 1, "pixel_kl": 1, "cross_image_relation": 1},
    "skd": {"cross_entropy": 1, "pixel_kl": 80, "pairwise_similarity": 0.5},
    "ifvd": {"cross_entropy": 1, "pixel_kl": 10 / 19, "intra_class_variation": 200},
    "ickd": {"cross_entropy": 1, "channel_correlation": 20},
    "pkd": {"cross_entropy": 1, "pearson_hint": 6},
    "fitnet": {"cross_entropy": 1, "pixel_kl": 1, "hint": 10},
    "cosine": {"cross_entropy": 0.75, "cosine_hint": 0.25},
    "at": {"cross_entropy": 1, "pixel_kl": 1, "attention_transfer": 10000},
    "nkd": {"cross_entropy": 1, "normalized_kl": 1},
    "dkd": {"cross_entropy": 1, "decoupled_kl": 1},
    "lskd": {"cross_entropy": 0.1, "pixel_kl": 9},
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_weights_of_a_preset(name):
    terms = build_terms(preset_terms(name, CROSS_ENTROPY))
    assert {term.name: weight for weight, term in terms} == pytest.approx(EXPECTED[name])
    assert PRESETS[name].source


def test_options_are_the_published_ones():
    options = {
        (name, term.name): term.options
        for name in PRESETS
        for _, term in build_terms(preset_terms(name, CROSS_ENTROPY))
    }
    assert options["cwd", "channel_kl"] == {"temperature": 4.0}
    assert options["hinton", "pixel_kl"] == {"temperature": 1.0}
    assert options["lskd", "pixel_kl"] == {"temperature": 2.0, "standardize": True}
    assert options["dkd", "decoupled_kl"] == {"temperature": 4.0, "alpha": 1.0, "beta": 8.0}
    assert options["nkd", "normalized_kl"] == {"temperature": 1.0, "gamma": 1.5}
    assert options["cirkd", "cross_image_relation"] == {"temperature": 0.1}
    assert options["jml", "jaccard"] == {"smooth": 1.0}
    assert options["jml", "soft_jaccard"] == {"temperature": 1.0, "smooth": 1.0}
    assert options["at", "attention_transfer"] == {"mode": "code"}


def test_the_students_own_supervised_terms_stay():
    own = [Term(name="cross_entropy", weight=0.5, options={"label_smoothing": 0.1}), Term(name="dice", weight=2.0)]
    terms = build_terms(preset_terms("lskd", own))
    assert [(term.name, weight) for weight, term in terms] == [
        ("cross_entropy", pytest.approx(0.05)),
        ("dice", pytest.approx(0.2)),
        ("pixel_kl", 9.0),
    ]
    assert terms[0].term.options == {"label_smoothing": 0.1}


def test_converted_weights_give_the_published_gradients():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 19, 6, 5, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    soft = teacher.softmax(1)
    # SKD: soft cross-entropy, summed over the batch, averaged over pixels, times 10.
    published = 10 * -(soft * student.log_softmax(1)).sum() / (6 * 5)
    assert torch.allclose(_gradient(published, student), _gradient(80 * pixel_kl(student, teacher), student))
    # IFVD: KLDivLoss averaged over elements, times 10.
    published = 10 * torch.nn.functional.kl_div(student.log_softmax(1), soft, reduction="none").mean()
    assert published.item() == pytest.approx((10 / 19 * pixel_kl(student, teacher)).item())


def test_refuses_an_unknown_preset():
    with pytest.raises(ConfigError, match="unknown preset 'cwt'; did you mean 'cwd'"):
        preset_terms("cwt", CROSS_ENTROPY)


def _gradient(loss: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, of)[0]
