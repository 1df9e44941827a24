"""Reading weights of strangers without running their code, and fitting them to an encoder."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, load_file
from torch import Tensor, nn

from segshrink.errors import FileError, ModelError
from segshrink.files import is_utf8
from segshrink.formatting import printable, shortened

_LOGGER = logging.getLogger(__name__)
_DAMAGED = "{path} is not a file of weights or is damaged; download or save it again"
# Bytes of names and shapes; a thousand tensors take a hundred thousand.
_LARGEST_HEADER = 16 << 20
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
# What training code wraps around a network.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module")
_PREFIXES = (
    "",
    "encoder.",
    "backbone.",
    "base_net.",
    "module.",
    "model.",
    "network.",
    "network.encoder.",
    "network.base_net.",
    "model.encoder.",
    "features.",
)
# Classes of TensorFlow's ImageNet models: class 0 is background.
_TENSORFLOW_CLASSES = 1001


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from ``.safetensors``, or with torch's weights-only reader from ``.pth`` and the like.

    A dictionary that wraps the tensors ("state_dict", "model", ...) is unwrapped; entries that aren't tensors are left
    out.

    Raises:
        FileError: The file is missing or can't be read.
        ModelError: It isn't a file of weights, is damaged, or is a pickle of Python objects, which could run code and
            is not loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"no weight file at {path}; give the path of a .safetensors or .pth file")
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is not a weight file by its name; give one that ends in {', '.join(WEIGHT_SUFFIXES)}")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else read_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(name): value for name, value in _items(content) if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no named tensors, found {type(content).__name__}; give a file of weights")
    return tensors


def read_checkpoint(path: Path) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain containers on the CPU, nothing that could run code.

    Raises:
        FileError: The file can't be read.
        ModelError: It holds Python objects other than that, or is damaged.
    """
    _refuse_zip_bomb(path)
    try:
        with warnings.catch_warnings():
            # torch warns about the pickle protocol of strangers' files; whether they load is what counts.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower() and not _looks_like_checkpoint(path):
            raise ModelError(_DAMAGED.format(path=path)) from error
        raise ModelError(
            f"{path} is a pickle with Python objects besides tensors, which could run code, so it is not loaded; "
            "save only the weights: torch.save(model.state_dict(), ...) or safetensors"
        ) from error
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error
    except Exception as error:  # damage can look like anything to torch
        raise ModelError(_DAMAGED.format(path=path)) from error


def load_encoder_weights(network: nn.Module, path: Path, *, least: float = 0.9) -> Literal["imagenet", "half"]:
    """Load a weight file into a network's encoder by name.

    Names may carry a prefix ("encoder.", "backbone.", "module.", ...). The file may hold more than the encoder has (a
    classifier, the blocks that a truncated encoder leaves out). Convolutions of images of three bands are fitted to
    another number of bands: bands are repeated in turn and scaled by 3 / bands, so that activations stay as large.

    Args:
        network: Has its encoder as attribute ``encoder``.
        path: File of weights.
        least: Share of the encoder's tensors that the file must bring; counters of batch normalization don't count.

    Returns:
        Name of the normalization that the weights expect: "half" for weights of TensorFlow's 1001 classes, else
        "imagenet".

    Raises:
        FileError: The file is missing or can't be read.
        ModelError: It isn't a safe file of weights, or too few tensors fit; names what is missing.
    """
    tensors = read_tensors(path)
    fit_encoder(network, tensors, str(path), least=least)
    return "half" if any(len(value) == _TENSORFLOW_CLASSES for value in tensors.values() if value.ndim) else "imagenet"


def inherit_encoder(network: nn.Module, teacher: nn.Module, *, least: float = 0.9) -> None:
    """Copy a teacher's encoder into a student's by name, so that the student need not learn again what it can be given.

    The student's encoder is the teacher's or a truncated one; blocks that it leaves out are not copied.

    Args:
        network: Has its encoder as attribute ``encoder``.
        teacher: The teacher's network, or a model around it.
        least: Share of the student's encoder tensors that the teacher must bring.

    Raises:
        ModelError: Too few tensors fit; names what is missing.
    """
    fit_encoder(network, teacher.state_dict(), "the teacher", least=least)


