"""A model as one HTML file: the network, ONNX Runtime and geotiff.js inside, and the page that runs them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from segshrink import formatting
from segshrink.colors import format_color
from segshrink.errors import FileError, ModelError
from segshrink.files import replacing, scratch_folder
from segshrink.imagery.cog import CLASSES_TAG
from segshrink.model_description import ModelDescription
from segshrink.model_file import ModelFile
from segshrink.prediction.runtimes.onnx import OnnxBackend, read_whole
from segshrink.prediction.runtimes.onnx_parts import part
from segshrink.prediction.tiled import choose_tiling
from segshrink.version import __version__
from segshrink.working_size import depends_on_image, in_words

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel

# The page's code, in the order in which its parts need each other. The worker's runs beside the page, the runner's
# beside the worker, several times.
_PAGE = ("stored.js", "viewer.js", "page.js")
_WORKER = (
    *("stored.js", "tiling.js", "georeference.js", "bands.js", "jpeg.js", "runners.js", "scene.js", "encode.js"),
    "worker.js",
)
_RUNNER = ("stored.js", "runner.js")
# Part of the page → the file of an npm package that it is; ``tools/web/bundle.py`` puts them there.
_PARTS = {
    "runtime": "ort.wasm.bundle.min.mjs.gz",
    "binary": "ort-wasm-simd-threaded.wasm.gz",
    "geotiff": "geotiff.js.gz",
}
# Bytes of a page that hold all that it says about itself.
_HEAD = 4096
_NUMBERS = {"uint8": "8-bit", "uint16": "16-bit", "int16": "signed 16-bit", "float32": "floating-point"}


def export_web(model: SegmentationModel | str | Path, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model as an HTML page that segments images in any browser, from the disk and without a network.

    The page takes pictures and GeoTIFFs of any size, cuts and reads them as ``segshrink predict`` does, shows classes
    and confidence, and gives the map as PNG and GeoTIFF. Images stay where they are: the page forbids itself any
    connection. It runs ONNX Runtime in WebAssembly on up to four tiles at once.

    Args:
        model: A model, a run or model folder, or an ``.onnx`` file, whose precision is then that of the page.
        path: File to write, ending in ``.html``.
        overwrite: Replace a file that this program did not write.

    Returns:
        The path.

    Raises:
        ModelError: The network can't be expressed in ONNX or differs from PyTorch, or the file gives no logits.
        FileError: The file can't be written, or this installation lacks the parts that pages carry.
        MissingExtraError: A model or folder is given, and what exports it isn't installed.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ModelError(f"{path} must end in .html, so that a browser opens it")
    vendor = {name: _vendor(file) for name, file in _PARTS.items()}
    name, network, description = _read_network(model)
    origin = ModelFile.find(model).sha256() if isinstance(model, str | Path) else None
    parts = {**vendor, "network": gzip.compress(network, 9, mtime=0)}
    encoded = {name: base64.b64encode(content).decode("ascii") for name, content in parts.items()}
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(_render(name, origin, description, network, encoded), encoding="utf-8")
    return path


def is_page_of(path: Path, model: str | Path) -> bool:
    """Whether a file is a page that ``export_web`` made of a model folder or file with this content.

    Raises:
        FileError: A file can't be read.
    """
    try:
        with path.open("rb") as stream:
            found = re.search(rb'<meta name="model" content="(\w+)">', stream.read(_HEAD))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror}") from error
    return found is not None and found[1].decode() == ModelFile.find(model).sha256()


def _read_network(model: SegmentationModel | str | Path) -> tuple[str, bytes, ModelDescription]:
    """Return a model's name, the ONNX file that computes its logits, and its description."""
    with ExitStack() as stack:
        file = ModelFile.find(model) if isinstance(model, str | Path) else None
        if file is not None and file.kind == ".onnx":
            onnx = file.path
        else:
            from segshrink.export.onnx import export_onnx
            from segshrink.models import load_model

            loaded = load_model(model) if isinstance(model, str | Path) else model
            onnx = export_onnx(loaded, stack.enter_context(scratch_folder()) / "model.onnx", outputs=("logits",))
        backend = OnnxBackend(onnx, threads=1)
        if "logits" not in backend.outputs or backend.description is None:
            raise ModelError(f"{onnx} gives {', '.join(backend.outputs)}, but a page needs logits; export it again")
        if backend.description.dtype == "uint8" and backend.network.images.dtype != np.uint8:
            raise ModelError(f"{onnx} takes floats for 8-bit pixels, but a page gives bytes; export it for bytes")
        name = backend.description.id if file is None else file.name
        return name, part(read_whole(onnx), "logits"), backend.description


