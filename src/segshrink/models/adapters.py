"""Networks of other libraries: segmentation-models-pytorch (with timm's encoders) and torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError, first_line, nearest
from segshrink.extras import needing

# Weights are fetched only when this option asks for them.
WEIGHTS_OPTION = "weights"
# Arguments of smp's classes that we set, or that change what comes out.
_SMP_OURS = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}
# A plain transformer takes images of one size only, unless asked.
_SMP_DEFAULTS = {"DPT": {"dynamic_img_size": True}}
# PAN halves its coarsest features three times more, 64 keeps at least one pixel there; DPT halves them once more.
_SMP_STRIDES = {"DPT": 32, "PAN": 64}


def build_smp(name: str, options: Mapping[str, Any], *, num_classes: int, bands: int) -> nn.Module:
    """Build ``<Architecture>/<encoder>`` of segmentation-models-pytorch.

    Args:
        name: Such as "Unet/mobilenet_v2" or "FPN/tu-convnext_tiny"; the architecture in any case.
        options: Arguments of the architecture (``decoder_channels``, ``encoder_depth``, ...), and ``weights``
            ("imagenet", ...) to download encoder weights; nothing is downloaded without it.
        num_classes: C.
        bands: Bands of the image.

    Raises:
        ModelError: Unknown architecture, encoder or option, or a value that the library refuses.
    """
    smp = _smp()
    architectures = {kind.__name__: kind for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    architecture, separator, encoder = name.partition("/")
    kind = {option_names.lower(): value for option_names, value in architectures.items()}.get(architecture.lower())
    if kind is None:
        raise ModelError(f"unknown architecture '{architecture}' in 'smp:{name}'{nearest(architecture, architectures)}")
    if not separator or not encoder:
        raise ModelError(f"'smp:{name}' names no encoder; write smp:{kind.__name__}/<encoder>, such as resnet34")
    _check_encoder(smp, encoder)
    option_names = [option for option in inspect.signature(kind.__init__).parameters if option not in _SMP_OURS]
    check_options(f"smp:{name}", options, [*option_names, WEIGHTS_OPTION])
    arguments = {key: value for key, value in options.items() if key != WEIGHTS_OPTION}
    arguments |= _SMP_DEFAULTS.get(kind.__name__, {})
    try:
        network: nn.Module = kind(
            encoder_name=encoder,
            encoder_weights=options.get(WEIGHTS_OPTION),
            in_channels=bands,
            classes=num_classes,
            **arguments,
        )
    except (TypeError, ValueError, KeyError, IndexError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"'smp:{name}' can't be built: {first_line(error)}; change its options") from error
    return network


def smp_names() -> list[str]:
    """List architecture/encoder pairs of segmentation-models-pytorch, without timm's hundreds of ``tu-`` encoders."""
    smp = _smp()
    return [
        f"{kind.__name__}/{encoder}"
        for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()
        for encoder in sorted(smp.encoders.encoders)
    ]


class TorchvisionNetwork(nn.Module):
    """A segmentation network of torchvision, without its auxiliary head and output dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def encoder(self) -> nn.Module:
        """The backbone, for encoder weights."""
        backbone = self.model.backbone
        if not isinstance(backbone, nn.Module):
            raise ModelError(f"{type(self.model).__name__} has no backbone that weights could be loaded into")
        return backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the images' size."""
        logits: Tensor = self.model(images)["out"]
        return logits


def build_torchvision(name: str, options: Mapping[str, Any], *, num_classes: int, bands: int) -> nn.Module:
    """Build a segmentation network of torchvision.

    Args:
        name: Such as "lraspp_mobilenet_v3_large" or "deeplabv3_resnet50".
        options: ``weights``: "imagenet" downloads weights of the backbone; nothing is downloaded without it.
        num_classes: C.
        bands: Bands of the image; the first convolution is replaced unless it is 3.

    Raises:
        ModelError: Unknown name or option.
    """
    from torchvision import models

    names = torchvision_names()
    if name not in names:
        raise ModelError(f"unknown network 'torchvision:{name}'{nearest(name, names)}")
    check_options(f"torchvision:{name}", options, [WEIGHTS_OPTION])
    weights = options.get(WEIGHTS_OPTION)
    if weights not in (None, "imagenet"):
        raise ModelError(f"'torchvision:{name}': weights must be 'imagenet' or left out, found {weights!r}")
    model: nn.Module = models.get_model(
        name,
        weights=None,
        weights_backbone="DEFAULT" if weights else None,
        num_classes=num_classes,
        aux_loss=False,
    )
    if bands != 3:
        _replace_first_convolution(model, bands)
    return TorchvisionNetwork(model)


def torchvision_names() -> list[str]:
    """List torchvision's segmentation networks."""
    from torchvision import models

    names: list[str] = models.list_models(module=models.segmentation)
    return names


def measured_stride(network: nn.Module, bands: int) -> int:
    """Read how many pixels a network's coarsest features stand for.

    smp's encoders say it; torchvision's backbones are run once on a small image.
    """
    if isinstance(stated := getattr(network, "stride", None), int):
        return stated
    encoder = network.encoder
    if (special := _SMP_STRIDES.get(type(network).__name__)) is not None:
        return special
    stated = getattr(encoder, "output_stride", None)
    if isinstance(stated, int):
        return stated
    if not isinstance(encoder, nn.Module):
        return 32
    side = 64
    training = network.training
    network.eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, bands, side, side))
    network.train(training)
    return int(side // min(value.shape[-1] for value in features.values()))


def check_options(identity: str, options: Mapping[str, Any], names: list[str]) -> None:
    """Refuse an option that a network doesn't have; the nearest is named."""
    for option in options:
        if option not in names:
            raise ModelError(f"'{identity}' has no option '{option}'{nearest(str(option), names)}")


def _smp() -> Any:
    with needing("a network of segmentation-models-pytorch", "train"):
        import segmentation_models_pytorch
    return segmentation_models_pytorch


def _check_encoder(smp: Any, encoder: str) -> None:
    if encoder in smp.encoders.encoders:
        return
    if not encoder.startswith("tu-"):
        raise ModelError(f"unknown encoder '{encoder}' of smp{nearest(encoder, smp.encoders.encoders)}")
    import timm

    # timm writes weights behind a dot; the architecture stands before it.
    architecture = encoder.removeprefix("tu-").partition(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(f"unknown timm encoder '{architecture}'{nearest(architecture, timm.list_models())}")


def _replace_first_convolution(model: nn.Module, bands: int) -> None:
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        parent_name, _, attribute = name.rpartition(".")
        replaced = nn.Conv2d(
            bands,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]  # stubs say tuple of any length
            stride=module.stride,  # type: ignore[arg-type]
            padding=module.padding,  # type: ignore[arg-type]
            bias=module.bias is not None,
        )
        nn.init.kaiming_normal_(replaced.weight, mode="fan_out", nonlinearity="relu")
        setattr(model.get_submodule(parent_name), attribute, replaced)
        return
