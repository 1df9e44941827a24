"""Shared fixtures: where oracles, real data and weights are, and one thread for torch."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from selenium import webdriver

# A busy machine, or one core, is no failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"
_WANTED = "not found at"


def _existing(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} {_WANTED} {path}")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for want of real data or weights, which don't travel with the repository."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if _WANTED in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests need real data or weights, see CONTRIBUTING.md")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets (dubai/, VOCdevkit/, geotiff/)."""
    return _existing(Path(os.environ.get("SEGSHRINK_DATA", SHARED / "data")), "real data ($SEGSHRINK_DATA)")


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder of numeric oracles."""
    return Path(__file__).parent / "data" / "oracles"


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of pretrained weights."""
    return _existing(SHARED / "weights", "pretrained weights")


@pytest.fixture(autouse=True, scope="session")
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images of tests out of the user's cache."""
    os.environ["SEGSHRINK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def _kind_of_network(module: Any, *options: object) -> str | None:
    """Return a digest of everything a trace depends on, weights left out; None of what can't be compared."""
    from segshrink.model_description import ModelDescription

    weights = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    code = {str(getattr(sys.modules.get(type(part).__module__), "__file__", None)) for part in module.modules()}

    class Structure(pickle.Pickler):
        def persistent_id(self, part: Any) -> object:
            if id(part) in weights:
                return str(part.dtype), tuple(part.shape)
            if isinstance(part, ModelDescription):  # names and the like are told of after tracing
                return part.bands, part.stride, part.sigmoid
            if isinstance(part, set) and all(isinstance(name, str) for name in part):
                return "set", sorted(part)  # each process has an order of its own
            return None

    content = io.BytesIO()
    pickler = Structure(content)
    pickler.fast = True  # equal parts are written alike, whether or not they are one object
    try:
        pickler.dump((module, code, options))
    except (AttributeError, TypeError, ValueError, pickle.PicklingError):
        return None
    return hashlib.sha256(content.getvalue()).hexdigest()


@pytest.fixture(autouse=True, scope="session")
def _traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let PyTorch, which takes seconds for the smallest network, trace each kind of network once.

    The next of its kind, in whichever of the suite's processes, gets that graph with its own weights. As ever,
    exporting compares the file with the network.
    """
    if "torch" not in sys.modules:  # no test of this session exports anything
        yield
        return
    import torch

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traced"
    folder.mkdir(exist_ok=True)
    trace = torch.onnx.export

    def export(module: Any, args: tuple[Any, ...], **options: Any) -> Any:
        import onnx
        import onnx_ir

        inputs = [(str(image.dtype), tuple(image.shape)) for image in args]
        digest = _kind_of_network(module, inputs, repr(options["dynamic_shapes"]))
        if digest is None:
            return trace(module, args, **options)
        known = folder / digest
        if not known.exists():
            program = trace(module, args, **options, optimize=False)
            written = known.with_suffix(f".{os.getpid()}")
            written.write_bytes(program.model_proto.SerializeToString())
            written.replace(known)
        graph = onnx.load_from_string(known.read_bytes())
        weights = dict(module.named_parameters()) | dict(module.named_buffers())
        for initializer in graph.graph.initializer:
            if initializer.name in weights:
                content = weights[initializer.name].detach().contiguous().reshape(-1)
                initializer.raw_data = content.view(torch.uint8).numpy().tobytes()
        program = torch.onnx.ONNXProgram(onnx_ir.from_proto(graph), None)
        program.optimize()  # which multiplies some weights by others
        return program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        yield


def _measured_at_once(jobs: Sequence[Any], **_: object) -> list[Any]:
    from segshrink.profiling.latency import Measurement
    from segshrink.profiling.load import Load

    def latency(median: float) -> dict[str, float]:
        return {"median": median, "p95": median, "low": median, "high": median, "runs": 20}

    load = Load(seconds=1.0, others=0.04, cores=2)
    return [Measurement(job, latency(7.0 if job.backend is None else 70.0), 300.0, 200.0, load=load) for job in jobs]


@cache
def _drawn_once(module: str, name: str) -> Callable[[Any], Any]:
    """Return one of the report's ways to draw a figure, which draws each figure only the first time it is asked for."""
    draw, drawn = getattr(import_module(module), name), {}

    def drawing(subject: Any, *others: Any) -> Any:
        key = getattr(subject, "key", "an image")
        if key not in drawn:
            drawn[key] = draw(subject, *others)
        return drawn[key]

    return drawing


def _draw_once(patch: pytest.MonkeyPatch) -> None:
    for name in ("to_files", "to_svg", "composite"):
        module = f"segshrink.report.{'page' if name == 'composite' else 'rendering'}"
        patch.setattr(import_module(module), name, _drawn_once(module, name))


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a figure show the first run that had one of its kind: for a page whose figures aren't looked at."""
    _draw_once(monkeypatch)


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[None]:
    """Take away what costs a run most: timing it, tested in tests/profiling, and figures, tested in tests/report.

    Every latency is 7 ms, or 70 ms of a model that isn't ours; a figure shows the first run that had one of its kind.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in ("profiling.profile", "compression.search.candidate_files", "compression.quantization.pipeline"):
            patch.setattr(f"segshrink.{module}.measure", _measured_at_once)
        _draw_once(patch)
        yield


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Let files grow to a number of bytes only inside a block."""
    resource = pytest.importorskip("resource", reason="the size of files can't be limited here")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        monkeypatch.setattr(
            sys, "dont_write_bytecode", True
        )  # Python keeps what it wrote of a module, be it half of it
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


def _keras_unet(keras: Any, size: int | None, classes: int, head: str, width: int = 2) -> Any:
    """The U-Net of the Keras tutorials, layer by layer, for images whose pixels are scaled before it."""
    layers = keras.layers

    def double(features: Any, channels: int) -> Any:
        settings = {"activation": "relu", "kernel_initializer": "he_normal", "padding": "same"}
        features = layers.Conv2D(channels, (3, 3), **settings)(features)
        features = layers.Dropout(0.1)(features)
        return layers.Conv2D(channels, (3, 3), **settings)(features)

    inputs = layers.Input((size, size, 3))
    features, skips = inputs, []
    for level in range(4):
        skips.append(double(features, width * 2**level))
        features = layers.MaxPooling2D((2, 2))(skips[-1])
    features = double(features, width * 16)
    for level in reversed(range(4)):
        features = layers.Conv2DTranspose(width * 2**level, (2, 2), strides=(2, 2), padding="same")(features)
        features = double(layers.concatenate([features, skips[level]]), width * 2**level)
    return keras.Model(inputs, layers.Conv2D(classes, (1, 1), activation=head)(features))


def _keras_nested(keras: Any, size: int | None, classes: int, head: str) -> Any:
    """A model in a model, with a layer that scales pixels, batch normalization, and an activation of its own."""
    layers = keras.layers
    pixels = layers.Input((size, size, 3))
    features = layers.DepthwiseConv2D(3, strides=2, padding="same")(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    encoder = keras.Model(pixels, layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(features)))
    inputs = layers.Input((size, size, 3))
    scores = layers.SeparableConv2D(classes, 3, padding="same")(encoder(inputs))
    scores = layers.UpSampling2D(2, interpolation="bilinear")(scores)
    return keras.Model(inputs, layers.Softmax()(scores) if head == "softmax" else layers.Activation(head)(scores))


def _keras_of_one_size(keras: Any, size: int | None, classes: int, head: str) -> Any:
    """Pools the whole image, as the DeepLab of Keras's examples does, so that it takes images of one size only."""
    layers = keras.layers
    inputs = layers.Input((size, size, 3))
    features = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(inputs))
    pooled = layers.UpSampling2D(size)(layers.AveragePooling2D(size)(features))
    return keras.Sequential(
        [keras.Model(inputs, layers.Concatenate()([features, pooled])), layers.Conv2D(classes, 1, activation=head)]
    )