def fit_encoder(network: nn.Module, tensors: Mapping[str, Tensor], source: str, *, least: float) -> None:
    """Load tensors into a network's encoder by name, as `load_encoder_weights` says.

    Args:
        network: Has its encoder as attribute ``encoder``.
        tensors: Weights by name.
        source: Where they come from, for errors.
        least: Share of the encoder's tensors that must be brought.

    Raises:
        ModelError: The network has no encoder, or too few tensors fit.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ModelError(f"{type(network).__name__} has no encoder that weights could be loaded into; leave them out")
    expected = {name: value for name, value in encoder.state_dict().items() if not name.endswith("num_batches_tracked")}
    match = _best_match(expected, tensors)
    fitting: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, value in expected.items():
        tensor = tensors.get(match(name))
        if tensor is not None and value.ndim == 4:
            tensor = _fit_bands(tensor, value.shape[1])
        if tensor is None:
            problems.append(f"{name} is missing")
        elif tensor.shape != value.shape:
            problems.append(f"{name} is {tuple(tensor.shape)} there but {tuple(value.shape)} in the network")
        else:
            fitting[name] = tensor
    if len(fitting) < least * len(expected):
        raise ModelError(
            f"{source} fits {len(fitting)} of the encoder's {len(expected)} tensors: {_listed(problems)}; give weights "
            "of this encoder at this width"
        )
    if problems:
        _LOGGER.warning("%s leaves %d encoder tensors at random: %s", source, len(problems), _listed(problems))
    encoder.load_state_dict({**encoder.state_dict(), **fitting})


def _best_match(expected: Iterable[str], available: Container[str]) -> Callable[[str], str]:
    """Find how the encoder's names become the file's: which prefix to put before, which to take away."""

    def renamed(name: str, cut: str, prefix: str) -> str:
        return prefix + name.removeprefix(cut)

    # smp wraps timm's networks as "model."; timm's own files don't have it.
    ways = [(cut, prefix) for cut in ("", "model.") for prefix in _PREFIXES]
    best = max(ways, key=lambda way: sum(renamed(name, *way) in available for name in expected))
    return lambda name: renamed(name, *best)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        if header > _LARGEST_HEADER:
            raise ModelError(f"{path} is damaged: it claims a header of {header:,} bytes; download or save it again")
        if is_utf8(path):
            return load_file(path, device="cpu")
        return load(path.read_bytes())  # the library opens no other names
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error
    except ModelError:
        raise
    except Exception as error:  # SafetensorError; and tensors of kinds that torch hasn't
        reason = printable(shortened(str(error), 200))
        raise ModelError(f"{path} is damaged or no safetensors file ({reason}); download or save it again") from error


def _refuse_zip_bomb(path: Path) -> None:
    """Raise ModelError for an archive whose parts together claim more bytes than it has; torch doesn't pack them."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # an older file, which is no archive; or torch says what is wrong with it
    if claimed > path.stat().st_size:
        raise ModelError(
            f"{path} claims to hold {claimed:,} bytes in a file of {path.stat().st_size:,}: it was packed or made to "
            "fill the memory; save it again with torch.save"
        )


def _looks_like_checkpoint(path: Path) -> bool:
    """Tell whether a file begins like torch's zip archive or like a pickle."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80" or zipfile.is_zipfile(path)


def _items(content: Any) -> list[tuple[Any, Any]]:
    return list(content.items()) if isinstance(content, Mapping) else []


def _fit_bands(weight: Tensor, bands: int) -> Tensor:
    """Fit the weight (out, 3, kh, kw) of a convolution of images to (out, bands, kh, kw); others stay."""
    weight_bands = weight.shape[1] if weight.ndim == 4 else bands
    if weight_bands == bands or weight_bands != 3:
        return weight
    order = torch.arange(bands) % weight_bands
    return weight[:, order] * (weight_bands / bands)


def _listed(problems: list[str]) -> str:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return ", ".join(problems[:3]) + more
