"""Losses: pure functions of logits, float32 inside, mean over valid pixels, 0 when every pixel is ignored."""

from segshrink.losses.logits import pixel_kl
from segshrink.losses.supervised import cross_entropy, dice, jaccard
from segshrink.losses.terms import Term, WeightedTerm, build_term, build_terms, terms_from

__all__ = [
    "Term",
    "WeightedTerm",
    "build_term",
    "build_terms",
    "cross_entropy",
    "dice",
    "jaccard",
    "pixel_kl",
    "terms_from",
]
