"""Virtual rasters (VRT): XML that names other files, and so is checked before GDAL reads it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from segshrink.errors import FileError
from segshrink.file_search import is_file
from segshrink.formatting import listed

# What a VRT may hold: mosaics and cuts of files, and how they are described. Warping, pansharpening, pixel functions,
# raw bands and options for opening are left out: they read other files, run code, or ask servers.
_ELEMENTS = """
    VRTDataset SRS GeoTransform GCPList GCP Metadata MDI BlockXSize BlockYSize OverviewList MaskBand
    VRTRasterBand ColorInterp ColorTable Entry NoDataValue HideNoDataValue Description UnitType Offset Scale
    CategoryNames Category Histograms HistItem HistMin HistMax BucketCount IncludeOutOfRange Approximate HistCounts
    SimpleSource ComplexSource AveragedSource KernelFilteredSource SourceFilename SourceBand SourceProperties SrcRect
    DstRect NODATA ScaleOffset ScaleRatio LUT ColorTableComponent UseMaskBand Exponent SrcMin SrcMax DstMin DstMax Clamp
    Kernel Size Coefs Overview GDALRasterAttributeTable FieldDefn Name Type Usage Row F
"""
_ATTRIBUTES = """
    rasterXSize rasterYSize dataType band blockXSize blockYSize relativeToVRT relativetoVRT shared resampling
    dataAxisToSRSAxisMapping coordinateEpoch domain key Projection Id Info Pixel Line X Y Z c1 c2 c3 c4 normalized
    RasterXSize RasterYSize DataType BlockXSize BlockYSize xOff yOff xSize ySize format index tableType Row0Min BinSize
    le_hex_equiv
"""
# XML that two parsers may understand in two ways: entities, sections, comments, instructions.
_ODD_XML = re.compile(r"<[!?]")
_XML_HEAD = re.compile(r"\s*<\?xml[^<>]*\?>")
_LARGEST = 64 << 20
_DEEPEST = 4
_MOST_READS = 1_000_000
_UNDERWAY = -1


def vrt_sources(path: Path) -> list[Path]:
    """Return the files that a VRT reads, each once, those of a VRT among them included.

    Raises:
        FileError: It is no VRT of the plain kind, or names what isn't a file in its own folder or below.
    """
    reads: dict[Path, int] = {}
    _count_reads(Path(path), reads, depth=1)
    return [source for source in reads if source != Path(path).resolve()]


def _count_reads(path: Path, reads: dict[Path, int], *, depth: int) -> int:
    """Return how many files a VRT reads, those that it names twice counted twice; note it of each in ``reads``."""
    folder = path.resolve().parent
    reads[path.resolve()] = _UNDERWAY
    count = 0
    for element in _checked_tree(path).iter("SourceFilename"):
        source = _source(path, folder, element)
        if source.suffix.lower() != ".vrt":
            reads[source] = 1
        elif source not in reads and depth < _DEEPEST:
            reads[source] = _count_reads(source, reads, depth=depth + 1)
        elif reads.get(source, _UNDERWAY) == _UNDERWAY:
            raise FileError(f"{path} holds itself, or VRTs more than {_DEEPEST} deep; save it as a GeoTIFF")
        count += reads[source]
        if count > _MOST_READS:
            raise FileError(f"{path} names more than {_MOST_READS:,} files; save it as a GeoTIFF")
    return count


def _checked_tree(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(f"{path} holds more than {_LARGEST >> 20} MiB of text; save it as a GeoTIFF")
        text = _XML_HEAD.sub("", path.read_text(encoding="utf-8"), count=1)
        if _ODD_XML.search(text):
            raise FileError(f"{path} holds XML that a VRT doesn't need ('<!' or '<?'); save it as a GeoTIFF")
        tree = ElementTree.fromstring(text)  # noqa: S314  # without entities
    except FileError:
        raise
    except (OSError, ValueError, ElementTree.ParseError, RecursionError) as error:
        raise FileError(f"{path} can't be read as a VRT ({error}); write it again") from error
    foreign = {element.tag for element in tree.iter()} - {*_ELEMENTS.split()}
    foreign |= {name for element in tree.iter() for name in element.attrib if _is_foreign(name, element)}
    if foreign or tree.tag != "VRTDataset":
        raise FileError(
            f"{path} is a VRT that does more than put files together ({listed(sorted(foreign)) or tree.tag}), which "
            "isn't done for safety; save it as a GeoTIFF (gdal_translate)"
        )
    if any((element.get("key") or "").upper() == "OVERVIEW_FILE" for element in tree.iter()):
        raise FileError(f"{path} names another file for its overviews, which isn't read; save it as a GeoTIFF")
    return tree


def _is_foreign(name: str, element: ElementTree.Element) -> bool:
    # The one subclass of bands that only reads sources is written out by some versions of GDAL.
    return name not in _ATTRIBUTES.split() and not (name == "subClass" and element.get(name) == "VRTSourcedRasterBand")


def _source(path: Path, folder: Path, element: ElementTree.Element) -> Path:
    """Return the file that a VRT names, links resolved."""
    name = element.text or ""
    source = folder / name
    relative = [element.attrib[key] for key in ("relativeToVRT", "relativetoVRT") if key in element.attrib]
    if relative != ["1"] and not (relative in ([], ["0"]) and Path(name).is_absolute()):
        raise FileError(f"{path} doesn't say where '{name}' is; write it with relativeToVRT=\"1\"")
    if name != name.strip() or name.startswith("/vsi") or "://" in name or not is_file(source):
        raise FileError(f"{path} names '{name}', which is no file; put its files beside it or below")
    if not source.resolve().is_relative_to(folder):
        raise FileError(f"{path} names '{name}', which lies outside its folder; put its files beside it or below")
    return source.resolve()
