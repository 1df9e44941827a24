"""Pages of tiny networks, and a browser that opens them from the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segshrink.classes import ClassMap
from segshrink.export.metadata import describe_onnx
from segshrink.export.web import export_web
from segshrink.model_description import ModelDescription, Normalization

VENDOR = Path(__file__).parents[3] / "src" / "segshrink" / "export" / "web" / "vendor"
CLASSES = ClassMap.build([("water", "#0072B2", None), ("<b>open & land", "#F0E442", None), ("roof", "#D55E00", None)])


def describe(**changes: Any) -> ModelDescription:
    """Describe a model of three classes for 8-bit RGB in tiles of 512 pixels."""
    entries: dict[str, Any] = {"bands": 3, "dtype": "uint8", "stride": 16, **changes}
    normalization = Normalization((0.0,) * entries["bands"], (1.0,) * entries["bands"])
    return ModelDescription("tiny", CLASSES, normalization=normalization, **entries)


def write_network(path: Path, description: ModelDescription, *, outputs: tuple[str, ...] = ("logits",)) -> Path:
    """Write one convolution of random weights as an ONNX file of this program."""
    from onnx import TensorProto, checker, helper, numpy_helper

    bands, classes = description.bands, len(description.classes)
    highest = {"uint8": 255, "uint16": 4000, "int16": 4000, "float32": 1}[description.dtype]
    weights = np.random.default_rng(0).normal(size=(classes, bands, 5, 5)).astype(np.float32) / highest
    takes_bytes = description.dtype == "uint8"
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["numbers", "weights"], ["logits"], pads=[2, 2, 2, 2]),
    ]
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8 if takes_bytes else TensorProto.FLOAT, ["n", bands, "h", "w"]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes, "h", "w"])
    graph = helper.make_graph(nodes, "tiny", [images], [logits], [numpy_helper.from_array(weights, "weights")])
    if "logits" not in outputs:
        graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        graph.output[0].name = "probabilities"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, describe_onnx(description, takes_bytes=takes_bytes))
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Return the network and the page of a description that differs from ``describe`` as said."""
    if not (VENDOR / "packages.json").is_file():
        pytest.skip("the parts that pages carry are missing; run make web")
    made: dict[str, tuple[Path, Path]] = {}

    def make(**changes: Any) -> tuple[Path, Path]:
        key = repr(sorted(changes.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("page")
            network = write_network(folder / "tiny.onnx", describe(**changes))
            made[key] = network, export_web(network, folder / "map.html")
        return made[key]

    return make


class Visitor:
    """Somebody who opens a page in a browser and drops files into it."""

    def __init__(self, browser: Any, downloads: Path) -> None:
        self.browser, self.downloads = browser, downloads
        self.page: Path | None = None
        browser.set_script_timeout(120)
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def open(self, page: Path, *, width: int = 1280, scheme: str = "light") -> None:
        """Open a page, unless it is open already, and wait for its model."""
        size = {"width": width, "height": 860, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        if self.page != page or self.browser.current_url != page.as_uri():
            self.browser.get(page.as_uri())
            self.page = page
            self.wait(lambda: self.state != "loading")

    @property
    def state(self) -> str:
        """What the page is doing."""
        return str(self.browser.execute_script("return document.body.dataset.state"))

    def text(self, element: str) -> str:
        """Return the text of an element by its id."""
        return str(self.browser.execute_script(f"return document.getElementById('{element}').textContent"))

    def click(self, element: str) -> None:
        """Click an element by its id."""
        self.browser.execute_script(f"document.getElementById('{element}').click()")

    def drop(self, image: Path) -> None:
        """Drop an image and wait until it is segmented, or refused."""
        unfinished = self.text("status"), f"{image.name} is being segmented."
        self.browser.find_element("id", "file").send_keys(str(image))
        self.wait(lambda: self.text("error") != "" or self.text("status") not in unfinished)

    def download(self, kind: str, image: Path) -> Path:
        """Save the map as "tif" or "png"."""
        path = self.downloads / f"{image.stem}.classes.{kind}"
        self.click(kind)
        self.wait(path.is_file)
        return path

    def wait(self, done: Callable[[], bool], seconds: float = 600) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (self.state, self.text("error"), self.browser.get_log("browser"))
            time.sleep(0.05)


@pytest.fixture(scope="session")
def visitor(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Visitor:
    """Return a visitor with a browser."""
    return Visitor(browser, tmp_path_factory.mktemp("downloads"))
