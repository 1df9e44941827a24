"""From a scene's pixels to classes and probabilities: read, run and stitch at the same time, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.imagery.cog import encode_probabilities
from segshrink.imagery.scenes import Scene
from segshrink.prediction.backends import Backend
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.prediction.scenes.blending import RollingBlend, Weights
from segshrink.prediction.scenes.layout import Span, lay_out
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.streams import Streams
from segshrink.prediction.tiled import Tile, Tiling
from segshrink.tiling import Window

# Bytes of pixels that are read at once, about: a row of tiles of a scene of 15,000 columns in three bytes.
_SPAN_BYTES = 24_000_000

# Runs the model on a batch of tiles.
Answer = Callable[[Backend, NDArray[Any], Sequence[Tile]], list[NDArray[Any]]]
Read = tuple[NDArray[Any], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Piece:
    """A finished part of a scene.

    Attributes:
        window: Where it lies.
        pixels: (h, w, bands) pixels of the scene.
        classes: (h, w) uint8 class indices, 255 where the scene has no data.
        probabilities: (C, h, w) uint8 in 0..254, 255 where there is no data; None when not asked for.
        confidence: (h, w) uint8, the probability of the class in 0..254; 255 where there is none; None as above.
    """

    window: Window
    pixels: NDArray[Any]
    classes: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    confidence: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Answer:
    """What became of some tiles of a span: for each its classes or logits, None where the model had nothing to see."""

    span: Span
    read: Read
    tiles: tuple[Tile, ...]
    values: list[NDArray[Any] | None]


def predict_pieces(
    scene: Scene, streams: Streams, tiling: Tiling, options: SceneOptions
) -> Generator[Piece, None, None]:
    """Predict a scene and give it in pieces, from the top left, row by row; they cover it and don't overlap.

    One thread reads while the streams run the model and the caller writes. What is held in memory depends on the size
    of tiles, with blending on the scene's width too, never on its height. Close the iterator before the scene, or take
    all of it: until then a thread may be reading.
    """
    pixel = scene.bands * np.dtype(scene.dtype).itemsize
    spans = lay_out(
        scene.height,
        scene.width,
        tile=tiling.tile,
        overlap=tiling.overlap,
        align=tiling.stride,
        centred=options.blending == "center",
        span_pixels=_SPAN_BYTES // pixel,
    )
    channels = streams.backend.num_classes
    answer: Answer = _logits if options.needs_probabilities else _classes
    blend = None
    if options.blending == "cosine":
        tiles = [tile for span in spans for tile in span.tiles]
        answer = partial(_weighted, Weights([tile.window for tile in tiles], overlap=tiling.overlap))
        blend = RollingBlend(channels, tiles)
    reader = ThreadPoolExecutor(1, thread_name_prefix="read")
    try:
        answers = streams.run(_tasks(scene, spans, tiling.batch, answer, reader))
        for span, group in groupby(answers, key=lambda done: done.span):
            yield _drawn(_Canvas(span, channels, options), group, blend, channels)
    finally:
        reader.shutdown(cancel_futures=True)


def _tasks(
    scene: Scene,
    spans: Sequence[Span],
    batch: int,
    answer: Answer,
    reader: ThreadPoolExecutor,
) -> Iterator[Callable[[Backend], _Answer]]:
    """Yield what the streams have to do; each span is being read before the one before it is handed out."""
    reads = (reader.submit(scene.read, span.window) for span in spans)
    following = next(reads)
    for span in spans:
        read, following = following, next(reads, following)
        for tiles in span.batches(batch):
            yield partial(_run, span, read, tiles, answer)


def _run(
    span: Span,
    read: Future[Read],
    tiles: tuple[Tile, ...],
    answer: Answer,
    backend: Backend,
) -> _Answer:
    pixels, valid = read.result()
    seen = [tile for tile in tiles if valid is None or valid[tile.window.slices_in(span.window)].any()]
    values: dict[Tile, NDArray[Any]] = {}
    if seen:
        images = [pixels[tile.window.slices_in(span.window)] for tile in seen]
        batch = images[0][np.newaxis] if len(images) == 1 else np.stack(images)  # backends copy what they must
        values = dict(zip(seen, answer(backend, batch, seen), strict=True))
    return _Answer(span, (pixels, valid), tiles, [values.get(tile) for tile in tiles])


def _classes(backend: Backend, batch: NDArray[Any], tiles: Sequence[Tile]) -> list[NDArray[Any]]:
    found = backend.classify(batch)
    return [values[tile.kept.slices_in(tile.window)] for tile, values in zip(tiles, found, strict=True)]


def _logits(backend: Backend, batch: NDArray[Any], tiles: Sequence[Tile]) -> list[NDArray[Any]]:
    found = backend.run(batch)
    return [values[:, *tile.kept.slices_in(tile.window)] for tile, values in zip(tiles, found, strict=True)]


def _weighted(weights: Weights, backend: Backend, batch: NDArray[Any], tiles: Sequence[Tile]) -> list[NDArray[Any]]:
    found = backend.run(batch)
    return [values * weights(tile.window) for tile, values in zip(tiles, found, strict=True)]


class _Canvas:
    """What is known of a span so far.

    Attributes:
        classes: (h, w) of the span's ``kept`` part; the rest likewise, None where it isn't asked for.
    """

    def __init__(self, span: Span, channels: int, options: SceneOptions) -> None:
        shape = span.kept.height, span.kept.width
        self.span = span
        self.classes = np.full(shape, IGNORE_INDEX, np.uint8)
        sure = options.confidence or options.vectors is not None
        self.probabilities = np.full((channels, *shape), IGNORE_INDEX, np.uint8) if options.probabilities else None
        self.confidence = np.full(shape, IGNORE_INDEX, np.uint8) if sure else None

    def draw(self, tile: Tile, values: NDArray[Any]) -> None:
        """Put classes (h, w) or logits (C, h, w) of a tile's ``kept`` part where they belong."""
        rows, cols = tile.kept.slices_in(self.span.kept)
        if values.ndim == 2:
            self.classes[rows, cols] = values
            return
        self.classes[rows, cols] = most_likely(values)
        if self.probabilities is None and self.confidence is None:
            return
        shares = np.array(values)
        softmax_in_place(shares)
        if self.confidence is not None:
            self.confidence[rows, cols] = encode_probabilities(shares.max(axis=0))
        if self.probabilities is not None:
            self.probabilities[:, rows, cols] = encode_probabilities(shares)

    def piece(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> Piece:
        """Finish, given what was read."""
        rows, cols = self.span.kept.slices_in(self.span.window)
        if valid is not None:
            empty = ~valid[rows, cols]
            for values in (self.classes, self.probabilities, self.confidence):
                if values is not None:
                    values[..., empty] = IGNORE_INDEX
        return Piece(self.span.kept, pixels[rows, cols], self.classes, self.probabilities, self.confidence)


def _drawn(canvas: _Canvas, answers: Iterator[_Answer], blend: RollingBlend | None, channels: int) -> Piece:
    """Draw a span's answers, in order, blended with what came before."""
    first = next(answers)
    for answer in chain([first], answers):
        for tile, values in zip(answer.tiles, answer.values, strict=True):
            if blend is not None:
                seen = np.zeros((channels, tile.window.height, tile.window.width), np.float32)
                values = blend.add(tile, seen if values is None else values)
            if values is not None:
                canvas.draw(tile, values)
    return canvas.piece(*first.read)
