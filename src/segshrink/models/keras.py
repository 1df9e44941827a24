"""Networks in Keras's files (``.keras``, ``.h5``), run by Keras 3 on its torch backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError
from segshrink.extras import quiet_library
from segshrink.model_description import CUSTOM, ModelDescription, Normalization
from segshrink.model_file import ModelFile
from segshrink.models.keras_file import import_keras, parts, read_model
from segshrink.models.model import SegmentationModel
from segshrink.models.unet import UNet

_LOGGER = logging.getLogger(__name__)
_SCALING = ("Rescaling", "Normalization")
# What an adapter may say about a Keras file; the rest stands in the file.
_SAID = {"classes", "mean", "std", "order", "output", "output_name", "module"}
_STRIDES = (1, 2, 4, 8, 16, 32, 64)
# Side of the images that a network of any size is tried with.
_TRIAL = 64
# How far our U-Net's answers may be from those of the Keras model whose weights it has, as a share of the largest.
_CLOSE = 1e-4


class KerasNetwork(nn.Module):
    """A Keras model as a network of torch. Its weights are torch's; its layers, whose channels are last, are hidden.

    Copies share it: it is run, not trained.

    Args:
        model: Takes images (N, H, W, bands), gives scores (N, h, w, C).
        probabilities: Whether the scores are probabilities.
        order: Places of the bands that it takes among those of the images.
        side: The only height and width that it takes; larger images are cut into squares. None: it takes any.

    Shape:
        (N, bands, H, W) → logits (N, C, h, w).
    """

    def __init__(self, model: Any, *, probabilities: bool, order: list[int], side: int | None = None) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({weight.path: weight.value for weight in model.weights})
        self.probabilities, self.order, self.side = probabilities, order, side
        self._hidden = (model,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits; of probabilities their logarithms, of a single one (a sigmoid's) its logit."""
        pixels = images if self.order == sorted(self.order) else images[:, self.order]
        scores = self._scores(pixels) if self.side is None else self._scores_of_squares(pixels, self.side)
        if not self.probabilities:
            return scores
        return scores.logit(1e-7) if scores.shape[1] == 1 else scores.clamp_min(1e-7).log()

    def _scores_of_squares(self, images: Tensor, side: int) -> Tensor:
        count, bands, height, width = images.shape
        rows, columns = height // side, width // side
        squares = images.reshape(count, bands, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        scores = self._scores(squares.reshape(-1, bands, side, side))
        classes, height, width = scores.shape[1:]
        maps = scores.reshape(count, rows, columns, classes, height, width).permute(0, 3, 1, 4, 2, 5)
        return maps.reshape(count, classes, rows * height, columns * width)

    def _scores(self, images: Tensor) -> Tensor:
        with import_keras().device(str(images.device)):
            scores: Tensor = self._hidden[0](images.permute(0, 2, 3, 1), training=self.training)
        return scores.permute(0, 3, 1, 2)


def load_keras(source: str | Path, adapter: Adapter, *, trust: bool = False) -> SegmentationModel:
    """Open a Keras file of a segmentation network whose channels are last.

    A softmax at its end, or the sigmoid of a single channel, is taken off, so that it gives logits. The U-Net of the
    Keras tutorials becomes a ``UNet`` with its weights, which can be pruned and saved.

    Args:
        source: The file, or "keras:FILE".
        adapter: What the file doesn't say: class names (by default numbers), how pixels are scaled.
        trust: Let it run code: its Lambda layers, and the ``module`` of the adapter.

    Raises:
        FileError: There is no such file.
        ConfigError: The adapter contradicts the file.
        ModelError: It is damaged, holds code, or is no network from an image to a map of classes.
        MissingExtraError: Keras isn't installed.
    """
    file = ModelFile.find(source)
    if unused := sorted(adapter.model_fields_set - _SAID):
        raise ConfigError(f"{file.path} says '{unused[0]}' itself; leave it out of its adapter")
    model, objects = read_model(file, adapter, trust=trust)
    bands, channels = _bands_and_channels(model, file.path)
    order = [2, 1, 0, *range(3, bands)] if adapter.order == "bgr" and bands > 2 else list(range(bands))
    probabilities = _is_probable(model, adapter, channels)
    identity, options = f"{CUSTOM}{file.path.name}", {}
    unet = None if probabilities else _as_unet(model, bands, channels, order)
    network: nn.Module
    if unet is not None:
        network, stride, identity = unet, unet.stride, "unet"
        options = {"width": unet.head.in_channels, "depth": len(unet.encoder), "batch_norm": False}
        _LOGGER.info("%s is the U-Net of the Keras tutorials, opened as 'unet'", file.path)
    else:
        network, stride = _as_network(model, objects, file.path, probabilities=probabilities, order=order)
    description = ModelDescription(
        id=identity,
        options=options,
        classes=_class_map(adapter, channels, file.path),
        bands=bands,
        normalization=_normalization(model, adapter, order, file),
        stride=stride,
        sigmoid=channels == 1,
    )
    return SegmentationModel(network, description).eval()


def _class_map(adapter: Adapter, channels: int, path: Path) -> ClassMap:
    names = adapter.class_names() or tuple(f"class {number}" for number in range(max(2, channels)))
    if channels not in ((1, 2) if len(names) == 2 else (len(names),)):
        raise ModelError(
            f"{path} answers with {channels} channels, but {len(names)} classes are named ({', '.join(names)}); name "
            "one for each channel, or two for a single one, the background first"
        )
    return ClassMap.build(names)


def _bands_and_channels(model: Any, path: Path) -> tuple[int, int]:
    takes, gives = model.inputs[0].shape, model.outputs[0].shape
    if len(takes) != 4 or len(gives) != 4 or None in (takes[3], gives[3]):
        raise ModelError(
            f"{path} takes {takes} and answers {gives}; a network takes images (N, H, W, bands) and answers with a map "
            "of scores (N, h, w, classes)"
        )
    return takes[3], gives[3]


def _is_probable(model: Any, adapter: Adapter, channels: int) -> bool:
    """Tell whether a model answers with probabilities; a last activation that can be taken off is.

    Where the last layer has no activation of its own, an answer from 0 to 1 tells.
    """
    if adapter.output != "auto":
        return adapter.output == "probabilities"
    layer = model.outputs[0]._keras_history.operation
    while getattr(layer, "outputs", None):  # a model inside
        layer = layer.outputs[0]._keras_history.operation
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if activation == "softmax" or (activation == "sigmoid" and channels == 1):
        layer.activation = import_keras().activations.linear
        return False
    if activation is not None:
        return bool(activation == "sigmoid")
    answer = _answer(model)
    return bool((answer >= 0).all() and (answer <= 1).all())


def _answer(model: Any) -> Tensor:
    """Return scores (1, C, h, w) for an image of noise of the model's size."""
    with torch.no_grad(), import_keras().device("cpu"):
        answer: Tensor = model(_noise(model).permute(0, 2, 3, 1), training=False).permute(0, 3, 1, 2)
    return answer


def _noise(model: Any) -> Tensor:
    height, width, bands = (side or _TRIAL for side in model.inputs[0].shape[1:])
    return torch.rand(1, bands, height, width, generator=torch.Generator().manual_seed(0))


def _as_unet(model: Any, bands: int, channels: int, order: list[int]) -> UNet | None:
    """Return our U-Net with the weights of a model that is one, without batch normalization; None: it is another.

    A kernel (h, w, inputs, outputs) of Keras, or (h, w, outputs, inputs) where transposed, is turned round for torch.
    """
    weights = [weight.value.detach() for weight in model.weights]
    kernels, biases = weights[::2], weights[1::2]
    depth, rest = divmod(len(kernels) + 2, 5)  # two layers a level down, three up, one at the end
    if rest or len(kernels) != len(biases) or any(kernel.ndim != 4 for kernel in kernels):
        return None
    try:
        unet = UNet(channels, bands, width=kernels[0].shape[3], depth=depth, batch_norm=False).eval()
    except ModelError:  # no such width or depth
        return None
    layers: list[Any] = [layer for layer in unet.encoder.modules() if isinstance(layer, nn.Conv2d)]
    for up, block in zip(unet.up, unet.decoder, strict=True):
        layers += [up, *(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))]
    for layer, kernel, bias in zip([*layers, unet.head], kernels, biases, strict=True):
        kernel = kernel.permute(3, 2, 0, 1)
        if layer.weight.shape != kernel.shape or layer.bias.shape != bias.shape:
            return None
        layer.load_state_dict({"weight": kernel, "bias": bias})
    with torch.no_grad(), suppress(RuntimeError):  # of sides that are no multiples of its stride
        expected = _answer(model)
        if torch.allclose(unet(_noise(model)), expected, rtol=0, atol=_CLOSE * float(expected.abs().max())):
            first = layers[0].weight
            first.copy_(first[:, order].clone())
            return unet
    return None


