"""Styles of QGIS: maps of classes and polygons in the classes' colors, with their names."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from segshrink.classes import ClassMap
from segshrink.colors import format_color
from segshrink.files import write_text

_HEAD = '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM"><qgis version="3.28" styleCategories="Symbology">'


def style_path(raster: Path) -> Path:
    """Return where QGIS looks for a raster's style when it opens it."""
    return raster.with_suffix(".qml")


def write_raster_style(path: Path, classes: ClassMap) -> None:
    """Write the style of a raster of class indices: a palette of the classes' colors, with names for the legend.

    Other values of the first band, such as no data, are transparent.

    Raises:
        FileError: The file can't be written.
    """
    entries = "".join(
        f'<paletteEntry value="{number}" color="{format_color(color).lower()}" alpha="255" label={quoteattr(name)}/>'
        for number, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
    )
    style = (
        f'{_HEAD}<pipe><rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">'
        f"<rasterTransparency/><colorPalette>{entries}</colorPalette></rasterrenderer></pipe></qgis>\n"
    )
    write_text(path, style, overwrite=True)


def polygon_style(classes: ClassMap) -> str:
    """Say in QGIS's words: one fill for each class of ``class_index``, no outline."""
    categories = "".join(
        f'<category symbol="{number}" value="{number}" label={quoteattr(name)} type="long" render="true"/>'
        for number, name in enumerate(classes.names)
    )
    symbols = "".join(
        f'<symbol type="fill" name="{number}" alpha="1" clip_to_extent="1" force_rhr="0">'
        '<layer class="SimpleFill" enabled="1" locked="0" pass="0"><Option type="Map">'
        f'<Option type="QString" name="color" value="{red},{green},{blue},255"/>'
        '<Option type="QString" name="outline_style" value="no"/>'
        '<Option type="QString" name="style" value="solid"/></Option></layer></symbol>'
        for number, (red, green, blue) in enumerate(classes.colors)
    )
    return (
        f'{_HEAD}<renderer-v2 type="categorizedSymbol" attr="class_index" symbollevels="0" enableorderby="0" '
        f'forceraster="0"><categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>'
    )
