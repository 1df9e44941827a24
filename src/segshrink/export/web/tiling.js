// Cuts a scene into the tiles that `segshrink predict` cuts it into: tiling.py, prediction/tiled.py, scenes/tiles.py.

/** @typedef {{row: number, col: number, height: number, width: number}} Window A rectangle of pixels. */
/** @typedef {{window: Window, kept: Window}} Tile What the network sees, and the part of it that is decided. */
/** @typedef {{window: Window, kept: Window, tiles: Tile[]}} Span Neighboring tiles of a row, read at once. */
/** @typedef {{tile: number, overlap: number, stride: number}} Tiling Pixels; starts are multiples of the stride. */

// Bytes of pixels that are read at once, about.
const SPAN_BYTES = 24_000_000;

/**
 * Returns spans of tiles, row by row. Each pixel is decided by the tile whose middle is nearest.
 * @param {number} height
 * @param {number} width
 * @param {Tiling} tiling
 * @param {number} bytes Bytes of a pixel.
 * @returns {Span[]}
 */
export function layOut(height, width, tiling, bytes) {
  const rows = pieces(height, tiling), cols = pieces(width, tiling);
  const downs = edges(rows, height), rights = edges(cols, width);
  const most = Math.max(1, Math.floor(Math.floor(SPAN_BYTES / bytes) / (rows[0][1] * (tiling.tile - tiling.overlap))));
  const atOnce = Math.ceil(cols.length / Math.ceil(cols.length / most));
  return rows.flatMap(([row, tall], down) => {
    const tiles = cols.map(([col, wide], right) => ({
      window: { row, col, height: tall, width: wide },
      kept: rectangle(downs[down], rights[right], downs[down + 1], rights[right + 1]),
    }));
    const spans = [];
    for (let start = 0; start < tiles.length; start += atOnce) {
      const some = tiles.slice(start, start + atOnce);
      spans.push({ window: around(some, "window"), kept: around(some, "kept"), tiles: some });
    }
    return spans;
  });
}

/**
 * Returns starts and lengths along one axis; the last one is shifted inward, to a multiple of the stride.
 * @param {number} size
 * @param {Tiling} tiling
 * @returns {[number, number][]}
 */
function pieces(size, { tile, overlap, stride }) {
  if (size <= tile) return [[0, size]];
  const last = Math.floor((size - tile) / stride) * stride;
  const count = Math.ceil((size - overlap) / (tile - overlap));
  const starts = Array.from({ length: count - 1 }, (_, number) => number * (tile - overlap)).filter((s) => s < last);
  return [...starts.map((start) => /** @type {[number, number]} */ ([start, tile])), [last, size - last]];
}

/**
 * Returns where along one axis the decision passes from one tile to the next, with both ends.
 * @param {[number, number][]} parts
 * @param {number} size
 */
function edges(parts, size) {
  const between = parts.slice(1).map(([start], n) => Math.floor((start + parts[n][0] + parts[n][1] + 1) / 2));
  return [0, ...between, size];
}

/**
 * @param {Tile[]} tiles
 * @param {"window" | "kept"} part
 */
function around(tiles, part) {
  const first = tiles[0][part], last = tiles[tiles.length - 1][part];
  return rectangle(first.row, first.col, first.row + first.height, last.col + last.width);
}

/**
 * @param {number} top
 * @param {number} left
 * @param {number} bottom
 * @param {number} right
 * @returns {Window}
 */
function rectangle(top, left, bottom, right) {
  return { row: top, col: left, height: bottom - top, width: right - left };
}
