// Has the network run over a scene, tile by tile, away from the page, which stays responsive.

import { Refusal } from "./bands.js";
import { toGeotiff, toPng } from "./encode.js";
import { pixelArea, pixelSize } from "./georeference.js";
import { decodeJpegs } from "./jpeg.js";
import { startRunners } from "./runners.js";
import { openScene } from "./scene.js";
import { NODATA, STEPS } from "./stored.js";
import { layOut } from "./tiling.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./scene.js").Model} Model */
/** @typedef {import("./tiling.js").Window} Window */
/** @typedef {import("./tiling.js").Tile} Tile */
/** @typedef {import("./tiling.js").Span} Span */
/** @typedef {import("./bands.js").Pixels} Pixels */
/** @typedef {import("./scene.js").Reading} Reading */
/** @typedef {import("./runners.js").Runner} Runner */
/** @typedef {import("./runners.js").Decided} Decided */
/** @typedef {{model: Model, runners: Runner[]}} Engine */
/** @typedef {{scene: Scene, classes: Uint8Array}} Result */
/** @typedef {{rows: Int32Array, cols: Int32Array}} Display The scene's pixels that are shown. */

const LONGEST_SIDE_SHOWN = 4096;

/** @type {Engine} */
let engine;
/** @type {Result | null} */
let result = null;
// Counts scenes; work for another one than the last stops at its next tile.
let current = 0;

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "start") await start(data.model, data.parts, data.code);
    if (data.kind === "cancel") current++;
    if (data.kind === "segment") await segment(data.file, ++current);
    if (data.kind === "save" && result) await save(result, data.format);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error), file = data.file?.name;
    const text = file && !(error instanceof Refusal) ? `can't read ${file} (${reason}); check or convert it` : reason;
    self.postMessage({ kind: "failed", during: data.kind, text });
  }
};

/**
 * Unpacks what the page carries, and starts the network.
 * @param {Model} model
 * @param {Uint8Array<ArrayBuffer>[]} parts Gzipped.
 * @param {string} code Of the runners.
 */
async function start(model, parts, code) {
  const [runtime, binary, geotiff, network] = await Promise.all(parts.map(unpacked));
  await import(URL.createObjectURL(new Blob([geotiff], { type: "text/javascript" }))); // defines GeoTIFF
  decodeJpegs();
  engine = { model, runners: await startRunners(code, { runtime, binary, network }) };
  self.postMessage({ kind: "ready" });
}

