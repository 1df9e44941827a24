"""Files that name others: nothing outside is read, and no server is asked."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from segshrink.classes import ClassMap
from segshrink.errors import FileError, SegshrinkError
from segshrink.imagery import open_scene, probe, read_image, read_mask, read_valid_image
from segshrink.imagery.vrt import vrt_sources
from segshrink.tiling import Window

Paint = Callable[..., Path]
CLASSES = ClassMap.build([("ground", None, 0), ("house", None, 1)])
SECRET = np.full((16, 16), 1, dtype=np.uint8)
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}


class Server:
    """A local server that knows nothing but who asked."""

    def __init__(self) -> None:
        self.asked = asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()
    assert server.asked == []


@pytest.fixture
def secret(paint: Paint, tmp_path: Path) -> Path:
    return paint("secret.tif", SECRET).replace(tmp_path / "secret.tif")


def vrt(source: str, *, relative: int = 0, kind: str = "SimpleSource", band: str = "", more: str = "") -> str:
    return (
        f'<VRTDataset rasterXSize="16" rasterYSize="16">{more}<VRTRasterBand dataType="Byte" band="1"{band}>'
        f'<{kind}><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>'
        f"</{kind}></VRTRasterBand></VRTDataset>"
    )


def raw_vrt(source: object) -> str:
    return (
        '<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="0">{source}</SourceFilename>'
        "<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>16</LineOffset></VRTRasterBand></VRTDataset>"
    )


def scene_pixels(path: Path) -> NDArray[Any]:
    with open_scene(path) as scene:
        return scene.read(Window(0, 0, scene.height, scene.width))[0]


READERS = (probe, read_image, read_valid_image, scene_pixels, lambda path: read_mask(path, CLASSES))


def refused(path: Path) -> list[str]:
    """Return what each way of reading says; all must refuse."""
    told = []
    for read in READERS:
        with pytest.raises(SegshrinkError, match=path.name) as caught:
            read(path)
        told.append(str(caught.value))
    return told


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".jp2", ".img", ".dat", ".bil", ".vrt", ".gif"])
@pytest.mark.parametrize("kind", ["vrt", "raw", "wms", "wmts", "wcs", "stacit", "stacta", "gti", "plmosaic", "kml"])
def test_no_format_names_other_files(tmp_path: Path, secret: Path, server: Server, suffix: str, kind: str) -> None:
    url = f"/vsicurl/{server.url}/s.tif"
    content = {
        "vrt": vrt(url),
        "raw": raw_vrt(secret),
        "wms": f"<GDAL_WMS><Service name='TMS'><ServerUrl>{server.url}/${{z}}.png</ServerUrl></Service><DataWindow>"
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>9</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>0</LowerRightY>"
        "<SizeX>16</SizeX><SizeY>16</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>",
        "wmts": f"<GDAL_WMTS><GetCapabilitiesUrl>{server.url}/wmts.xml</GetCapabilitiesUrl></GDAL_WMTS>",
        "wcs": f"<WCS_GDAL><ServiceURL>{server.url}/wcs?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>",
        "stacit": '{"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{"type": "Feature", '
        f'"stac_version": "1.0.0", "properties": {{}}, "assets": {{"a": {{"href": "{server.url}/a.tif"}}}}}}]}}',
        "stacta": '{"type": "Feature", "stac_extensions": ["tiled-assets"], "asset_templates": {"bands": {"href": '
        f'"{server.url}/{{TileMatrix}}.tif"}}}}, "properties": {{"tiles:tile_matrix_sets": {{}}}}}}',
        "gti": f"<GDALTileIndexDataset><IndexDataset>{url}</IndexDataset></GDALTileIndexDataset>",
        "plmosaic": f"PLMosaic:mosaic=x,api_key=y,base={server.url}",
        "kml": f"<kml><NetworkLink><Link><href>{server.url}/a.kml</href></Link></NetworkLink></kml>",
    }[kind]
    path = tmp_path / f"a{suffix}"
    path.write_text(content)
    assert len(refused(path)) == len(READERS)


def test_a_vrt_reads_files_beside_and_below_it(paint: Paint, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(np.uint8)
    (tmp_path / "tiles").mkdir()
    tile = paint("tiles/a.tif", noise)
    (tmp_path / "inner.vrt").write_text(f"<?xml version='1.0'?>\n{vrt('tiles/a.tif', relative=1)}")
    for number, text in enumerate(
        (
            vrt("tiles/a.tif", relative=1),
            vrt("tiles/../tiles/./a.tif", relative=1, kind="ComplexSource"),
            vrt(str(tile)),
            vrt("inner.vrt", relative=1),
        )
    ):
        path = tmp_path / f"{number}.vrt"
        path.write_text(text)
        for read in READERS:
            if read is not probe:
                found = read(path)
                pixels = found[0] if isinstance(found, tuple) else found
                np.testing.assert_array_equal(pixels.reshape(16, 16), noise)
        assert tile.resolve() in vrt_sources(path)
    link = tmp_path / "tiles/link.vrt"
    link.symlink_to(tmp_path / "0.vrt")
    np.testing.assert_array_equal(read_image(link)[:, :, 0], noise)


def test_vrts_that_gdal_writes_are_read(paint: Paint, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    source = paint("a.tif", noise, nodata=7, descriptions=("red", "green", "blue"), **PLACE)
    copy_raster(source, tmp_path / "copy.vrt", driver="VRT")
    np.testing.assert_array_equal(read_image(tmp_path / "copy.vrt"), noise)
    with rasterio.open(source) as dataset, WarpedVRT(dataset, crs="EPSG:3857") as warped:
        copy_raster(warped, tmp_path / "warped.vrt", driver="VRT")
    assert len(refused(tmp_path / "warped.vrt")) == len(READERS)


@pytest.mark.parametrize(
    "text",
    [
        vrt("../secret.tif", relative=1),
        vrt("link.tif", relative=1),
        vrt("folder/secret.tif", relative=1),
        vrt("/vsicurl/{url}/s.tif"),
        vrt("/vsicurl/{url}/s.tif", relative=1),
        vrt("{url}/s.tif"),
        vrt("/vsizip/a.zip/s.tif"),
        vrt("{secret}"),
        vrt("inner.tif"),
        vrt("inner.tif", relative=2),
        vrt("gone.tif", relative=1),
        vrt("", relative=1),
        vrt("GTIFF_DIR:1:{secret}"),
        vrt("vrt://{secret}"),
        vrt("&lt;VRTDataset/&gt;"),
        vrt("pipe.tif", relative=1),
        vrt("text.tif", relative=1),
        vrt("a.vrt", relative=1),
        vrt("outer.vrt", relative=1),
        vrt("inner.tif<!-- x -->", relative=1),
        vrt("inner.tif", relative=1, more="<?x y?>"),
        "<!DOCTYPE x [<!ENTITY e '../secret.tif'>]>" + vrt("&e;", relative=1),
        vrt("inner.tif", relative=1, band=' subClass="VRTDerivedRasterBand"'),
        vrt("inner.tif", relative=1, more="<OpenOptions><OOI key='x'>y</OOI></OpenOptions>"),
        vrt("inner.tif", relative=1, more='<Metadata domain="OVERVIEWS"><MDI key="overview_file">x</MDI></Metadata>'),
        vrt("inner.tif", relative=1, more="<PixelFunctionCode>x</PixelFunctionCode>"),
        vrt("inner.tif", relative=1).replace("<SimpleSource>", '<SimpleSource SourceFilename="../secret.tif">'),
        vrt("inner.tif", relative=1).replace("SourceFilename", "SOURCEFILENAME"),
        vrt("inner.tif", relative=1).replace('"1">inner', '"1" RELATIVETOVRT="0">inner'),
        raw_vrt("{secret}"),
        raw_vrt("inner.tif"),
        "<VRTDataset",
        vrt("inner.tif", relative=1) + "<x/>",
        "\ufeff" + vrt("../secret.tif", relative=1),
    ],
    ids=range(34),
)
def test_a_vrt_reads_nothing_else(paint: Paint, tmp_path: Path, secret: Path, server: Server, text: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    paint("home/inner.tif", SECRET)
    (home / "link.tif").symlink_to(secret)
    (home / "folder").symlink_to(tmp_path)
    os.mkfifo(home / "pipe.tif")
    (home / "text.tif").write_text("no image")
    (home / "outer.vrt").write_text(vrt("../secret.tif", relative=1))
    path = home / "a.vrt"
    path.write_text(text.replace("{url}", server.url).replace("{secret}", str(secret)), encoding="utf-8")
    assert len(refused(path)) == len(READERS)


def test_vrts_do_not_multiply(paint: Paint, tmp_path: Path) -> None:
    paint("0.tif", SECRET)
    source = vrt("0.tif", relative=1)
    for level in range(3):
        many = source.split("<SimpleSource>")[1].split("</VRTRasterBand>")[0]
        many = f"<SimpleSource>{many}" * 200
        (tmp_path / f"{level}.vrt").write_text(
            source.split("<SimpleSource>")[0] + many + "</VRTRasterBand></VRTDataset>"
        )
        source = vrt(f"{level}.vrt", relative=1)
    assert len(refused(tmp_path / "2.vrt")) == len(READERS)


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".OVR", ".MSK", ".ovr.ovr", ".msk.ovr"])
@pytest.mark.parametrize("kind", ["url", "raw", "pipe"])
def test_what_stands_beside_an_image_names_nothing(
    paint: Paint, tmp_path: Path, secret: Path, server: Server, suffix: str, kind: str
) -> None:
    path = paint("a.tif", SECRET)
    for depth in range(1, suffix.count(".")):  # what lies between is a TIFF
        paint("a.tif" + "." + ".".join(suffix.split(".")[1 : depth + 1]), SECRET)
    if kind == "pipe":
        os.mkfifo(f"{path}{suffix}")
    else:
        content = raw_vrt(secret) if kind == "raw" else vrt(f"/vsicurl/{server.url}/s.tif")
        Path(f"{path}{suffix}").write_text(content)
    assert len(refused(path)) == len(READERS)


def test_overviews_are_not_looked_for_elsewhere(paint: Paint, tmp_path: Path, server: Server) -> None:
    tags = {"OVERVIEW_FILE": f"/vsicurl/{server.url}/o.tif"}
    inside, beside = paint("in.tif", SECRET, **PLACE), paint("beside.tif", SECRET)
    with rasterio.open(inside, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", **tags)
    assert len(refused(inside)) == len(READERS)
    item = f'<MDI key="OVERVIEW_FILE">{tags["OVERVIEW_FILE"]}</MDI>'
    (tmp_path / "beside.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS">{item}</Metadata></PAMDataset>'
    )
    with pytest.raises(FileError, match=r"beside\.tif names another file"):
        scene_pixels(beside)


def test_overviews_and_masks_beside_an_image_are_still_used(paint: Paint, tmp_path: Path) -> None:
    valid = np.ones((16, 16), dtype=bool)
    valid[3:5] = False
    path = tmp_path / "a.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, GDAL_PAM_ENABLED=False),
        rasterio.open(path, "w", driver="GTiff", height=16, width=16, count=1, dtype="uint8", **PLACE) as dataset,
    ):
        dataset.write(SECRET[np.newaxis])
        dataset.write_mask(valid)
    assert Path(f"{path}.msk").exists()
    np.testing.assert_array_equal(read_valid_image(path)[1], valid)


def imagine(path: Path, **options: str) -> Path:
    """Write ones as an ERDAS Imagine file with overviews; ``options`` say what lies in other files."""
    ones = np.ones((1, 600, 600), np.uint8)
    size = {"height": 600, "width": 600, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="HFA", **size, **PLACE, USE_SPILL=options.get("USE_SPILL", "NO")) as dataset:
        dataset.write(ones)
    with rasterio.Env(HFA_USE_RRD=options.get("HFA_USE_RRD", "NO")), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2])
    return path


@pytest.mark.parametrize(
    ("option", "companion"), [({}, None), ({"USE_SPILL": "YES"}, ".ige"), ({"HFA_USE_RRD": "YES"}, ".rrd")]
)
def test_imagine_files_are_read_with_what_lies_beside_them_alone(
    paint: Paint, tmp_path: Path, option: dict[str, str], companion: str | None
) -> None:
    path = imagine(tmp_path / "scene.img", **option)
    assert scene_pixels(path).all()
    if companion is None:
        return
    beside = path.with_suffix(companion)
    assert beside.exists()
    (tmp_path / "xy").mkdir()
    elsewhere = beside.rename(tmp_path / "xy" / f"sc{companion}").relative_to(tmp_path)
    assert len(str(elsewhere)) == len(beside.name)
    path.write_bytes(path.read_bytes().replace(beside.name.encode(), str(elsewhere).encode()))
    assert all("another folder" in message for message in refused(path))
    tiff = paint("b.tif", SECRET, **PLACE)
    path.rename(tiff.with_suffix(".aux"))  # where GDAL looks for overviews
    with pytest.raises(FileError, match=r"b\.aux keeps .* another folder"):
        scene_pixels(tiff)


def test_raw_files_and_their_headers_lie_in_one_folder(paint: Paint, tmp_path: Path, secret: Path) -> None:
    path = paint("a.dat", SECRET, driver="ENVI")
    np.testing.assert_array_equal(scene_pixels(path)[:, :, 0], SECRET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.dat").symlink_to(secret)
    (tmp_path / "a.hdr").rename(tmp_path / "other/b.hdr")
    with pytest.raises(FileError, match=r"b\.dat and its header .*b\.hdr are links into two folders"):
        scene_pixels(tmp_path / "other/b.dat")


@pytest.fixture
def package(paint: Paint, tmp_path: Path) -> tuple[Path, Path]:
    """An image, and a GeoPackage of one house on it."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    path = tmp_path / "labels.gpkg"
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb([shapely.box(5e5, 5e6 - 5, 5e5 + 5, 5e6)]),
        field_data=[np.array(["house"], dtype=object)],
        fields=["class"],
        geometry_type="Polygon",
        crs="EPSG:32633",
        layer="x",
    )
    return paint("image.tif", SECRET, **PLACE), path


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
@pytest.mark.parametrize("kind", ["ogr_vrt", "geojson", "gpx", "wfs", "gml"])
def test_vectors_under_another_name_are_refused(
    package: tuple[Path, Path], tmp_path: Path, server: Server, suffix: str, kind: str
) -> None:
    content = {
        "ogr_vrt": '<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/'
        f"{server.url}/s.gpkg</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
        "geojson": f'{{"type": "FeatureCollection", "features": [], "crs": "{server.url}"}}',
        "gpx": '<gpx version="1.1"></gpx>',
        "wfs": f"<OGRWFSDataSource><URL>{server.url}/wfs</URL></OGRWFSDataSource>",
        "gml": f'<gml:FeatureCollection xmlns:gml="x" xmlns:xlink="y" xlink:href="{server.url}/a.xsd"/>',
    }[kind]
    path = tmp_path / f"x{suffix}"
    path.write_text(content)
    with pytest.raises(FileError, match=rf"x{suffix} can't be read as polygons: it is no {suffix} file"):
        read_mask(path, CLASSES, image=package[0])


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW y AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
        "INSERT INTO sqlite_master VALUES('table', 'y', 'y', 0, 'CREATE VIRTUAL TABLE y USING VirtualOGR(''{file}'')')",
        "INSERT INTO sqlite_master VALUES('table', 'y', 'y', 0, "
        "'CREATE /* */ VIRTUAL TABLE \"y USING rtree(\" USING VirtualOGR(''{file}'')')",
    ],
)
def test_tables_that_read_other_files_are_refused(package: tuple[Path, Path], server: Server, statement: str) -> None:
    image, path = package
    assert (read_mask(path, CLASSES, image=image) == 1).any()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(statement.replace("{file}", f"{server.url}/s.geojson"))
        database.commit()
    with pytest.raises(FileError, match=r"labels\.gpkg .*\(.*y\)"):
        read_mask(path, CLASSES, image=image)


def test_what_the_user_names_himself_is_asked_for() -> None:
    server = Server()
    with pytest.raises(FileError, match=r"/scene\.tif can't be read as an image"):
        open_scene(f"{server.url}/scene.tif")
    server.server.shutdown()
    server.server.server_close()
    assert any("scene.tif" in path for path in server.asked)
