"""Reading Keras's files (``.keras``, ``.h5``) with Keras 3 on torch, without running what stands in them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segshrink.config import Adapter
from segshrink.errors import ConfigError, MissingExtraError, ModelError, SegshrinkError, first_line
from segshrink.extras import needing, quiet_library
from segshrink.files import scratch_folder
from segshrink.formatting import printable
from segshrink.model_file import ModelFile
from segshrink.user_code import import_user_module

_LARGEST_CONFIG = 64_000_000  # bytes
_LARGEST_RATIO = 100  # of what a .keras file holds, which Keras doesn't compress, to the file
# What Keras 2 says of layers and Keras 3 doesn't take; a number of groups is 1 wherever it could be trained on a CPU.
_ONLY_IN_KERAS_2 = {
    "Conv2DTranspose": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
}
# What runs code that stands in the file, or that it names.
_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def read_model(file: ModelFile, adapter: Adapter, *, trust: bool) -> tuple[Any, dict[str, Any]]:
    """Return a file's model with a single output, and the objects by name that its own module has.

    Raises:
        ConfigError: It has no output of the name that the adapter says.
        ModelError: It is damaged, or holds code and isn't trusted.
        MissingExtraError: Keras isn't installed.
    """
    config = _config(file.path)
    if not trust:
        _refuse_code(config, file)
    objects: dict[str, Any] = {}
    if trust and adapter.module:
        objects = dict(vars(import_user_module(adapter.module, subject=str(file.path))))
    with _loading(file) as keras, scratch_folder() as scratch:
        path = _copy_with(config, file.path, scratch) if _in_words_of_keras_3(config) else file.path
        model = keras.saving.load_model(path, objects, compile=False, safe_mode=not trust)
        return _one_output(model, adapter), objects


def import_keras() -> Any:
    """Return Keras on its torch backend, which it chooses when it is imported.

    Raises:
        MissingExtraError: It isn't installed.
        ModelError: It was imported with another backend.
    """
    before = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        with needing("a Keras file", "keras"):
            import keras
    finally:
        if before is None:
            os.environ.pop("KERAS_BACKEND", None)
        else:
            os.environ["KERAS_BACKEND"] = before
    if (backend := keras.backend.backend()) != "torch":
        raise ModelError(
            f"Keras was imported with its {backend} backend, but its files are run on torch here; set "
            "KERAS_BACKEND=torch before it is imported"
        )
    return keras


@contextmanager
def _loading(file: ModelFile) -> Iterator[Any]:
    """Give Keras, quiet and on the CPU; turn its errors into one sentence."""
    try:
        with quiet_library(), (keras := import_keras()).device("cpu"):
            yield keras
    except MissingExtraError:
        raise
    except SegshrinkError as error:
        raise type(error)(f"{file.path}: {error}") from error
    except Exception as error:  # Keras raises errors of many kinds
        raise ModelError(
            f"{file.path} can't be opened by Keras ({first_line(error)}); save it again with Keras 3, and name the "
            f"module of layers that aren't Keras's own in {file.adapter} ('module')"
        ) from error


def _config(path: Path) -> dict[str, Any]:
    """Read what a file says about its layers, which Keras would build.

    Raises:
        ModelError: It says nothing, or is damaged.
        MissingExtraError: h5py isn't installed.
    """
    try:
        text = _config_text(path)
        config = json.loads(text) if text is not None else None
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no file that Keras saved ({first_line(error)}); save the model again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds weights alone; save the whole model: model.save('{path.stem}.keras')")
    return config


def _config_text(path: Path) -> str | bytes | None:
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _LARGEST_CONFIG:
                raise ValueError(f"its config.json has {entry.file_size:,} bytes")
            return archive.read(entry)
    with needing("a Keras file", "keras"):
        import h5py
    with h5py.File(path) as archive:
        text: str | bytes | None = archive.attrs.get("model_config")
    return text


def _in_words_of_keras_3(config: dict[str, Any]) -> bool:
    """Rewrite what Keras 2, TensorFlow's, says otherwise of models and layers; tell whether there was anything."""
    mended = False
    for part in parts(config):
        mended |= _count_from_zero(part.get("config"))
        if part["class_name"] == "Functional" and str(part.get("module")).endswith("engine.functional"):
            part["module"], mended = "keras.src.models.functional", True
        for key in _ONLY_IN_KERAS_2.get(str(part["class_name"]), ()):
            if isinstance(inner := part.get("config"), dict) and key in inner:
                del inner[key]
                mended = True
    return mended


def _count_from_zero(config: Any) -> bool:
    """Count the calls of models inside a model from 0, where Keras 2 counts from 1; tell whether there were any."""
    layers = config.get("layers") if isinstance(config, dict) else None
    found = False
    inner = {layer["config"].get("name") for layer in layers or () if "layers" in (layer.get("config") or ())}
    for layer in layers or ():
        for node in layer.get("inbound_nodes") or ():
            for call in node if isinstance(node, list) else ():  # [layer, number of its call, of its output, arguments]
                if call[0] in inner:
                    call[1] -= 1
                    found = True
    return found


def _copy_with(config: dict[str, Any], path: Path, folder: Path) -> Path:
    """Write a file again with another description of its layers; return the copy."""
    copy = folder / f"model{path.suffix}"
    if path.suffix.lower() != ".keras":
        import h5py

        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as archive:
            archive.attrs["model_config"] = json.dumps(config)
        return copy
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        if sum(entry.file_size for entry in source.infolist()) > _LARGEST_RATIO * path.stat().st_size:
            raise ModelError("it claims to be far larger than its file")
        for entry in source.infolist():
            is_config = entry.filename == "config.json"
            target.writestr(entry.filename, json.dumps(config) if is_config else source.read(entry))
    return copy


def _refuse_code(config: Any, file: ModelFile) -> None:
    """Raise ModelError where a file holds or names code that isn't Keras's own; losses and metrics aren't loaded."""
    for part in parts({**config, "compile_config": None}):
        name, module = printable(str(part["class_name"])), printable(str(part.get("module") or "keras"))
        if name in _CODE:
            raise ModelError(
                f"{file.path} has a layer of the kind {name}, which runs code of whoever wrote the file; give --trust "
                "(in a recipe 'trust: true' beside the teacher) if you trust them"
            )
        # Of models by TensorFlow's Keras, Keras 3 builds its own; it never imports theirs.
        if module.partition(".")[0] not in ("keras", "builtins") and not module.startswith("tf_keras.src.engine."):
            raise ModelError(
                f"{file.path} needs {name} of the Python module {module}, whose code would run; name it in "
                f"{file.adapter} ('module: {module}') and give --trust (in a recipe 'trust: true' beside the teacher)"
            )


def parts(config: Any) -> Iterator[dict[str, Any]]:
    """List all objects in a model's configuration."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _one_output(model: Any, adapter: Adapter) -> Any:
    """Return the model with the output that is asked for alone.

    Raises:
        ModelError: It has several inputs, or none that is known.
        ConfigError: There is no such output.
    """
    if len(getattr(model, "inputs", None) or ()) != 1:
        raise ModelError("it must have one input, declared in its file: save a Functional or Sequential model")
    names = [tensor.name for tensor in model.outputs]
    chosen = adapter.output_name
    if chosen not in (*names, *range(len(names))):
        raise ConfigError(f"it has no output '{chosen}', but {', '.join(names)}; correct 'output_name'")
    if len(names) == 1:
        return model
    output = model.outputs[names.index(chosen) if isinstance(chosen, str) else chosen]
    return import_keras().Model(model.inputs, output)