/** @param {Uint8Array<ArrayBuffer>} part */
function unpacked(part) {
  return new Response(new Blob([part]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/**
 * Segments a file and tells the page of each finished tile.
 * @param {File} file
 * @param {number} job
 */
async function segment(file, job) {
  const { model } = engine, began = performance.now();
  result = null;
  const scene = await openScene(file, model);
  const { height, width, place } = scene;
  const display = displayOf(height, width);
  const size = place && pixelSize(place, height, width), area = place && pixelArea(place, width);
  const spans = layOut(height, width, model.tiling, scene.bytes);
  const tiles = spans.reduce((sum, span) => sum + span.tiles.length, 0);
  const stretch = model.dtype === "uint8" ? null : await stretchOf(scene, model);
  const shown = { height: display.rows.length, width: display.cols.length };
  if (job !== current) return;
  self.postMessage({ kind: "opened", name: scene.name, height, width, shown, tiles, pixel: size });
  const classes = new Uint8Array(height * width).fill(NODATA), totals = new Totals(model.classes.length, area);
  let done = 0;
  const show = (/** @type {Work} */ { reading, span }, /** @type {Window} */ kept, /** @type {Decided | null} */ decided) => {
    const piece = pieceOf(reading, decided, span.window, kept, display, stretch);
    const transfer = [piece.photo.buffer, piece.classes.buffer, piece.confidence.buffer];
    self.postMessage({ kind: "piece", done, piece }, { transfer });
  };
  const queue = tilesOf(scene, spans);
  await Promise.all(engine.runners.slice(0, tiles).map(async (runner) => {
    if (!(await runner.isReady)) return;
    for await (const { tile, ...work } of queue) {
      if (job !== current) return;
      if (tile === work.span.tiles[0]) show(work, work.span.kept, null);
      const decided = await decide(runner, work, tile).catch(() => decide(engine.runners[0], work, tile));
      if (job !== current) return;
      done++;
      totals.add(decided, tile.kept);
      for (let row = 0; row < tile.kept.height; row++) {
        const line = decided.classes.subarray(row * tile.kept.width, (row + 1) * tile.kept.width);
        classes.set(line, (tile.kept.row + row) * width + tile.kept.col);
      }
      show(work, tile.kept, decided);
    }
  }));
  if (job !== current) return;
  result = { scene, classes };
  self.postMessage({ kind: "done", totals: totals.summary(), seconds: (performance.now() - began) / 1000 });
}

/** @typedef {{reading: Reading, span: Span}} Work What a tile is decided from. */
/**
 * Gives the tiles one after the other; what the next ones need is read while runners work.
 * @param {Scene} scene
 * @param {Span[]} spans
 */
async function* tilesOf(scene, spans) {
  for (const span of spans) {
    const reading = await scene.read(span.window);
    for (const tile of span.tiles) yield { reading, span, tile };
  }
}

/**
 * Runs the network on a tile.
 * @param {Runner} runner
 * @param {Work} work
 * @param {Tile} tile
 * @returns {Promise<Decided>} 255 where there is no data.
 */
async function decide(runner, { reading: { pixels, valid }, span: { window: span } }, { window, kept }) {
  if (valid && !anyValid(valid, span, window)) {
    const nothing = () => new Uint8Array(kept.height * kept.width).fill(NODATA);
    return { classes: nothing(), confidence: nothing() };
  }
  const { height, width } = window, images = planes(pixels, span, window);
  const inside = { ...kept, row: kept.row - window.row, col: kept.col - window.col };
  const decided = await runner.decide({ images, height, width, kept: inside });
  for (let row = 0, to = 0; valid && row < kept.height; row++) {
    let place = (kept.row + row - span.row) * span.width + kept.col - span.col;
    for (let col = 0; col < kept.width; col++, to++, place++) {
      if (!valid[place]) decided.classes[to] = decided.confidence[to] = NODATA;
    }
  }
  return decided;
}

/**
 * @param {Uint8Array} valid
 * @param {Window} span
 * @param {Window} window
 */
function anyValid(valid, span, window) {
  for (let row = window.row - span.row, end = row + window.height; row < end; row++) {
    const left = row * span.width + window.col - span.col;
    if (valid.subarray(left, left + window.width).includes(1)) return true;
  }
  return false;
}

/**
 * Returns the pixels of a window band by band, as the network takes them.
 * @param {Pixels} pixels
 * @param {Window} span
 * @param {Window} window
 */
function planes(pixels, span, window) {
  const { bands, dtype } = engine.model, plane = window.height * window.width;
  const images = dtype === "uint8" ? new Uint8Array(bands * plane) : new Float32Array(bands * plane);
  for (let row = 0, to = 0; row < window.height; row++) {
    let from = ((window.row + row - span.row) * span.width + window.col - span.col) * bands;
    for (let col = 0; col < window.width; col++, to++) {
      for (let band = 0; band < bands; band++) images[band * plane + to] = pixels[from++];
    }
  }
  return images;
}

/** Pixels, area on the ground and confidence of each class. */
class Totals {
  /**
   * @param {number} count
   * @param {((row: number) => number) | null} area
   */
  constructor(count, area) {
    this.area = area;
    this.classes = Array.from({ length: count }, () => ({ pixels: 0, area: 0, confidence: 0 }));
    this.nodata = 0;
  }

  /**
   * @param {Decided} decided
   * @param {Window} kept
   */
  add({ classes, confidence }, kept) {
    for (let row = 0, at = 0; row < kept.height; row++) {
      const area = this.area?.(kept.row + row) ?? 0;
      for (let col = 0; col < kept.width; col++, at++) {
        const total = this.classes[classes[at]];
        if (!total) {
          this.nodata++;
          continue;
        }
        total.pixels++;
        total.area += area;
        total.confidence += confidence[at] / STEPS;
      }
    }
  }

  summary() {
    const classes = this.classes.map(({ pixels, area, confidence }) => ({
      pixels,
      area: this.area ? area : null,
      confidence: pixels ? confidence / pixels : null,
    }));
    return { classes, nodata: this.nodata };
  }
}

/**
 * Returns which rows and columns are shown: the middles of equal parts.
 * @param {number} height
 * @param {number} width
 * @returns {Display}
 */
function displayOf(height, width) {
  const shrink = Math.min(1, LONGEST_SIDE_SHOWN / Math.max(height, width));
  const [rows, cols] = [height, width].map((size) => {
    const count = Math.max(1, Math.round(size * shrink));
    return Int32Array.from({ length: count }, (_, n) => Math.floor(((n + 0.5) * size) / count));
  });
  return { rows, cols };
}

/**
 * Returns what is shown of a tile, or of a span that isn't decided yet.
 * @param {Reading} reading
 * @param {Decided | null} decided
 * @param {Window} span
 * @param {Window} kept
 * @param {Display} display
 * @param {[number, number][] | null} stretch
 */
function pieceOf({ pixels, valid }, decided, span, kept, display, stretch) {
  const top = firstFrom(display.rows, kept.row), bottom = firstFrom(display.rows, kept.row + kept.height);
  const left = firstFrom(display.cols, kept.col), right = firstFrom(display.cols, kept.col + kept.width);
  const height = bottom - top, width = right - left;
  const { bands } = engine.model, colors = bands >= 3 ? colorBands(engine.model) : [0, 0, 0];
  const photo = new Uint8ClampedArray(height * width * 4);
  const classes = new Uint8Array(height * width), confidence = new Uint8Array(height * width);
  for (let row = 0, at = 0; row < height; row++) {
    for (let col = 0; col < width; col++, at++) {
      const down = display.rows[top + row], across = display.cols[left + col];
      const from = (down - span.row) * span.width + across - span.col;
      const inside = (down - kept.row) * kept.width + across - kept.col;
      classes[at] = decided ? decided.classes[inside] : NODATA;
      confidence[at] = decided ? decided.confidence[inside] : NODATA;
      colors.forEach((band, color) => {
        const value = pixels[from * bands + band];
        photo[4 * at + color] = stretch ? (value - stretch[band][0]) * stretch[band][1] : value;
      });
      photo[4 * at + 3] = valid && !valid[from] ? 0 : 255;
    }
  }
  return { row: top, col: left, height, width, photo, classes, confidence };
}

/**
 * @param {Int32Array} places Rising.
 * @param {number} from
 */
function firstFrom(places, from) {
  let low = 0, high = places.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < from) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Returns the bands that are shown in red, green and blue: those called so, else the first three.
 * @param {Model} model
 */
function colorBands({ bandNames }) {
  const named = ["red", "green", "blue"].map((color) => bandNames?.map((name) => name.toLowerCase()).indexOf(color) ?? -1);
  return named.includes(-1) ? [0, 1, 2] : named;
}

/**
 * Returns for each band the value that is shown black and the factor that makes the 98th percentile white, from nine
 * small windows.
 * @param {Scene} scene
 * @param {Model} model
 * @returns {Promise<[number, number][]>}
 */
async function stretchOf(scene, { bands }) {
  const side = 64, height = Math.min(side, scene.height), width = Math.min(side, scene.width);
  /** @type {number[][]} */
  const values = Array.from({ length: bands }, () => []);
  for (const [down, right] of [0, 1, 2].flatMap((row) => [0, 1, 2].map((col) => [row / 2, col / 2]))) {
    const row = Math.floor((scene.height - height) * down), col = Math.floor((scene.width - width) * right);
    const { pixels, valid } = await scene.read({ row, col, height, width });
    pixels.forEach((value, at) => {
      if (!valid || valid[Math.floor(at / bands)]) values[at % bands].push(value);
    });
  }
  return values.map((band) => {
    const sorted = band.sort((a, b) => a - b), at = (/** @type {number} */ share) => sorted[Math.floor(share * (sorted.length - 1))];
    const low = at(0.02) ?? 0, high = at(0.98) ?? 1;
    return [low, 255 / (high > low ? high - low : 1)];
  });
}

/**
 * @param {Result} map
 * @param {"png" | "tif"} format
 */
async function save({ scene, classes }, format) {
  const { palette, tag } = engine.model, map = { classes, height: scene.height, width: scene.width, palette };
  const blob = format === "png" ? await toPng(map) : await toGeotiff(map, scene.place?.tags ?? {}, tag);
  self.postMessage({ kind: "saved", blob, format });
}
