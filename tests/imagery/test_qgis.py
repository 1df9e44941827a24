"""Styles of QGIS: what is in them, read as XML. QGIS's own names are those of its 3.x styles."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from segshrink.classes import ClassMap
from segshrink.imagery.qgis import polygon_style, style_path, write_raster_style

CLASSES = ClassMap.build([("Häuser & <Höfe>", "#FF0080", None), ('say "so"', "#00AA01", None)])


def test_a_map_has_a_palette_of_its_classes(tmp_path: Path) -> None:
    path = style_path(tmp_path / "scene.1.tif")
    assert path.name == "scene.1.qml"
    write_raster_style(path, CLASSES)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE qgis PUBLIC")
    style = ElementTree.fromstring(text)  # noqa: S314 - our own
    renderer = style.find("pipe/rasterrenderer")
    assert style.tag == "qgis"
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band"), renderer.get("opacity")) == ("paletted", "1", "1")
    assert [entry.attrib for entry in renderer.iterfind("colorPalette/paletteEntry")] == [
        {"value": "0", "color": "#ff0080", "alpha": "255", "label": "Häuser & <Höfe>"},
        {"value": "1", "color": "#00aa01", "alpha": "255", "label": 'say "so"'},
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["scene.1.qml"]


def test_polygons_have_a_fill_for_each_class() -> None:
    style = ElementTree.fromstring(polygon_style(CLASSES))  # noqa: S314 - our own
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class_index")
    labels = [(entry.get("value"), entry.get("label")) for entry in renderer.iterfind("categories/category")]
    assert labels == [("0", "Häuser & <Höfe>"), ("1", 'say "so"')]
    colors = [option.get("value") for option in renderer.iterfind(".//Option[@name='color']")]
    assert colors == ["255,0,128,255", "0,170,1,255"]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_one_style_stands_beside_a_raster(name: str) -> None:
    assert style_path(Path(name)) == Path("a.qml")
