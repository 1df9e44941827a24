// Which bands of a GeoTIFF a model gets, and which pixels have no data: as imagery/bands.py, scaling.py, validity.py.

/** @typedef {Uint8Array | Uint16Array | Int16Array | Float32Array} Pixels */
/** @typedef {{numbers: number[], alpha: number | null}} Bands Numbers from 1; of the transparency band, too. */

const UNTELLING = /^(band|layer|channel|gray)?\s*\d*$/;
const SYNONYMS = /** @type {Record<string, string>} */ ({
  grey: "gray", "near infrared": "nir", r: "red", g: "green", b: "blue",
});
const CLOSE = 1e-6;

/** Why an image is not taken: a sentence for people. */
export class Refusal extends Error {}

/**
 * Chooses bands by the model's names, else as they lie.
 * @param {string[]} titles What the file's bands are called; "" where nothing says.
 * @param {number | null} alpha
 * @param {number} count How many the model takes.
 * @param {string[] | null} names What the model calls them.
 * @returns {Bands}
 */
export function chooseBands(titles, alpha, count, names) {
  const numbers = (names && matched(titles.map(plainName), alpha, names, count)) ?? asTheyLie(titles.length, alpha, count);
  if (numbers.length !== count) {
    throw new Refusal(`the model takes ${count} band${count > 1 ? "s" : ""}${listed(names ?? [])}, but the file has ` +
      `${titles.length}${listed(titles.filter(Boolean))}; give an image with the model's bands`);
  }
  return { numbers, alpha };
}

/** @param {string} text */
export function plainName(text) {
  const plain = text.trim().toLowerCase().split(/[\s_-]+/).join(" ");
  return SYNONYMS[plain] ?? plain;
}

/**
 * @param {number} held
 * @param {number | null} alpha
 * @param {number} count
 */
function asTheyLie(held, alpha, count) {
  const all = Array.from({ length: held }, (_, n) => n + 1);
  const measured = all.filter((number) => number !== alpha);
  return count === held || !measured.length ? all : measured;
}

/**
 * Returns the bands that have the names of the model's; null where the file or the model names none.
 * @param {string[]} held Plain names of the file's bands.
 * @param {number | null} alpha
 * @param {string[]} names
 * @param {number} count
 */
function matched(held, alpha, names, count) {
  const telling = (/** @type {string} */ name) => (UNTELLING.test(name) ? null : name);
  const titles = held.map(telling), wanted = names.map(plainName).map(telling);
  if (!wanted.some(Boolean) || !titles.some((title, n) => title && n + 1 !== alpha)) return null;
  const lying = asTheyLie(held.length, alpha, count);
  const fits = lying.every((number, n) => {
    const here = titles[number - 1], band = wanted[n];
    return here === band || (!here && !titles.includes(band)) || (!band && !wanted.includes(here));
  });
  if (lying.length === count && fits) return lying;
  const rest = lying.filter((number) => !titles[number - 1]), spare = [...rest];
  const unique = wanted.every((band) => !band || titles.filter((title) => title === band).length === 1);
  const unnamed = wanted.filter((band) => !band).length;
  if (unique && (unnamed === 0 || unnamed === rest.length)) {
    return wanted.map((band) => (band ? titles.indexOf(band) + 1 : Number(spare.shift())));
  }
  throw new Refusal(`the model takes the bands${listed(names)}, but the file has${listed(held)}; give an image with these`);
}

/** @param {string[]} names */
function listed(names) {
  return names.length ? ` (${names.join(", ")})` : "";
}

/**
 * Returns factor and shift for each band's numbers, from the file's scale and offset tags to the model's.
 * @param {[number, number][] | null} file
 * @param {[number, number][] | null} model
 * @returns {[number, number][] | null} Null where nothing changes.
 */
