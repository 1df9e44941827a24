"""Reading weights of strangers without running their code, and fitting them to an encoder."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import load, load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from segshrink.errors import FileError, ModelError
from segshrink.file_kinds import WEIGHT_SUFFIXES, looks_like_checkpoint, refuse_no_model, torch_program
from segshrink.files import is_utf8, read_json
from segshrink.formatting import printable, shortened
from segshrink.library import ready_models
from segshrink.model_file import WEIGHTS_FILE

_LOGGER = logging.getLogger(__name__)
_DAMAGED = "{path} is not a file of weights or is damaged; download or save it again"
# Bytes of names and shapes; a thousand tensors take a hundred thousand.
_LARGEST_HEADER = 16 << 20
# What training code calls a network's weights among what else it saves, the likeliest first.
_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "net_state_dict", "model", "net", "network", "module", "weights",
    "params",
)  # fmt: skip
# How many such names may stand one inside the other.
_DEEPEST = 4
# How the list of files ends that weights are spread over.
_INDEX = ".safetensors.index.json"
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

    A dictionary that wraps the tensors ("state_dict", "model", or another name if it is the only one) is unwrapped;
    entries that aren't tensors are left out. Of a network that was pickled whole, and of what else training code saves
    beside its weights, no code is run and no class imported: inert placeholders take their place.

    Raises:
        FileError: The file is missing, can't be read, or is what a failed download left.
        ModelError: It isn't a file of weights, is damaged, holds weights of several networks, or is a pickle that
            can't be read without running its code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"no weight file at {path}; give the path of a .safetensors or .pth file")
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is not a weight file by its name; give one that ends in {', '.join(WEIGHT_SUFFIXES)}")
    refuse_no_model(path)
    if torch_program(path):
        raise ModelError(f"{path} is a program that torch saved, not mere weights; give it as the source itself")
    safe = path.suffix.lower() == ".safetensors"
    content = _read_safetensors(path) if safe else read_checkpoint(path, placeholders=True)
    try:
        tensors = {str(name): value for name, value in _unwrapped(content, path).items() if isinstance(value, Tensor)}
    except RecursionError as error:  # something in it contains itself
        raise ModelError(_DAMAGED.format(path=path)) from error
    if not tensors:
        raise ModelError(
            f"{path} holds no named tensors, found {type(content).__name__}; give .safetensors or what "
            "torch.save(model.state_dict(), ...) wrote"
        )
    return tensors


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the files beside an index that Hugging Face's libraries write for weights in several of them."""
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise ModelError(f"{index} lists no files of weights ('weight_map'); give a file of weights")
    parts = [read_tensors(index.parent / Path(str(name)).name) for name in sorted(set(files.values()))]
    return {name: tensor for part in parts for name, tensor in part.items()}