def _as_network(
    model: Any, objects: Mapping[str, Any], path: Path, *, probabilities: bool, order: list[int]
) -> tuple[KerasNetwork, int]:
    """Return the network and its stride: for images of any size where its layers allow it, else for its own.

    Raises:
        ModelError: It fails, or takes images of one size that isn't square.
    """
    side, width = model.inputs[0].shape[1:3]
    free = model if side is None and width is None else _without_size(model, objects)
    if free is not None:
        network = KerasNetwork(free, probabilities=probabilities, order=order)
        # One that pools an image of its own size takes multiples of that size, too, and pools parts of them.
        if (stride := _stride(network)) is not None and 2 * stride <= (side or 2 * stride):
            return network, stride
    if side is None or side != width:
        raise ModelError(
            f"{path} takes images of {side or 'any'} x {width or 'any'} pixels and can't be run on others; save it for "
            "squares, or for images of any size: keras.Input((None, None, bands))"
        )
    return KerasNetwork(model, probabilities=probabilities, order=order, side=side), side


def _without_size(model: Any, objects: Mapping[str, Any]) -> Any:
    """Return a copy for images of any size; None where a layer needs one."""
    keras = import_keras()
    with suppress(Exception), quiet_library(), keras.saving.custom_object_scope(dict(objects)), keras.device("cpu"):
        config = model.get_config()
        for part in parts(config):
            if part["class_name"] == "InputLayer":
                batch, *_, bands = part["config"]["batch_shape"]
                part["config"]["batch_shape"] = (batch, None, None, bands)
        copy = type(model).from_config(config)
        copy.set_weights([weight.value for weight in model.weights])
        return copy
    return None


