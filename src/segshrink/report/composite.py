"""One printable picture of an image: photograph, truth, every model's map, errors, and the legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segshrink.evaluation_records import ClassRecord
from segshrink.report.panels import LIGHT, STYLE, figure_png, set_title
from segshrink.report.pictures import ERROR_COLORS, Example

# Inches: the width of a page's text, and what a title and a line of the legend need. At 200 dots per inch a third of
# the width is as wide as the pictures are.
_WIDTH, _HEAD, _LINE = 7.2, 0.45, 0.2
_COLUMNS = 3
_ERRORS = {"student": "only {} is wrong", "teacher": "only the teacher is wrong", "both": "both are wrong"}


def composite(example: Example, classes: Sequence[ClassRecord], label: str) -> bytes:
    """Return a PNG, 1,440 pixels wide.

    Args:
        example: The image.
        classes: All classes, for the legend.
        label: What the model is called whose errors are shown.
    """
    with mpl.rc_context(STYLE):
        return figure_png(_drawn(example, classes, label))


def _drawn(example: Example, classes: Sequence[ClassRecord], label: str) -> Figure:
    rows = math.ceil(len(example.tiles) / _COLUMNS)
    entries = [Patch(color=entry.color, label=entry.name) for entry in classes]
    errors = _ERRORS if example.compared else {"student": "{} is wrong"}
    entries += [
        Patch(color="#{:02x}{:02x}{:02x}".format(*ERROR_COLORS[key]), label=text.format(label))
        for key, text in errors.items()
    ]
    columns = max(1, min(len(entries), int(_WIDTH / (0.4 + 0.07 * max(len(str(e.get_label())) for e in entries)))))
    lines = math.ceil(len(entries) / columns)
    tile_height = _WIDTH / _COLUMNS * example.height / example.width + 2 * _LINE
    figure = Figure(figsize=(_WIDTH, _HEAD + rows * tile_height + lines * _LINE + 0.1), layout="compressed")
    for tile, axes in zip(example.tiles, figure.subplots(rows, _COLUMNS, squeeze=False).flat, strict=False):
        axes.imshow(tile.picture.convert("RGB"), interpolation="nearest")
        axes.set_title(f"{tile.title}\n{tile.note}", fontsize=7.5, loc="left", pad=3)
    for axes in figure.axes:
        axes.axis("off")
    figure.legend(
        handles=entries, loc="outside lower left", ncols=columns, fontsize=8, handlelength=1, labelcolor=LIGHT.ink
    )
    set_title(figure, example.name)
    return figure
