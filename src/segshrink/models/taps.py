"""Taps: named intermediate features of any network, without editing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from segshrink.errors import ModelError
from segshrink.models.dry_run import dry_run, is_compiled, network_of, unwrapped
from segshrink.models.feature_maps import as_map, tensors_in
from segshrink.models.feature_roles import is_role, list_roles

# Behind a module's path: "#key" chooses from a tuple, list or dictionary, "@input" takes what the module is given.
_KEY, _INPUT = "#", "@input"


class Taps:
    """Keeps the features that named modules give in each forward of a model; gradients flow through them.

    A context manager; closing it removes every hook, also after an exception. Copies and pickles of the model have no
    working taps, and a copy of the taps is closed.

    A forward begins by dropping the features of the one before. A module that runs several times in one forward
    leaves the features of its last call. Features belong to the image as the network sees it, which a
    ``SegmentationModel`` pads right and bottom to its stride. Where the model is compiled, opening and closing taps
    drops what ``torch.compile`` has built so far, since it doesn't look for new hooks.

    Args:
        model: The model; a wrapper of DistributedDataParallel, DataParallel or ``torch.compile`` is looked through.
        names: Paths of modules ("encoder.layer4"; a ``SegmentationModel``'s own "network." may be left out), of an
            element of their output ("encoder#3", "backbone#out", "encoder#hidden_states.2"), of what they are given
            ("head@input", or of several tensors the second: "head@input#1"), or roles: "encoder", "decoder",
            "stage:3", "logits" (see ``list_roles``). A role goes before a path of the same name.
        size: Height and width in pixels of the image by which roles are found, for networks that take one size only.

    Attributes:
        names: The names, each once.
        paths: Name -> full path.

    Raises:
        ModelError: An unknown path or role (the nearest are named). While the model runs: a module isn't called, its
            output has no such element or is no feature map, or what follows overwrites it.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, size: int = 64) -> None:
        inner = unwrapped(model)
        self.names = tuple(dict.fromkeys(names))
        self.paths: Mapping[str, str] = MappingProxyType(_resolved(inner, self.names, size))
        self._recording = _Recording(self.paths)
        self._model = model
        self._handles = self._recording.attached(inner)
        self._forget_compiled()

    @property
    def features(self) -> dict[str, Tensor]:
        """Name -> features (N, C, H, W) of the last forward, in the precision that the model computes in.

        Sequences of tokens (N, H·W, C) and channels-last maps are turned into it. Each forward makes a new dictionary.
        """
        return self._recording.features

    def clear(self) -> None:
        """Drop the features, and with them the graph that they hold."""
        self._recording.forget()

    def close(self) -> None:
        """Remove all hooks and drop the features; closing twice does no harm."""
        self.clear()
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self._forget_compiled()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a training task copies its model too, and a weight average need not be watched.
        return Taps, (nn.Identity(), ())

    def _forget_compiled(self) -> None:
        if is_compiled(self._model):
            torch.compiler.reset()


def tap_shapes(
    model: nn.Module, names: Sequence[str], *, bands: int, size: int = 64
) -> dict[str, tuple[int, int, int]]:
    """Return the shapes (C, H, W) of features at an image of ``size`` × ``size`` pixels, from a dry run in eval mode.

    Training flags, running averages and random numbers stay as they are.

    Args:
        model: The model.
        names: Paths or roles as ``Taps`` takes them.
        bands: Bands of the image.
        size: Height and width of the image in pixels.

    Raises:
        ModelError: As ``Taps`` raises them, or the model can't be run on such an image.
    """
    with Taps(model, names, size=size) as taps:
        dry_run(unwrapped(model), bands=bands, size=size)
        return {name: tuple(features.shape[1:]) for name, features in taps.features.items()}  # type: ignore[misc]