_KERAS = {"unet": _keras_unet, "nested": _keras_nested, "one-size": _keras_of_one_size}


@pytest.fixture
def keras_file(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Let Keras save an untrained network: ``keras_file("unet", size=64)`` gives its file and Keras's model."""

    def save(
        kind: str,
        *,
        size: int | None = 32,
        classes: int = 3,
        head: str = "softmax",
        name: str = "net.keras",
        **options: int,
    ) -> tuple[Path, Any]:
        from segshrink.models.keras_file import import_keras

        keras = import_keras()
        keras.utils.set_random_seed(0)
        model = _KERAS[kind](keras, size, classes, head, **options)
        for weight in model.weights:
            if len(weight.shape) == 1:  # biases and averages, which begin as zeros and ones
                weight.assign(weight + 0.1 * abs(keras.random.normal(weight.shape)))
        model.save(tmp_path / name)
        return tmp_path / name, model

    return save


_BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium, with its log of errors and requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


_ONNX_STAND_IN = """
import json, os, time, types, numpy, onnx
class SessionOptions: pass
class InferenceSession:
    def __init__(self, content, options, providers):
        if b"DequantizeLinear" in content:
            {deed}
        self.model = onnx.load_from_string(content)
    def get_inputs(self):
        return [types.SimpleNamespace(name="images", type="tensor(uint8)", shape=["n", 3, "h", "w"])]
    def get_modelmeta(self):
        entries = {{entry.key: entry.value for entry in self.model.metadata_props}}
        return types.SimpleNamespace(custom_metadata_map=entries)
    def run(self, names, feeds):
        count, _, height, width = feeds["images"].shape
        known = json.loads(self.get_modelmeta().custom_metadata_map["segshrink"])
        logits = numpy.zeros((count, len(known["classes"]["names"]), height, width), "float32")
        return [logits if name == "logits" else logits.argmax(1).astype("uint8") for name in names]
"""
_DEEDS = {"raises": "raise RuntimeError('no kernel for this')", "aborts": "os.abort()", "hangs": "time.sleep(99)"}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give programs that are started from now on another runtime, which "raises", "aborts" or "hangs".

    "onnxruntime" does so with 8-bit graphs and gives zeros for others; "openvino" does with any.
    """

    def put(runtime: str, deed: str) -> None:
        package = tmp_path / "stand-in" / runtime
        package.mkdir(parents=True)
        content = _ONNX_STAND_IN.format(deed=_DEEDS[deed])
        if runtime == "openvino":
            content = f"import os, time\n{_DEEDS[deed]}\n"
        (package / "__init__.py").write_text(content)
        known = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), *([known] if known else [])]))

    return put