class _Placeholder:
    """Stands for a Python object of a stranger's file: keeps what the file says about it, and does nothing."""

    def __new__(cls, *arguments: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        """Take what the object's own class would have been given."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update({str(name): value for name, value in state.items()})


def pickled_class(path: Path) -> str | None:
    """Return the class of a network that ``torch.save`` pickled whole, as "module:Class"; None: it isn't one."""
    content = None if path.suffix.lower() == ".safetensors" else read_checkpoint(path, placeholders=True)
    if isinstance(content, Mapping):
        content = next((value for value in content.values() if _weights_in(value) and not _items(value)), None)
    if not isinstance(content, _Placeholder):
        return None
    module, _, name = type(content).__name__.rpartition(".")
    return f"{module}:{name}"


def _unwrapped(content: Any, path: Path) -> Mapping[Any, Any]:
    """Return the mapping of tensors among what training code saved.

    Raises:
        ModelError: There are several, and none has one of the usual names.
    """
    for _ in range(_DEEPEST):
        content = _mapping(content)
        inside = {str(name): value for name, value in content.items() if _weights_in(value)}
        name = next((usual for usual in _WRAPPERS if usual in inside), None)
        if not inside or (name is None and any(isinstance(value, Tensor) for value in content.values())):
            break
        if name is None and len(inside) > 1:
            raise ModelError(
                f"{path} holds weights under {', '.join(map(repr, inside))}; save those that you mean alone: "
                f"torch.save(torch.load('{path}')['{next(iter(inside))}'], 'weights.pth')"
            )
        name = name or next(iter(inside))
        most = _weights_in(inside[name])
        if others := [repr(other) for other in inside if other != name and 2 * _weights_in(inside[other]) >= most]:
            _LOGGER.warning(
                "%s holds weights under %s as well as '%s', which are taken; save the others alone to take those",
                path,
                ", ".join(others),
                name,
            )
        content = inside[name]
    return _mapping(content)


def _mapping(content: Any) -> Mapping[Any, Any]:
    """Return what a file holds as a mapping: of a network that was pickled whole, its named tensors."""
    if isinstance(content, Mapping):
        return content
    return dict(_tensors_of(content, "")) if hasattr(content, "_modules") else {}


def _tensors_of(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    state = vars(module)
    for kind in ("_parameters", "_buffers"):
        yield from ((prefix + name, value) for name, value in _items(state.get(kind)) if isinstance(value, Tensor))
    for name, child in _items(state.get("_modules")):
        if isinstance(child, _Placeholder):
            yield from _tensors_of(child, f"{prefix}{name}.")


def _weights_in(value: Any) -> int:
    """Count the named tensors in a value, on all levels; an optimizer's state has none."""
    if not isinstance(value, Mapping):
        return len(_mapping(value))
    if "param_groups" in value or not all(isinstance(name, str) for name in value):
        return 0
    return sum(1 if isinstance(entry, Tensor) else _weights_in(entry) for entry in value.values())


def read_checkpoint(path: Path, *, placeholders: bool = False) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain containers on the CPU, nothing that could run code.

    Args:
        path: The file.
        placeholders: Let inert objects stand for those of foreign classes, where the file tells them beforehand.

    Raises:
        FileError: The file can't be read.
        ModelError: It holds Python objects other than that, or is damaged.
    """
    _refuse_zip_bomb(path)
    try:
        with warnings.catch_warnings():
            # torch warns about the pickle protocol of strangers' files; whether they load is what counts.
            warnings.simplefilter("ignore", UserWarning)
            foreign = _foreign_names(path) if placeholders else []
            with safe_globals([(type(name, (_Placeholder,), {}), name) for name in foreign]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower() and not looks_like_checkpoint(path):
            raise ModelError(_DAMAGED.format(path=path)) from error
        raise ModelError(
            f"{path} is a pickle with Python objects besides tensors, which could run code, so it is not loaded; "
            "save only the weights: torch.save(model.state_dict(), ...) or safetensors"
        ) from error
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error
    except Exception as error:  # damage can look like anything to torch
        raise ModelError(_DAMAGED.format(path=path)) from error


def _foreign_names(path: Path) -> list[str]:
    """List the classes and functions that a checkpoint names and torch doesn't know; nothing is imported."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older format, or damage, of which torch.load tells
        return []


def load_encoder_weights(network: nn.Module, path: Path, *, least: float = 0.9) -> Literal["imagenet", "half"]:
    """Load a weight file into a network's encoder by name.

    Names may carry a prefix ("encoder.", "backbone.", "module.", ...). The file may hold more than the encoder has (a
    classifier, the blocks that a truncated encoder leaves out). Convolutions of images of three bands are fitted to
    another number of bands: bands are repeated in turn and scaled by 3 / bands, so that activations stay as large.

    Args:
        network: Has its encoder as attribute ``encoder``.
        path: File of weights, or the name of a ready model whose encoder it is to be.
        least: Share of the encoder's tensors that the file must bring; counters of batch normalization don't count.

    Returns:
        Name of the normalization that the weights expect: "half" for weights of TensorFlow's 1001 classes and of ready
        models, else "imagenet".

    Raises:
        FileError: The file is missing or can't be read.
        ModelError: It isn't a safe file of weights, or too few tensors fit; names what is missing.
    """
    ready = ready_models().get(str(path)) if not path.exists() else None
    tensors = read_tensors(path if ready is None else ready / WEIGHTS_FILE)
    fit_encoder(network, tensors, str(path), least=least)
    halved = ready is not None or any(len(value) == _TENSORFLOW_CLASSES for value in tensors.values() if value.ndim)
    return "half" if halved else "imagenet"


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
    in_file = names_in_files(encoder, expected)
    match = _best_match(in_file.values(), tensors)
    fitting: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, value in expected.items():
        tensor = tensors.get(name, tensors.get(match(in_file[name])))
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


def names_in_files(encoder: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return how files of weights call an encoder's tensors, by its own names, which they mostly are."""
    layers: Mapping[str, str] = getattr(encoder, "file_names", {})
    parts = [name.rpartition(".") for name in names]
    return {f"{layer}.{kind}": f"{layers.get(layer, layer)}.{kind}" for layer, _, kind in parts}


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