export function scalingChange(file, model) {
  if (!model) return null;
  const changes = model.map((to, n) => {
    const from = file ? file[n] : [1, 0];
    const factor = from[0] / to[0], shift = (from[1] - to[1]) / to[0], same = Math.abs(factor - 1) < CLOSE;
    if (same && Math.abs(shift) < CLOSE) return [1, 0];
    const untagged = [from, to].some(([scale, offset]) => scale === 1 && offset === 0);
    if (same || !untagged) return [same ? 1 : factor, shift];
    if (from[1] === 0 && to[1] === 0) return [1, 0];
    throw new Refusal("the scale and offset tags of the file aren't those of the images that the model is for; set them " +
      "with gdal_edit.py -scale -offset");
  });
  const changed = changes.some(([factor, shift]) => factor !== 1 || shift !== 0);
  return changed ? /** @type {[number, number][]} */ (changes) : null;
}

/**
 * Marks pixels without data: a value that measurements may take (0, or any without sign) must stand in all bands.
 * @param {Pixels} pixels Bands interleaved.
 * @param {number} bands
 * @param {number | null} nodata
 * @param {Uint8Array} valid Changed: 0 where there is no data.
 */
export function markNodata(pixels, bands, nodata, valid) {
  const ordinary = nodata === 0 || pixels instanceof Uint8Array || pixels instanceof Uint16Array;
  const isFloat = pixels instanceof Float32Array, value = isFloat && nodata !== null ? Math.fround(nodata) : nodata;
  if (value === null && !isFloat) return;
  for (let pixel = 0, at = 0; pixel < valid.length; pixel++) {
    let equal = 0, unlike = 0;
    for (let band = 0; band < bands; band++, at++) {
      if (pixels[at] === value) equal++;
      if (isFloat && !Number.isFinite(pixels[at])) unlike++;
    }
    if (unlike || (ordinary ? equal === bands : equal)) valid[pixel] = 0;
  }
}

/**
 * Gives pixels without data the values of the nearest valid one in their row or column, so that a network sees no edge.
 * @param {Pixels} pixels Bands interleaved; changed.
 * @param {Uint8Array} valid
 * @param {number} height
 * @param {number} width
 */
export function fillNodata(pixels, valid, height, width) {
  const bands = pixels.length / valid.length, filled = valid.slice();
  if (!filled.includes(1)) {
    pixels.fill(0);
    return;
  }
  while (filled.includes(0)) {
    const inColumn = nearest(filled, height, width, width, 1), inRow = nearest(filled, width, height, 1, width);
    for (let pixel = 0; pixel < filled.length; pixel++) {
      if (filled[pixel]) continue;
      const down = Math.abs(inColumn[pixel] - pixel) / width, across = Math.abs(inRow[pixel] - pixel);
      const source = inRow[pixel] >= 0 && (inColumn[pixel] < 0 || across <= down) ? inRow[pixel] : inColumn[pixel];
      if (source >= 0) pixels.copyWithin(pixel * bands, source * bands, (source + 1) * bands);
      inRow[pixel] = source;
    }
    for (let pixel = 0; pixel < filled.length; pixel++) if (inRow[pixel] >= 0) filled[pixel] = 1;
  }
}

/**
 * Returns for each pixel the nearest filled one on its line, the former of two; -1 where there is none.
 * @param {Uint8Array} filled
 * @param {number} length Pixels of a line.
 * @param {number} lines
 * @param {number} step From one pixel of a line to the next.
 * @param {number} between From one line to the next.
 */
function nearest(filled, length, lines, step, between) {
  const found = new Int32Array(filled.length).fill(-1);
  for (let line = 0; line < lines; line++) {
    const start = line * between, end = start + length * step;
    for (let at = start, before = -1; at < end; at += step) found[at] = before = filled[at] ? at : before;
    for (let at = end - step, after = -1; at >= start; at -= step) {
      after = filled[at] ? at : after;
      if (after >= 0 && (found[at] < 0 || after - at < at - found[at])) found[at] = after;
    }
  }
  return found;
}