class _Recording:
    """The hooks' side of taps; a copy or pickle of it records nothing."""

    def __init__(self, paths: Mapping[str, str] | None = None) -> None:
        self.paths = dict(paths or {})
        self.features: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._image_size = (0, 0)
        self._running = False

    def attached(self, model: nn.Module) -> list[RemovableHandle]:
        """Hook into a model: first its start, last its end."""
        handles = [
            model.register_forward_pre_hook(self._begin),
            network_of(model)[1].register_forward_pre_hook(self._see_image, with_kwargs=True),
        ]
        for name, path in self.paths.items():
            module_path, _, key = path.partition(_KEY)
            if module_path.endswith(_INPUT):
                module = model.get_submodule(module_path.removesuffix(_INPUT))
                handles.append(
                    module.register_forward_pre_hook(partial(self._keep_input, name, key or "0"), with_kwargs=True)
                )
            else:
                handles.append(model.get_submodule(module_path).register_forward_hook(partial(self._keep, name, key)))
        handles.append(model.register_forward_hook(self._end))
        return handles

    def __reduce__(self) -> tuple[Any, ...]:
        return _Recording, ()

    def forget(self) -> None:
        """Drop the features."""
        # New dictionaries: a compiled forward would take the tensors of old ones for its inputs.
        self.features = {}
        self._versions = {}

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self.forget()
        self._running = bool(self.paths)

    def _see_image(self, module: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> None:
        for _, value in tensors_in((inputs, keywords)):
            if value.ndim == 4:
                self._image_size = (value.shape[2], value.shape[3])
                return

    def _keep_input(self, name: str, key: str, module: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> None:
        self._keep(name, key, module, None, [value for _, value in tensors_in((inputs, keywords))])

    def _keep(self, name: str, key: str, module: nn.Module, inputs: Any, output: Any) -> None:
        # Gradient checkpointing runs modules again while it goes backward.
        if not self._running:
            return
        tensors = dict(tensors_in(output))
        if key and key not in tensors:
            raise ModelError(f"'{self.paths[name]}' is not there; found are: {_described(tensors)}")
        maps = {
            other: value
            for other, tensor in tensors.items()
            if other == key or not key
            if (value := as_map(tensor, self._image_size)) is not None
        }
        if len(maps) != 1:
            kind = "no feature map (N, C, H, W)" if key or not maps else "several feature maps"
            raise ModelError(
                f"'{self.paths[name]}' is {kind}; found are: {_described(tensors)}; choose one with '{_KEY}' or "
                "another module"
            )
        (features,) = maps.values()
        self.features[name] = features
        # A compiled graph overwrites nothing that it returns, and inference tensors have no version.
        if not torch.compiler.is_compiling() and not features.is_inference():
            self._versions[name] = features._version

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._running:
            return
        self._running = False
        for name, path in self.paths.items():
            if name not in self.features:
                raise ModelError(f"'{path}' is not run by the model's forward, so it has no features; tap another path")
            if name in self._versions and self.features[name]._version != self._versions[name]:
                raise ModelError(
                    f"'{path}' is overwritten in place by what follows it; tap the module that follows, or its parent"
                )


def _resolved(model: nn.Module, names: Sequence[str], size: int) -> dict[str, str]:
    has_roles = any(is_role(name) for name in names)
    roles = {role.name: role.path for role in list_roles(model, size=size)} if has_roles else {}
    return {name: roles[name] if name in roles else _full_path(model, name, roles) for name in names}


def _full_path(model: nn.Module, name: str, roles: Mapping[str, str]) -> str:
    path = name.partition(_KEY)[0].removesuffix(_INPUT)
    modules = dict(model.named_modules())
    network = f"{network_of(model)[0]}."
    for candidate in (path, network + path):
        if path and candidate in modules:
            module = modules[candidate]
            if type(module).forward is nn.Module.forward:
                children = ", ".join(f"{path}.{child}" for child, _ in module.named_children())
                raise ModelError(f"'{path}' only holds other modules and is never run; tap one of: {children}")
            return candidate + name[len(path) :]
    paths = [module_path.removeprefix(network) for module_path in modules if f"{module_path}." not in (".", network)]
    near = get_close_matches(path, [*paths, *roles], n=3, cutoff=0.5)
    if not near:
        near = [*(module_path for module_path in paths if "." not in module_path), *roles]
    what = "role or module" if is_role(name) else "module"
    raise ModelError(f"{type(model).__name__} has no {what} '{path}'; the nearest are: {', '.join(near)}")


def _described(features: Mapping[str, Tensor]) -> str:
    parts = [f"{key or 'a tensor'} {tuple(value.shape)}" for key, value in features.items()]
    return ", ".join(parts) or "no tensor"
