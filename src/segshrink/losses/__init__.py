"""Losses: pure functions of logits, float32 inside, mean over valid pixels, 0 when every pixel is ignored."""

from segshrink.losses.adapters import ChannelAdapter
from segshrink.losses.binary import binary_cross_entropy, binary_kl
from segshrink.losses.boundary import boundary
from segshrink.losses.correlation import dist
from segshrink.losses.decoupled import decoupled_kl, normalized_kl
from segshrink.losses.features import attention_transfer, cosine_hint, hint, pearson_hint
from segshrink.losses.hard_pixels import focal, ohem_cross_entropy
from segshrink.losses.logits import pixel_kl
from segshrink.losses.masked_generation import MaskedGeneration
from segshrink.losses.overlap import soft_jaccard
from segshrink.losses.presets import PRESETS, Preset, preset_terms
from segshrink.losses.registry import REGISTRY, Loss
from segshrink.losses.relations import (
    channel_correlation,
    cross_image_relation,
    intra_class_variation,
    pairwise_similarity,
)
from segshrink.losses.spatial import channel_kl
from segshrink.losses.supervised import cross_entropy, dice, jaccard, lovasz
from segshrink.losses.terms import Term, WeightedTerm, build_term, build_terms, label_terms, terms_from

__all__ = [
    "PRESETS",
    "REGISTRY",
    "ChannelAdapter",
    "Loss",
    "MaskedGeneration",
    "Preset",
    "Term",
    "WeightedTerm",
    "attention_transfer",
    "binary_cross_entropy",
    "binary_kl",
    "boundary",
    "build_term",
    "build_terms",
    "channel_correlation",
    "channel_kl",
    "cosine_hint",
    "cross_entropy",
    "cross_image_relation",
    "decoupled_kl",
    "dice",
    "dist",
    "focal",
    "hint",
    "intra_class_variation",
    "jaccard",
    "label_terms",
    "lovasz",
    "normalized_kl",
    "ohem_cross_entropy",
    "pairwise_similarity",
    "pearson_hint",
    "pixel_kl",
    "preset_terms",
    "soft_jaccard",
    "terms_from",
]
