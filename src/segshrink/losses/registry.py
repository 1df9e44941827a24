"""Every loss that a recipe may name: its function, and what the function wants to see."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segshrink.losses.binary import binary_kl
from segshrink.losses.boundary import boundary
from segshrink.losses.correlation import dist
from segshrink.losses.decoupled import decoupled_kl, normalized_kl
from segshrink.losses.features import attention_transfer, cosine_hint, hint, pearson_hint
from segshrink.losses.hard_pixels import focal, ohem_cross_entropy
from segshrink.losses.logits import pixel_kl
from segshrink.losses.masked_generation import MaskedGeneration
from segshrink.losses.overlap import soft_jaccard
from segshrink.losses.relations import (
    channel_correlation,
    cross_image_relation,
    intra_class_variation,
    pairwise_similarity,
)
from segshrink.losses.spatial import channel_kl
from segshrink.losses.supervised import cross_entropy, dice, jaccard, lovasz

# Keyword arguments that a term fills in itself: no options of a recipe.
_FILLED_IN = frozenset({"ignore_index", "num_classes", "weights"})


@dataclass(frozen=True)
class Loss:
    """What a loss of the catalog compares.

    Attributes:
        function: ``segshrink.losses.<name>``, or a module that is the loss and is trained with the student.
        compares: The student's logits with the "labels"; its "logits" or its "features" with the teacher's; or
            "either", logits unless taps are named.
        pixels: Which count: "labeled" ones, all "inside" the scene, or "all" of the map.
        tap: Where features are taken on both sides when the recipe doesn't say.
        adapter: Whether a 1×1 convolution brings the student's features to the teacher's channels: "always", where
            the channels are "differing", or "never".
        least_classes: Fewest classes between which it can tell anything.
    """

    function: Callable[..., Tensor] | type[nn.Module]
    compares: Literal["labels", "logits", "features", "either"]
    pixels: Literal["labeled", "inside", "all"]
    tap: str = "encoder"
    adapter: Literal["always", "differing", "never"] = "never"
    least_classes: int = 2

    @property
    def options(self) -> tuple[str, ...]:
        """Names of its options."""
        return tuple(name for name in self._keywords if name not in _FILLED_IN)

    def default(self, option: str) -> Any:
        """Return what an option is where it isn't given; None where there is no such option."""
        parameter = inspect.signature(self.function).parameters.get(option)
        return None if parameter is None else parameter.default

    @property
    def takes_weights(self) -> bool:
        """Whether its pixels can be weighted."""
        return "weights" in self._keywords

    @property
    def _keywords(self) -> tuple[str, ...]:
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


REGISTRY: Mapping[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, "labels", "labeled"),
    "dice": Loss(dice, "labels", "labeled"),
    "jaccard": Loss(jaccard, "labels", "labeled"),
    "lovasz": Loss(lovasz, "labels", "labeled"),
    "focal": Loss(focal, "labels", "labeled"),
    "ohem_cross_entropy": Loss(ohem_cross_entropy, "labels", "labeled"),
    "boundary": Loss(boundary, "labels", "labeled"),
    "pixel_kl": Loss(pixel_kl, "logits", "inside"),
    "binary_kl": Loss(binary_kl, "logits", "inside", least_classes=1),
    "channel_kl": Loss(channel_kl, "either", "inside", adapter="differing", least_classes=1),
    "dist": Loss(dist, "logits", "inside"),
    "soft_jaccard": Loss(soft_jaccard, "logits", "inside"),
    "decoupled_kl": Loss(decoupled_kl, "logits", "labeled"),
    "normalized_kl": Loss(normalized_kl, "logits", "labeled"),
    # FitNet's regressor stands between equal channels too: two networks don't number their features alike.
    "hint": Loss(hint, "features", "all", adapter="always"),
    "cosine_hint": Loss(cosine_hint, "features", "all", adapter="always"),
    "attention_transfer": Loss(attention_transfer, "features", "all"),
    "pearson_hint": Loss(pearson_hint, "features", "all", adapter="differing"),
    "channel_correlation": Loss(channel_correlation, "features", "all", adapter="differing"),
    "pairwise_similarity": Loss(pairwise_similarity, "features", "all"),
    # The last features before the classifier, as published: the encoder's are coarser than most objects.
    "intra_class_variation": Loss(intra_class_variation, "features", "labeled", tap="decoder"),
    "cross_image_relation": Loss(cross_image_relation, "features", "all"),
    "masked_generation": Loss(MaskedGeneration, "features", "all"),
}


def names_of(*compares: str) -> list[str]:
    """List the losses that compare one of these."""
    return [name for name, loss in REGISTRY.items() if loss.compares in compares]
