"""Networks of Hugging Face's transformers: SegFormer, UPerNet, BEiT, DPT and other semantic segmentation models."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError, SegshrinkError, first_line, nearest
from segshrink.extras import needing
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models.adapters import check_options
from segshrink.models.model import SegmentationModel

_LOGGER = logging.getLogger(__name__)
# With this option a network is built from a configuration alone, with random weights and nothing read or downloaded.
CONFIG_OPTION = "config"
# Order of the bands that the network was trained with, where it isn't red, green, blue.
ORDER_OPTION = "order"
# What a configuration says about where it comes from and about classes, which our description says.
_NOT_SAVED = {
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "num_labels", "transformers_version",
}  # fmt: skip
_WEIGHT_FILES = ("*.safetensors", "*.bin")
# Smaller ones halve five times or take patches that divide this.
_STRIDE = 32


class HuggingFaceNetwork(nn.Module):
    """A semantic segmentation model of transformers: normalized images in, a tensor of logits out.

    Attributes:
        identity: "hf:" and the kind of model, with which and ``options`` it is built again.
        options: Its configuration, and the order of its bands.
        stride: Sides of its images are multiples of this many pixels.
        normalization: How it wants its pixels scaled.
        class_names: Names of its classes; None where it has only numbers for them.
        square: Whether it takes square images only (DPT); others are padded for it.
    """

    def __init__(self, model: Any, processing: _Processing, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.model = model
        self.normalization = processing.normalization
        self.class_names = class_names
        self.square = False
        self.identity = f"hf:{model.config.model_type}"
        self.options: dict[str, Any] = {CONFIG_OPTION: _saved(model.config)}
        if processing.reverse:
            self.options[ORDER_OPTION] = "bgr"
        patch = getattr(model.config, "patch_size", None)
        self.stride = patch if isinstance(patch, int) and _STRIDE % patch else _STRIDE
        # Transformers with learned positions take images of one size only, unless asked.
        parameters = inspect.signature(model.forward).parameters
        self._arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}

    @property
    def encoder(self) -> nn.Module:
        """The backbone, for encoder weights and features."""
        backbone: nn.Module = getattr(self.model, "backbone", self.model.base_model)
        return backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, C, h, w), for SegFormer at a quarter of the images' size."""
        if ORDER_OPTION in self.options:
            images = images.flip(1)
        height, width = images.shape[2:]
        side = max(height, width)
        if self.square:
            images = F.pad(images, (0, side - width, 0, side - height), mode="replicate")
        logits: Tensor = self.model(pixel_values=images, **self._arguments).logits
        if self.square:
            logits = logits[:, :, : height * logits.shape[2] // side, : width * logits.shape[3] // side]
        return logits


class _Processing(NamedTuple):
    """How a network wants its images: scaled, and with the bands in reverse order or not."""

    normalization: Normalization
    reverse: bool


def build_huggingface(name: str, options: Mapping[str, Any], *, num_classes: int, bands: int) -> HuggingFaceNetwork:
    """Build a network for other classes than it was trained with.

    Args:
        name: Local folder or hub name; its weights are loaded (from the hub they are downloaded) and what doesn't fit
            the classes or bands starts at random. With ``options["config"]`` the kind of model, such as "segformer".
        options: ``config``: fields of the configuration, for a network with random weights; ``order``: "bgr".
        num_classes: C.
        bands: Bands of the image.

    Raises:
        FileError: There is no such folder.
        ModelError: No semantic segmentation model, or one that needs code of its own.
        MissingExtraError: transformers isn't installed.
    """
    check_options(f"hf:{name}", options, [CONFIG_OPTION, ORDER_OPTION])
    order = options.get(ORDER_OPTION, "rgb")
    if order not in ("rgb", "bgr"):
        raise ModelError(f"'hf:{name}': order must be rgb or bgr, found {order!r}")
    if CONFIG_OPTION in options:
        processing = _Processing(Normalization.named("imagenet", bands), order == "bgr")
        network = HuggingFaceNetwork(_from_fields(name, options[CONFIG_OPTION], num_classes, bands), processing)
        # Without weights it can't be run; who fills them in tries it.
        return network if any(value.is_meta for value in network.parameters()) else try_network(network)
    config = _read_config(name)
    processing = _read_processing(name, bands)
    _set_head(config, f"hf:{name}", num_classes, bands)
    with _quiet(f"hf:{name}") as transformers:
        if Path(name).is_dir() and not any(path for kind in _WEIGHT_FILES for path in Path(name).glob(kind)):
            return try_network(
                HuggingFaceNetwork(transformers.AutoModelForSemanticSegmentation.from_config(config), processing)
            )
        model, left = _from_pretrained(transformers, name, config)
    if left:
        _LOGGER.warning("hf:%s leaves %d tensors at random: %s", name, len(left), ", ".join(left[:3]))
    return try_network(HuggingFaceNetwork(model, processing))


def load_huggingface(name: str) -> SegmentationModel:
    """Load a trained network with its own classes; before a single one comes the background.

    Args:
        name: Local folder or hub name.

    Raises:
        FileError: There is no such folder.
        ModelError: No semantic segmentation model, one that needs code of its own, or weights are missing.
        MissingExtraError: transformers isn't installed.
    """
    config = _read_config(name)
    names = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    bands = _bands(config)
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    with _quiet(f"hf:{name}") as transformers:
        model, left = _from_pretrained(transformers, name, config)
    if left:
        raise ModelError(
            f"'hf:{name}' lacks weights of {len(left)} tensors, the first is {left[0]}; give a model trained for "
            "semantic segmentation"
        )
    has_names = not all(text.startswith("LABEL_") for text in names)
    network = try_network(HuggingFaceNetwork(model, _read_processing(name, bands), names if has_names else None))
    sigmoid = len(names) == 1
    listed = ("background", *names) if sigmoid else names
    description = ModelDescription(
        id=network.identity,
        options=network.options,
        classes=ClassMap.build([(text, None, None) for text in _unrepeated(listed)]),
        bands=bands,
        normalization=network.normalization,
        stride=network.stride,
        sigmoid=sigmoid,
    )
    return SegmentationModel(network, description).eval()


def _from_fields(kind: str, fields: Any, num_classes: int, bands: int) -> Any:
    identity = f"hf:{kind}"
    if not isinstance(fields, Mapping):
        raise ModelError(f"'{identity}': config must be a mapping of fields, found {type(fields).__name__}")
    with _quiet(identity) as transformers, _offline():
        kinds = list(transformers.models.auto.modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES)
        if kind not in kinds:
            raise ModelError(f"transformers has no semantic segmentation model '{kind}'{nearest(kind, kinds)}")
        # Some configurations take what they are given apart.
        settings = _cleaned(deepcopy(dict(fields)))
        settings.pop("model_type", None)
        config = transformers.AutoConfig.for_model(kind, **settings)
        _set_head(config, identity, num_classes, bands)
        return transformers.AutoModelForSemanticSegmentation.from_config(config)


def _from_pretrained(transformers: Any, name: str, config: Any) -> tuple[Any, list[str]]:
    """Return the model in float32 and the names of the tensors that its files don't bring."""
    model, info = transformers.AutoModelForSemanticSegmentation.from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        trust_remote_code=False,
        weights_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    mismatched = [entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]]
    return model, sorted({*info["missing_keys"], *mismatched})


