"""The page in a real browser, opened from the disk: its maps are those of ``predict``, and it asks no network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import Affine
from torch import nn

from segshrink.export import export_onnx
from segshrink.export.web import export_web
from segshrink.models import SegmentationModel
from segshrink.prediction.scenes import SceneOptions, predict_scene
from segshrink.working_size import Resize

from .conftest import describe

UTM = {"crs": "EPSG:32640", "transform": Affine(0.3, 0, 300_000, 0, -0.3, 2_800_000)}
MULTISPECTRAL = {"bands": 4, "dtype": "uint16", "band_names": ("red", "green", "blue", "nir")}
# Files that a model of 8-bit RGB takes, and how they are written.
RGB_FILES: dict[str, dict[str, Any]] = {
    "strips": {},
    "lzw": {"compress": "lzw", "predictor": 2},
    "deflate-tiles": {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 128, "blockysize": 128},
    "zstd": {"compress": "zstd", "tiled": True, "blockxsize": 256, "blockysize": 256},
    "band-by-band": {"interleave": "band", "compress": "deflate"},
    "bigtiff": {"BIGTIFF": "YES"},
    "jpeg-ycbcr": {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 256, "blockysize": 256},
    "jpeg-rgb": {"compress": "jpeg", "photometric": "rgb"},
    "rotated": {"transform": Affine(0.28, 0.1, 300_000, 0.1, -0.28, 2_800_000)},
    "points": {"transform": Affine(0.3, 0, 300_000, 0, -0.3, 2_800_000), "AREA_OR_POINT": "Point"},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(3e-6, 0, 55.1, 0, -2.7e-6, 25.2)},
    "mercator": {"crs": "EPSG:3857", "transform": Affine(0.33, 0, 6e6, 0, -0.33, 3e6)},
    "feet": {"crs": "EPSG:2263", "transform": Affine(1.0, 0, 1e6, 0, -1.0, 2e5)},
    "nowhere": {"crs": None, "transform": None},
    "nodata": {"nodata": 0},
    "finer": {"transform": Affine(0.17, 0, 300_000, 0, -0.17, 2_800_000)},
    "coarser": {"transform": Affine(0.45, 0, 300_000, 0, -0.45, 2_800_000)},
    "finer-points": {"transform": Affine(0.15, 0, 300_000, 0, -0.15, 2_800_000), "AREA_OR_POINT": "Point"},
}
PageOf = Callable[..., tuple[Path, Path]]


def photograph(height: int, width: int, bands: int = 3, *, highest: int = 255) -> np.ndarray:
    """Return (bands, height, width) smooth random values."""
    noise = np.random.default_rng(1).random((bands, height // 8 + 2, width // 8 + 2))
    small = (Image.fromarray(band.astype(np.float32)) for band in noise)
    enlarged = [band.resize((width, height), Image.Resampling.BICUBIC) for band in small]
    return np.clip(np.stack(enlarged) * highest, 1, highest).astype(np.uint8 if highest == 255 else np.uint16)


def write_tiff(
    path: Path, pixels: np.ndarray, *, names: tuple[str, ...] = (), tags: dict[str, str] | None = None, **profile: Any
) -> Path:
    """Write (bands, height, width) as a GeoTIFF."""
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **profile) as dataset:
        dataset.write(pixels)
        for number, name in enumerate(names, start=1):
            dataset.set_band_description(number, name)
        dataset.update_tags(**(tags or {}))
    return path


def compare(visitor: Any, pages: tuple[Path, Path], image: Path, out: Path) -> np.ndarray:
    """Segment an image in the browser and with ``predict``; the maps and their places must be the same."""
    network, page = pages
    visitor.open(page)
    visitor.drop(image)
    assert visitor.text("error") == ""
    mine = visitor.download("tif", image)
    options = SceneOptions(runtime="onnxruntime", threads=1, overlay=False)
    expected = predict_scene(network, image, out / image.stem / "map.tif", options)
    with rasterio.open(mine) as found, rasterio.open(expected.classes) as wanted:
        assert found.shape == wanted.shape
        classes, right = found.read(1), wanted.read(1)
        assert (classes == right).mean() >= 0.999
        assert found.crs == wanted.crs
        np.testing.assert_allclose(tuple(found.transform), tuple(wanted.transform), rtol=1e-12, atol=1e-9)
        assert [(p.row, p.col, p.x, p.y) for p in found.gcps[0]] == [(p.row, p.col, p.x, p.y) for p in wanted.gcps[0]]
        assert found.nodata == wanted.nodata == 255
        assert found.colormap(1)[2] == wanted.colormap(1)[2] == (0xD5, 0x5E, 0x00, 255)
        assert found.tags()["SEGSHRINK_CLASSES"] == wanted.tags()["SEGSHRINK_CLASSES"]
    return classes


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", RGB_FILES)
def test_a_geotiff_becomes_the_map_that_predict_makes(kind: str, visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    changes = RGB_FILES[kind]
    tags = {name: changes[name] for name in ("AREA_OR_POINT",) if name in changes}
    profile = {**UTM, **{name: value for name, value in changes.items() if name not in tags}}
    pixels = photograph(550, 700)
    if kind == "jpeg-ycbcr":  # nearly gray: the libjpeg of rasterio's wheels enlarges colors unlike all others
        pixels = (pixels[:1] * 0.8 + pixels * 0.1).astype(np.uint8)
    if kind == "nodata":
        pixels[:, 100:300, :400] = 0
        pixels[0, 400:500, 500:600] = 0  # a dark red isn't no data
    image = write_tiff(tmp_path / f"{kind}.tif", pixels, tags=tags, **profile)
    classes = compare(visitor, page_of(resolution=0.3), image, tmp_path)
    assert (classes == 255).sum() == (80_000 if kind == "nodata" else 0)


def test_masks_and_transparency_are_no_data(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    pixels, hidden = photograph(300, 400), np.zeros((300, 400), bool)
    hidden[50:200, :150] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = write_tiff(tmp_path / "masked.tif", pixels, **UTM, tiled=True, blockxsize=128, blockysize=128)
        with rasterio.open(masked, "r+") as dataset:
            dataset.write_mask(~hidden)
            assert dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
    alpha = np.concatenate([pixels, np.where(hidden, 0, 255).astype(np.uint8)[np.newaxis]])
    transparent = write_tiff(tmp_path / "transparent.tif", alpha, photometric="rgb", alpha="yes", **UTM)
    for image in (masked, transparent):
        assert ((compare(visitor, page_of(), image, tmp_path) == 255) == hidden).all()


def test_bands_are_taken_by_name_and_numbers_as_they_are(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    pixels = photograph(200, 300, 5, highest=4000)
    names = ("nir", "coastal", "Blue", "RED", "green")
    image = write_tiff(tmp_path / "five.tif", pixels, names=names, compress="deflate", predictor=2, **UTM)
    in_order = write_tiff(tmp_path / "four.tif", pixels[[3, 4, 2, 0]], **UTM)
    first, second = (compare(visitor, page_of(**MULTISPECTRAL), path, tmp_path) for path in (image, in_order))
    assert (first == second).all()


def test_floats_without_values_are_no_data(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    pixels = photograph(120, 130, 1)[:1].astype(np.float32) / 255
    pixels[0, :40, :50], pixels[0, 100:, 100:] = np.nan, -9999
    image = write_tiff(tmp_path / "floats.tif", pixels, nodata=-9999, compress="deflate", predictor=3, **UTM)
    classes = compare(visitor, page_of(bands=1, dtype="float32"), image, tmp_path)
    assert (classes == 255).sum() == 40 * 50 + 20 * 30


def test_palettes_and_control_points(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    index = photograph(90, 110)[:1]
    corners = [(0, 0, 10.0, 50.0), (0, 110, 10.1, 50.0), (90, 0, 10.0, 49.9), (90, 110, 10.1, 49.9)]
    points = [GroundControlPoint(row=row, col=col, x=x, y=y) for row, col, x, y in corners]
    image = write_tiff(tmp_path / "palette.tif", index, photometric="palette", gcps=points, crs="EPSG:4326")
    with rasterio.open(image, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 255 - value, value // 2, 255) for value in range(256)})
        assert dataset.colorinterp == (ColorInterp.palette,)
    compare(visitor, page_of(), image, tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_becomes_the_map_that_predict_makes(kind: str, visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    network, page = page_of()
    pixels = photograph(600, 540).transpose(1, 2, 0)
    image = tmp_path / f"{kind}.{kind}"
    if kind == "png":
        pixels = np.concatenate([pixels, np.full((600, 540, 1), 255, np.uint8)], axis=2)
        pixels[:100, :50, 3] = 0
    turned = Image.Exif()
    turned[0x0112] = 6 if kind == "jpg" else 1
    Image.fromarray(pixels).save(image, exif=turned, **({"lossless": True} if kind == "webp" else {}))
    visitor.open(page)
    visitor.drop(image)
    assert visitor.text("error") == ""
    found = visitor.download("png", image)
    wanted = predict_scene(network, image, tmp_path / "map.png", SceneOptions(threads=1, overlay=False)).classes
    with Image.open(found) as mine, Image.open(wanted) as theirs:
        assert mine.mode == theirs.mode == "P"
        assert mine.getpalette()[:9] == theirs.getpalette()[:9]
        assert (np.asarray(mine) == np.asarray(theirs)).mean() >= 0.999
        assert (np.asarray(mine) == 255).sum() == (5_000 if kind == "png" else 0)


def test_areas_and_shares_are_those_of_the_map(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "areas.tif", photograph(100, 200), **UTM)
    classes = compare(visitor, page_of(), image, tmp_path)
    rows = visitor.browser.execute_script(
        "return [...document.querySelectorAll('.legend tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    assert [row[0] for row in rows] == ["water", "<b>open & land", "roof"]
    for index, (_, share, area, sure) in enumerate(rows):
        pixels = (classes == index).sum()
        assert float(share.removesuffix(" %")) == pytest.approx(100 * pixels / classes.size, abs=0.5)
        assert float(area.removesuffix(" m²").replace(",", "")) == pytest.approx(0.09 * pixels, rel=0.005)
        assert 33 <= float(sure.removesuffix(" %")) <= 100


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("name", "pixels", "told"),
    [
        ("bands.tif", photograph(20, 20, 2), "takes 3 bands.* has 2"),
        ("numbers.tif", photograph(20, 20, 3, highest=4000), "uint16 numbers but the model takes uint8"),
        ("damaged.tif", None, "damaged.tif"),
        ("text.png", None, "text.png"),
    ],
)
def test_what_the_model_does_not_take_is_refused_in_a_sentence(
    name: str, pixels: np.ndarray | None, told: str, visitor: Any, page_of: PageOf, tmp_path: Path
) -> None:
    image = tmp_path / name
    if pixels is None:
        image.write_bytes(b"II*\0\xff\xff" if name.endswith("tif") else b"no picture")
    else:
        write_tiff(image, pixels)
    visitor.open(page_of()[1])
    visitor.drop(image)
    sentence = visitor.text("error")
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert re.search(told, sentence), sentence


def test_a_model_of_one_band_takes_gray_pictures_alone(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    gray, color = np.full((20, 30, 3), 77, np.uint8), np.full((20, 30, 3), 77, np.uint8)
    color[13, 17, 2] = 78
    visitor.open(page_of(bands=1)[1])
    for name, pixels in (("gray.png", gray), ("color.png", color)):
        Image.fromarray(pixels).save(tmp_path / name)
        visitor.drop(tmp_path / name)
        assert ("1 band" in visitor.text("error")) is (name == "color.png")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("resize", [0.5, {"longest": 300}])
def test_images_get_the_working_size_as_predict_gives_it(
    resize: Resize, visitor: Any, page_of: PageOf, tmp_path: Path
) -> None:
    page_of()  # skips where the parts of pages are missing
    torch.manual_seed(0)
    model = SegmentationModel(nn.Conv2d(3, 3, 3, padding=1, stride=2), describe(stride=2, resize=resize))
    network = export_onnx(model, tmp_path / "small.onnx", outputs=("logits",))
    pages = network, export_web(network, tmp_path / "map.html")
    place = UTM if isinstance(resize, float) else {}
    compare(visitor, pages, write_tiff(tmp_path / "scene.tif", photograph(550, 1100), **place), tmp_path / "maps")
    if not place:
        visitor.drop(write_tiff(tmp_path / "ground.tif", photograph(20, 20), **UTM))
        assert "300 pixels on the image's longer side" in visitor.text("error")


def test_large_scenes_show_progress_and_can_be_stopped(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "large.tif", photograph(1500, 1500), compress="deflate", tiled=True, **UTM)
    small = write_tiff(tmp_path / "small.tif", photograph(60, 50), **UTM)
    visitor.open(page_of()[1])
    visitor.browser.find_element("id", "file").send_keys(str(image))
    visitor.wait(lambda: visitor.text("left").startswith("tile ") and not visitor.text("left").startswith("tile 1 "))
    visitor.click("cancel")
    assert visitor.state == "stopped"
    done = visitor.text("left")
    assert done.partition(" of ")[2].startswith("16"), "4 by 4 tiles of 512 pixels that share 64"
    compare(visitor, page_of(), small, tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_fetched_and_nothing_sticks_out(
    width: int, scheme: str, visitor: Any, page_of: PageOf, tmp_path: Path
) -> None:
    _, page = page_of()
    image = write_tiff(tmp_path / "shown.tif", photograph(90, 140), **UTM)
    visitor.browser.get("about:blank")
    for kind in ("browser", "performance"):
        visitor.browser.get_log(kind)
    visitor.open(page, width=width, scheme=scheme)
    visitor.drop(image)
    visitor.download("tif", image).unlink()
    assert visitor.browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in visitor.browser.get_log("performance")]
    requests = [entry["params"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    urls = {entry["request"]["url"] for entry in requests if entry["documentURL"] == page.as_uri()}
    assert page.as_uri() in urls
    assert all(url.startswith(("blob:", "data:")) for url in urls - {page.as_uri()})
    outer, inner = visitor.browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert outer <= inner
    box = visitor.browser.execute_script("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert min(box["width"], box["height"]) > 300


def test_it_works_by_keyboard_and_classes_can_be_hidden(visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    visitor.open(page_of()[1])
    visitor.drop(write_tiff(tmp_path / "keys.tif", photograph(300, 300), **UTM))
    place = "return document.querySelector('.layers').style.transform"
    whole = visitor.browser.execute_script(place)
    stage = visitor.browser.find_element("id", "stage")
    stage.send_keys("+")
    closer = visitor.browser.execute_script(place)
    stage.send_keys("\ue014")  # arrow right
    moved = visitor.browser.execute_script(place)
    stage.send_keys("0")
    assert len({whole, closer, moved}) == 3
    assert visitor.browser.execute_script(place) == whole
    seen = (
        "const c = document.querySelectorAll('.layers canvas')[1];"
        "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
        "return new Set(d).size"
    )
    assert visitor.browser.execute_script(seen) == 3
    visitor.browser.execute_script("document.querySelector('.legend input').click()")
    assert visitor.browser.execute_script(seen) == 3, "two classes and nothing"
    visitor.click("confidence")
    assert visitor.browser.execute_script(seen) > 20
    for control in (".legend input", "[name=look]"):
        visitor.browser.execute_script(f"document.querySelector('{control}').click()")


@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(width: int, visitor: Any, page_of: PageOf, tmp_path: Path) -> None:
    axe = Path(__file__).parents[3] / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("axe-core is not installed; make lint-web fetches it")
    visitor.browser.get("about:blank")
    visitor.open(page_of()[1], width=width)
    for image in (None, write_tiff(tmp_path / "axe.tif", photograph(90, 140), **UTM)):
        if image is not None:
            visitor.drop(image)
        visitor.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe.read_text(encoding="utf-8")})
        found = visitor.browser.execute_async_script("axe.run().then(r => arguments[0](r.violations))")
        assert [(one["id"], one["impact"], [node["html"] for node in one["nodes"]]) for one in found] == []
