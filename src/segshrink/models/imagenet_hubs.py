"""Which networks have ImageNet weights, and which hubs have them; free of torch."""

from __future__ import annotations

from collections.abc import Mapping

IMAGENET = "imagenet"
HUGGING_FACE, PYTORCH = "https://huggingface.co", "https://download.pytorch.org"
# Where the weights of a family of networks can be downloaded.
HUBS: Mapping[str, str] = {"smp": HUGGING_FACE, "torchvision": PYTORCH, "mobile": PYTORCH}


def may_have_imagenet_weights(identity: str) -> bool:
    """Tell whether there are ImageNet weights for networks of such an id at all."""
    return identity.partition(":")[0] in HUBS