def _render(name: str, origin: str | None, description: ModelDescription, network: bytes, parts: dict[str, str]) -> str:
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, packages = _joined(_PAGE), json.loads(_vendor("packages.json"))
    return environment.get_template("page.html").render(
        version=__version__,
        runtime_version=packages["onnxruntime-web"]["version"],
        geotiff_version=packages["geotiff"]["version"],
        model=_model(name, description),
        origin=origin,
        facts=_facts(description, network),
        takes=_takes(description),
        style=_text("page.css"),
        notice=_text("NOTICE"),
        parts=parts,
        worker=_joined(_WORKER),
        runner=_joined(_RUNNER),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _model(name: str, description: ModelDescription) -> dict[str, Any]:
    """Return what the page's code knows of the model; ``scene.js`` says what each entry means."""
    classes, tiling = description.classes, choose_tiling(description, runtime="onnxruntime")
    tag = escape(escape(json.dumps(classes.to_dict(), ensure_ascii=False)))  # as GDAL does
    return {
        "name": name,
        "classes": [
            {"name": title, "color": format_color(color)}
            for title, color in zip(classes.names, classes.colors, strict=True)
        ],
        "bands": description.bands,
        "bandNames": description.band_names,
        "dtype": description.dtype,
        "resolution": description.resolution,
        "scaling": description.scaling,
        "tiling": {"tile": tiling.tile, "overlap": tiling.overlap, "stride": tiling.stride},
        "dependsOnImage": in_words(description.resize) if depends_on_image(description.resize) else None,
        "palette": [*classes.colors, classes.ignore_color],
        "tag": f'<GDALMetadata><Item name="{CLASSES_TAG}">{tag}</Item></GDALMetadata>',
    }


def _facts(description: ModelDescription, network: bytes) -> list[tuple[str, str]]:
    resolution = description.resolution
    return [
        ("Network", description.id),
        ("Computes in", "8-bit integers" if b"DequantizeLinear" in network else "32-bit floating point"),
        ("Size", formatting.size(len(network))),
        ("Bands", ", ".join(description.band_names or ()) or str(description.bands)),
        ("Numbers", _NUMBERS.get(description.dtype, description.dtype)),
        *([] if description.resize is None else [("Works at", in_words(description.resize))]),
        ("Resolution", "not known" if resolution is None else f"{resolution:.3g} m a pixel"),
    ]


def _takes(description: ModelDescription) -> str:
    """Say in a sentence which images the page takes."""
    if description.dtype == "uint8" and description.bands in (1, 3):
        kinds = "A photo (JPEG, PNG, WebP) or a GeoTIFF of any size."
    else:
        bands = f" ({', '.join(description.band_names)})" if description.band_names else ""
        count = f"{description.bands} band{'s' * (description.bands > 1)}"
        kinds = f"A GeoTIFF of {count}{bands} in {_NUMBERS.get(description.dtype, description.dtype)} numbers."
    resolution = description.resolution
    return kinds if resolution is None else f"{kinds} Maps are made at {resolution:.3g} m a pixel."


def _joined(names: Sequence[str]) -> str:
    """Return modules as one script: code in a page from the disk can't import files."""
    modules = (re.sub(r"^import .*\n|^export ", "", _text(name), flags=re.MULTILINE) for name in names)
    return "\n".join(['"use strict";', *modules])


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _vendor(name: str) -> bytes:
    try:
        return resources.files(__package__).joinpath("vendor", name).read_bytes()
    except FileNotFoundError as error:
        raise FileError(
            f"this installation lacks {name}, which web pages carry; run 'make web' in a clone of segshrink, or "
            "install it again where https://registry.npmjs.org can be reached"
        ) from error