def try_network(network: HuggingFaceNetwork) -> HuggingFaceNetwork:
    """Run a network, since configurations that contradict themselves are built without complaint."""
    image = torch.zeros(1, network.normalization.bands, 2 * network.stride, 2 * network.stride)
    training = network.training
    with _quiet(network.identity), torch.no_grad():
        network.eval()(image)
        try:
            network(torch.cat([image, image], dim=2))
        except RuntimeError:
            network.square = True
    return network.train(training)


def _read_config(name: str) -> Any:
    path = Path(name)
    if not path.is_dir() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise FileError(f"no folder at {name}; give 'hf:' with a model folder (config.json and weights) or a hub name")
    with _quiet(f"hf:{name}") as transformers:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)


def _read_processing(name: str, bands: int) -> _Processing:
    """Read scaling and band order from the preprocessor's configuration; without one they are taken as ImageNet's."""
    with _quiet(f"hf:{name}") as transformers:
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        except OSError:
            _LOGGER.warning("hf:%s has no preprocessor_config.json; its pixels are scaled as ImageNet's", name)
            return _Processing(Normalization.named("imagenet", bands), reverse=False)
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        mean = processor.image_mean if processor.do_normalize else [0.0] * bands
        std = processor.image_std if processor.do_normalize else [1.0] * bands
    reverse = bool(getattr(processor, "do_flip_channel_order", False))
    if len(mean) != bands:
        return _Processing(Normalization.named("imagenet", bands), reverse=False)
    # Bands are reversed before they are scaled there, afterwards here.
    pairs = [(center / factor, spread / factor) for center, spread in zip(mean, std, strict=True)]
    centers, spreads = zip(*(pairs[::-1] if reverse else pairs), strict=True)
    return _Processing(Normalization(centers, spreads), reverse)


def _set_head(config: Any, identity: str, num_classes: int, bands: int) -> None:
    """Set classes and bands, and leave the auxiliary head out."""
    config.num_labels = num_classes
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    if _bands(config) == bands:
        return
    owner = _owner_of_bands(config)
    if owner is None:
        raise ModelError(f"'{identity}' takes 3 bands, but images have {bands}; choose another network")
    owner.num_channels = bands


def _bands(config: Any) -> int:
    return int(getattr(_owner_of_bands(config), "num_channels", 3))


def _owner_of_bands(config: Any) -> Any:
    """Return the configuration, or that of its backbone, that says how many bands an image has."""
    parts = (config, getattr(config, "backbone_config", None))
    return next((part for part in parts if hasattr(part, "num_channels")), None)


def _saved(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON gives it, without what says where it comes from."""
    fields: dict[str, Any] = _cleaned(json.loads(json.dumps(config.to_dict())))
    return {key: value for key, value in fields.items() if key != "model_type"}


def _cleaned(value: Any) -> Any:
    """Leave out of a configuration what ``_NOT_SAVED`` names, on all levels."""
    if isinstance(value, dict):
        return {key: _cleaned(inner) for key, inner in value.items() if key not in _NOT_SAVED}
    return value


def _unrepeated(names: tuple[str, ...]) -> list[str]:
    """Number names that occur again, since a class map holds each once."""
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name} ({count})" for name, count in zip(names, counts, strict=True)]


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client refuse to ask: a configuration's fields are data, whatever they name."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(identity: str) -> Iterator[Any]:
    """Give the library without its progress bars and tables; turn its errors into one sentence."""
    with needing(f"'{identity}'", "hf"):
        import transformers
        from transformers.utils import logging as chatter
    verbosity, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity(chatter.CRITICAL)
    chatter.disable_progress_bar()
    try:
        yield transformers
    except SegshrinkError:
        raise
    except UnpicklingError as error:
        raise ModelError(
            f"'{identity}' has weights that are a pickle with Python objects besides tensors, which could run code, so "
            "they are not loaded; get a model with safetensors"
        ) from error
    except Exception as error:  # the library and the hub's client raise errors of many kinds
        raise ModelError(
            f"'{identity}' can't be opened: {first_line(error)}; give a folder or hub name of a semantic segmentation "
            "model that transformers knows"
        ) from error
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()
