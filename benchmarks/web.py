"""Claims: a page with an int8 model has 6 MB at most, agrees with ``predict``, and takes 2 s for 1,024 x 1,024 pixels.

    python benchmarks/web.py fp32.onnx int8.onnx --data field.yaml      # some minutes
    python benchmarks/web.py int8.onnx --data field.yaml --side 10000   # and a scene of 100 million pixels

Each file becomes a page, which Chromium opens from the disk. Labeled images of the data set are dropped into it one by
one; the maps that it hands over are compared with those of ``segshrink.Predictor`` on the same file, and both with the
masks. Then squares are timed, cut from these images and set side by side: the median of five, what others keep the
cores busy with beside it. Needs selenium, Chromium and chromedriver. Results go beside the script, by processor.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver

from processor_results import RESULTS, results_stem
from segshrink import Confusion, Predictor, SceneStore, __version__, export_web, load_dataset, open_dataset
from segshrink.files import scratch_folder, write_json, write_text
from segshrink.imagery import write_image
from segshrink.machine import describe_machine
from segshrink.profiling import LoadWatch

TILES, REPEATS, SIDE = 20, 5, 1024
LARGEST_PAGE, LEAST_AGREEMENT, LARGEST_DIFFERENCE, LONGEST = 6e6, 0.999, 0.1, 2.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


class Page:
    """A page in Chromium; a context manager.

    Args:
        path: The page.
        folder: Where the browser keeps its profile and its downloads.

    Attributes:
        start: Seconds from opening to a model that is ready.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        self._browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self._folder = folder
        settings = {"behavior": "allow", "downloadPath": str(folder)}
        self._browser.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
        began = time.perf_counter()
        self._browser.get(path.as_uri())
        self._wait(lambda: self._state() == "empty")
        self.start = time.perf_counter() - began

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.quit()

    def segment(self, image: Path) -> float:
        """Drop an image; return the seconds that the page says it took."""
        self._run("document.getElementById('took').dataset.seconds = ''")
        self._browser.find_element("id", "file").send_keys(str(image))
        self._wait(lambda: self._run("return document.getElementById('took').dataset.seconds") != "")
        return float(self._run("return document.getElementById('took').dataset.seconds"))

    def classes(self, image: Path) -> NDArray[np.uint8]:
        """Return the map (H, W) of the image that was dropped last."""
        saved = self._folder / f"{image.stem}.classes.png"
        saved.unlink(missing_ok=True)
        self._run("document.getElementById('png').click()")
        self._wait(saved.is_file)
        with Image.open(saved) as picture:
            return np.asarray(picture)

    def _run(self, script: str) -> Any:
        return self._browser.execute_script(script)

    def _state(self) -> str:
        return str(self._run("return document.body.dataset.state"))

    def _wait(self, done: Callable[[], bool], seconds: float = 3600) -> None:
        end = time.monotonic() + seconds
        while not done():
            error = self._run("return document.getElementById('error').textContent")
            if error or time.monotonic() > end:
                raise SystemExit(f"the page failed: {error or 'no answer'}")
            time.sleep(0.02)


def agreement(page: Page, predictor: Predictor, store: SceneStore, folder: Path) -> dict[str, Any]:
    """Compare the page's maps with the predictor's, and both with the masks."""
    classes = len(predictor.classes)
    same = pixels = 0
    mine, theirs = Confusion(classes), Confusion(classes)
    for number in range(len(store)):
        image = np.asarray(store.image(number))
        path = folder / f"tile{number}.png"
        Image.fromarray(image).save(path)
        page.segment(path)
        found, expected = page.classes(path), predictor.predict_array(image).index
        same, pixels = same + int((found == expected).sum()), pixels + found.size
        mine.update(found, store.mask(number))
        theirs.update(expected, store.mask(number))
    scores = [confusion.scores().mean_iou for confusion in (mine, theirs)]
    return {"tiles": len(store), "same_pixels": same / pixels, "mean_iou": scores[0], "predict_mean_iou": scores[1]}


def square(store: SceneStore, side: int) -> NDArray[np.uint8]:
    """Return (side, side, 3) pixels of images set side by side."""
    images = [np.asarray(store.image(number)) for number in range(len(store))]
    height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
    cells = [image[:height, :width] for image in images]
    down, right = -(-side // height), -(-side // width)
    rows = [np.hstack([cells[(row * right + col) % len(cells)] for col in range(right)]) for row in range(down)]
    return np.vstack(rows)[:side, :side]


def measure(network: Path, store: SceneStore, side: int) -> dict[str, Any]:
    """Make a page of a network, and measure it."""
    with scratch_folder() as folder:
        path = export_web(network, folder / "map.html")
        with Page(path, folder) as page:
            compared = agreement(page, Predictor(network, runtime="onnxruntime"), store, folder)
            image = folder / "square.tif"
            write_image(image, square(store, side))
            watch = LoadWatch(child.pid for child in psutil.Process().children(recursive=True))
            seconds = [page.segment(image) for _ in range(REPEATS if side <= SIDE else 1)]
            load = watch.stop()
        size = path.stat().st_size
    taken = statistics.median(seconds)
    return {
        **{"network": network.name, "bytes": size, "start_s": page.start, **compared},
        **{"side": side, "seconds": taken, "load": load.to_dict()},
    }


def table(rows: Sequence[dict[str, Any]], cpu: str) -> str:
    """Write the results for people."""
    lines = [
        f"# Web pages in Chromium on {cpu}",
        "",
        "| network | page | ready after | same pixels as predict | mIoU, page and predict | square | seconds | busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['bytes'] / 1e6:.2f} MB | {row['start_s']:.2f} s | {row['same_pixels']:.4%} of "
        f"{row['tiles']} tiles | {row['mean_iou']:.4f}, {row['predict_mean_iou']:.4f} | {row['side']} | "
        f"{row['seconds']:.2f} | {'yes' if row['load']['busy'] else 'no'} |"
        for row in rows
    ]
    goals = {
        f"a page of {LARGEST_PAGE / 1e6:g} MB at most": min(row["bytes"] for row in rows) <= LARGEST_PAGE,
        f"{LEAST_AGREEMENT:.1%} of the pixels": all(row["same_pixels"] >= LEAST_AGREEMENT for row in rows),
        f"{LARGEST_DIFFERENCE} points of mIoU": all(
            100 * abs(row["mean_iou"] - row["predict_mean_iou"]) <= LARGEST_DIFFERENCE for row in rows
        ),
    }
    quickest = min(rows, key=lambda row: row["seconds"])
    if quickest["side"] == SIDE:
        goals[f"{LONGEST:g} s for {SIDE} x {SIDE} pixels ({quickest['network']})"] = quickest["seconds"] <= LONGEST
    return "\n".join([*lines, "", *(f"- {goal}: {'met' if met else 'missed'}" for goal, met in goals.items()), ""])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=Path, help="ONNX files of 8-bit RGB")
    parser.add_argument("--data", required=True, type=Path, help="data set description with masks")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of a side of the square that is timed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    dataset = open_dataset(load_dataset(given.data))
    samples = [*dataset.val, *dataset.test, *dataset.train][:TILES]
    store = SceneStore(samples, dataset.classes)
    rows = [measure(network, store, given.side) for network in given.networks]
    machine = describe_machine()
    stem = results_stem(given.out, "web" if given.side == SIDE else f"web-{given.side}", str(machine["cpu"]))
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(stem.with_suffix(".json"), {"segshrink": __version__, "date": date, "machine": machine, "pages": rows})
    text = table(rows, str(machine["cpu"]))
    write_text(stem.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