def _stride(network: KerasNetwork) -> int | None:
    """Return the smallest number of which sides must be multiples; None: images of all sizes tried fail."""
    for stride in _STRIDES:
        images = torch.zeros(1, len(network.order), 2 * stride, 3 * stride)
        with suppress(Exception), torch.no_grad():  # what Keras raises depends on the layer
            height, width = network.eval()(images).shape[2:]
            if 3 * height == 2 * width <= 6 * stride:
                return stride
    return None


def _normalization(model: Any, adapter: Adapter, order: list[int], file: ModelFile) -> Normalization:
    """Return how raw pixels are scaled: as the adapter says, or by the model's own layer, or from 0 to 1."""
    if adapter.model_fields_set & {"mean", "std"}:
        said = adapter.normalization(len(order))
        return Normalization(tuple(said.mean[band] for band in order), tuple(said.std[band] for band in order))
    if any(type(layer).__name__ in _SCALING for layer in _layers(model)):
        return Normalization((0.0,) * len(order), (1.0,) * len(order))
    _LOGGER.warning(
        "%s has no layer that scales pixels, so they are divided by 255; if it learned from others, say so in %s "
        "('mean', 'std')",
        file.path,
        file.adapter,
    )
    return Normalization((0.0,) * len(order), (255.0,) * len(order))


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
