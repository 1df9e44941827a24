// Opens what was dropped, a picture or a GeoTIFF, and reads windows of it as `segshrink predict` does.

import { Refusal, chooseBands, fillNodata, markNodata, scalingChange } from "./bands.js";
import { GEO_TAGS, georeference, pixelSize, scaled } from "./georeference.js";
import { YCBCR } from "./jpeg.js";

/** @typedef {import("./tiling.js").Window} Window */
/** @typedef {import("./bands.js").Pixels} Pixels */
/** @typedef {import("./georeference.js").Georeference} Georeference */
/**
 * @typedef {object} Model What the page knows of its network.
 * @property {string} name
 * @property {{name: string, color: string}[]} classes
 * @property {number} bands
 * @property {string[] | null} bandNames
 * @property {string} dtype
 * @property {number | null} resolution Meters a pixel.
 * @property {[number, number][] | null} scaling
 * @property {import("./tiling.js").Tiling} tiling
 * @property {string | null} dependsOnImage Its working size, where only the whole image says that.
 * @property {number[][]} palette Red, green and blue of each class and, last, of what has no data.
 * @property {string} tag The class map as GDAL's metadata.
 */
/** @typedef {{pixels: Pixels, valid: Uint8Array | null}} Reading Bands interleaved; null where all are valid. */
/**
 * @typedef {object} Scene
 * @property {string} name
 * @property {number} height Rows, at the resolution that is read.
 * @property {number} width
 * @property {number} bytes That are read for a pixel.
 * @property {Georeference | null} place
 * @property {(window: Window) => Promise<Reading>} read
 */

// Pixels of other resolutions within 5 % are taken as they are; a map has at most a hundred times the file's pixels.
const SAME_RESOLUTION = 0.05, MOST_ENLARGED = 100;
/** @type {Record<string, Uint8ArrayConstructor | Uint16ArrayConstructor | Int16ArrayConstructor | Float32ArrayConstructor>} */
const NUMBERS = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array };
const ALPHA_SAMPLES = [1, 2];
const RGB = 2, PALETTE = 3;

/**
 * @param {File} file
 * @param {Model} model
 * @returns {Promise<Scene>}
 */
export async function openScene(file, model) {
  const start = new Uint8Array(await file.slice(0, 32).arrayBuffer());
  const order = String.fromCharCode(start[0], start[1]);
  if (["II", "MM"].includes(order) && [42, 43].includes(start[order === "II" ? 2 : 3])) {
    const scene = await openTiff(file, model);
    if (!scene.place || !model.dependsOnImage) return scene;
    throw new Refusal("the file lies on the ground, where a pixel has one size, but the model works at " +
      `${model.dependsOnImage}; give a picture`);
  }
  if (start[1] === 0x50 && start[2] === 0x4e && start[24] === 16) {
    throw new Refusal("the PNG holds 16-bit numbers, which browsers cut to 8; save it as a TIFF");
  }
  return openPicture(file, model);
}

/**
 * @param {File} file
 * @param {Model} model
 * @returns {Promise<Scene>}
 */
async function openPicture(file, model) {
  if (model.dtype !== "uint8" || ![1, 3].includes(model.bands)) {
    throw new Refusal(`a picture has red, green and blue in 8 bits, but the model takes ${model.bands} bands of ` +
      `${model.dtype} (${model.bandNames?.join(", ") ?? "unnamed"}); give a GeoTIFF`);
  }
  /** @type {ImageBitmap} */
  let image;
  try {
    image = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Refusal(`this browser can't read ${file.name}; give a GeoTIFF, PNG, JPEG or WebP`);
  }
  const read = async (/** @type {Window} */ { row, col, height, width }) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new Refusal("this browser has no memory left; close other tabs");
    context.drawImage(image, -col, -row);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = new Uint8Array(height * width * model.bands), valid = new Uint8Array(height * width).fill(1);
    for (let pixel = 0, at = 0; pixel < valid.length; pixel++) {
      const red = data[4 * pixel];
      if (model.bands === 1 && (data[4 * pixel + 1] !== red || data[4 * pixel + 2] !== red)) {
        throw new Refusal(`the model takes 1 band, but ${file.name} is in color; save it in gray`);
      }
      for (let band = 0; band < model.bands; band++) pixels[at++] = data[4 * pixel + band];
      if (!data[4 * pixel + 3]) valid[pixel] = 0;
    }
    return finished(pixels, valid, height, width);
  };
  return { name: file.name, height: image.height, width: image.width, bytes: model.bands, place: null, read };
}

/**
 * @param {File} file
 * @param {Model} model
 * @returns {Promise<Scene>}
 */
async function openTiff(file, model) {
  const tiff = await GeoTIFF.fromBlob(file), image = await tiff.getImage(0), tags = await tagsOf(image);
  if ((tags.Orientation ?? 1) !== 1) throw new Refusal("the file's orientation tag turns it; save it upright");
  const dtype = numbersOf(tags);
  const samples = tags.SamplesPerPixel ?? 1;
  const isPalette = tags.PhotometricInterpretation === PALETTE && samples === 1 && model.bands === 3;
  const described = bandMetadata(tags.GDAL_METADATA ?? "", samples);
  const colors = colorsOf(tags, samples, described);
  const titles = described.map((band, n) => band.DESCRIPTION ?? colors[n]);
  const alpha = colors.findIndex((color, n) => color === "alpha" && /alpha/i.test(titles[n])) + 1 || null;
  const bands = isPalette ? { numbers: [1], alpha: null } : chooseBands(titles, alpha, model.bands, model.bandNames);
  if (dtype !== model.dtype) {
    throw new Refusal(`the file holds ${dtype} numbers but the model takes ${model.dtype}; scale them first, or use ` +
      "segshrink predict --scale LOW:HIGH");
  }
  const tagged = described.map((band) => [Number(band.SCALE ?? 1), Number(band.OFFSET ?? 0)]);
  const chosen = /** @type {[number, number][]} */ (bands.numbers.map((number) => tagged[number - 1]));
  const hasTags = chosen.some(([scale, offset]) => scale !== 1 || offset !== 0);
  const change = isPalette ? null : scalingChange(hasTags ? chosen : null, model.scaling);
  const nodata = nodataOf(tags, dtype, bands.numbers.includes(bands.alpha ?? 0));
  const geoTags = Object.entries(GEO_TAGS).filter(([name]) => tags[name] !== undefined);
  let place = geoTags.length
    ? georeference(Object.fromEntries(geoTags.map(([name, number]) => [number, tags[name]])), image.getGeoKeys())
    : null;
  const full = { height: image.getHeight(), width: image.getWidth() };
  const { height, width } = sizeAt(model.resolution, place, full);
  if (place && height !== full.height) place = scaled(place, full.height / height, full.width / width);
  const { level, mask } = await levels(tiff, full, height);
  const down = level.getHeight() / height, right = level.getWidth() / width;
  const extra = bands.alpha && !bands.numbers.includes(bands.alpha) ? [bands.alpha - 1] : [];
  const read = async (/** @type {Window} */ window) => {
    const rows = taps(window.row, window.height, down, level.getHeight(), isPalette);
    const cols = taps(window.col, window.width, right, level.getWidth(), isPalette);
    const box = [cols.start, rows.start, cols.end, rows.end];
    const readSamples = [...bands.numbers.map((number) => number - 1), ...extra];
    const planes = /** @type {any} */ (await level.readRasters({ window: box, samples: readSamples }));
    const masked = mask && (await mask.readRasters({ window: box, samples: [0] }))[0];
    const raw = interleaved(planes, bands.numbers.length, dtype);
    const valid = new Uint8Array(raw.length / bands.numbers.length).fill(1);
    markNodata(raw, bands.numbers.length, nodata, valid);
    for (const layer of [extra.length && planes.at(-1), masked].filter(Boolean)) {
      for (let pixel = 0; pixel < valid.length; pixel++) if (layer[pixel] <= 0) valid[pixel] = 0;
    }
    const { pixels, valid: kept } = resampled(raw, valid, rows, cols);
    const shown = isPalette ? throughPalette(pixels, tags.ColorMap) : pixels;
    const reading = finished(shown, kept, window.height, window.width);
    if (change) applyScaling(reading.pixels, change);
    return reading;
  };
  const bytes = model.bands * NUMBERS[dtype].BYTES_PER_ELEMENT;
  return { name: file.name, height, width, bytes: bytes * Math.max(1, down * right), place, read };
}

/**
 * Reads the tags that matter here.
 * @param {import("geotiff").GeoTIFFImage} image
 * @returns {Promise<Record<string, any>>}
 */
async function tagsOf(image) {
  const names = ["Orientation", "SamplesPerPixel", "BitsPerSample", "SampleFormat", "PhotometricInterpretation",
    "ExtraSamples", "ColorMap", "GDAL_METADATA", "GDAL_NODATA", "NewSubfileType", ...Object.keys(GEO_TAGS)];
  const directory = /** @type {any} */ (image.fileDirectory);
  const present = names.filter((name) => directory.hasTag(name));
  return Object.fromEntries(await Promise.all(present.map(async (name) => [name, await directory.loadValue(name)])));
}

/**
 * Returns what GDAL's metadata say of each band; GDAL escapes them twice.
 * @param {string} xml
 * @param {number} samples
 */
function bandMetadata(xml, samples) {
  const letters = /** @type {Record<string, string>} */ ({ lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" });
  const unescaped = (/** @type {string} */ text) => text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => letters[name]);
  /** @type {Record<string, string>[]} */
  const bands = Array.from({ length: samples }, () => ({}));
  for (const [, name, sample, text] of xml.matchAll(/<Item name="([^"]*)" sample="(\d+)"[^>]*>([^<]*)</g)) {
    if (bands[Number(sample)]) bands[Number(sample)][name] = unescaped(unescaped(text));
  }
  return bands;
}

/** @param {Record<string, any>} tags */
function numbersOf(tags) {
  const bits = Math.max(...Array.from(tags.BitsPerSample ?? [1])), format = tags.SampleFormat?.[0] ?? 1;
  if (format === 3 || bits > 16) return "float32";
  if (format === 2) return "int16";
  return bits > 8 ? "uint16" : "uint8";
}

/**
 * Returns what GDAL calls the colors of the bands.
 * @param {Record<string, any>} tags
 * @param {number} samples
 * @param {Record<string, string>[]} described
 * @returns {string[]}
 */
function colorsOf(tags, samples, described) {
  const colored = [RGB, YCBCR].includes(tags.PhotometricInterpretation) && samples >= 3;
  const plain = colored ? ["red", "green", "blue"] : [""];
  return described.map((band, n) => {
    if (band.COLORINTERP) return band.COLORINTERP.toLowerCase();
    if (n < plain.length) return plain[n];
    return ALPHA_SAMPLES.includes(Array.from(tags.ExtraSamples ?? [])[n - plain.length]) ? "alpha" : "";
  });
}

/**
 * Returns the value that means no data; null where no pixel can have it. Of measured transparency it is 0.
 * @param {Record<string, any>} tags
 * @param {string} dtype
 * @param {boolean} takesAlpha
 */
function nodataOf(tags, dtype, takesAlpha) {
  const text = tags.GDAL_NODATA?.replace(/\0.*/s, "").trim(), value = text ? Number(text) : null;
  const limits = { uint8: [0, 255], uint16: [0, 65535], int16: [-32768, 32767] }[dtype];
  const fits = value !== null && (!limits || (Number.isInteger(value) && value >= limits[0] && value <= limits[1]));
  return fits ? value : takesAlpha ? 0 : null;
}

/**
 * Returns the size at which a scene is read.
 * @param {number | null} resolution
 * @param {Georeference | null} place
 * @param {{height: number, width: number}} full
 */
function sizeAt(resolution, place, full) {
  const size = place && pixelSize(place, full.height, full.width);
  if (!size || !resolution || size.every((side) => Math.abs(side / resolution - 1) <= SAME_RESOLUTION)) return full;
  const [height, width] = [full.height * size[0], full.width * size[1]].map((side) => {
    return Math.max(1, Math.round(side / resolution));
  });
  if (height * width > MOST_ENLARGED * full.height * full.width) {
    throw new Refusal(`pixels of ${Math.max(...size).toPrecision(3)} m are too coarse for a model of ${resolution} m; ` +
      "give a finer image");
  }
  return { height, width };
}

/**
 * Returns the coarsest overview that still has as many rows, and the mask of the whole image.
 * @param {import("geotiff").GeoTIFF} tiff
 * @param {{height: number, width: number}} full
 * @param {number} height
 */
async function levels(tiff, full, height) {
  let level = await tiff.getImage(0), mask = null;
  for (let number = 1; number < await tiff.getImageCount(); number++) {
    const image = await tiff.getImage(number), kind = (await tagsOf(image)).NewSubfileType ?? 0;
    const isWhole = image.getHeight() === full.height && image.getWidth() === full.width;
    if (kind === 4 && isWhole) mask = image;
    if (kind === 1 && image.getHeight() >= height && image.getHeight() < level.getHeight()) level = image;
  }
  return mask ? { level: await tiff.getImage(0), mask } : { level, mask };
}

/**
 * Returns all bands interleaved, as numbers of one type.
 * @param {ArrayLike<number>[]} planes
 * @param {number} bands
 * @param {string} dtype
 * @returns {Pixels}
 */
function interleaved(planes, bands, dtype) {
  const pixels = new NUMBERS[dtype](planes[0].length * bands);
  for (let band = 0; band < bands; band++) {
    const plane = planes[band];
    for (let pixel = 0, at = band; pixel < plane.length; pixel++, at += bands) pixels[at] = plane[pixel];
  }
  return pixels;
}

/**
 * @typedef {object} Taps Which pixels of the file make up each pixel that is read, along one axis.
 * @property {number} start First pixel of the file.
 * @property {number} end
 * @property {number[]} first For each pixel that is read, from `start`.
 * @property {number[][]} weights
 * @property {number[]} center The pixel of the file under its middle, from `start`.
 */
/**
 * Averages where the file is finer, interpolates linearly where it is coarser.
 * @param {number} from
 * @param {number} count
 * @param {number} ratio Pixels of the file for one that is read.
 * @param {number} size Pixels of the file.
 * @param {boolean} isNearest
 * @returns {Taps}
 */
function taps(from, count, ratio, size, isNearest) {
  const first = [], center = [];
  /** @type {number[][]} */
  const weights = [];
  for (let number = from; number < from + count; number++) {
    const middle = (number + 0.5) * ratio, under = Math.min(size - 1, Math.floor(middle));
    center.push(under);
    if (ratio === 1 || isNearest) {
      first.push(under);
      weights.push([1]);
    } else if (ratio > 1) {
      const low = number * ratio, high = Math.min(size, low + ratio), start = Math.floor(low + 1e-6);
      const pixels = Array.from({ length: Math.ceil(high - 1e-6) - start }, (_, n) => start + n);
      first.push(start);
      weights.push(pixels.map((pixel) => Math.min(pixel + 1, high) - Math.max(pixel, low)));
    } else {
      const low = Math.floor(middle - 0.5), share = middle - 0.5 - low;
      const isInside = low >= 0 && low + 1 < size;
      first.push(isInside ? low : under);
      weights.push(isInside ? [1 - share, share] : [1]);
    }
  }
  const start = Math.min(...first), end = Math.max(...first.map((low, n) => low + weights[n].length));
  return { start, end, first: first.map((low) => low - start), weights, center: center.map((at) => at - start) };
}

/**
 * @param {Pixels} raw
 * @param {Uint8Array} valid
 * @param {Taps} rows
 * @param {Taps} cols
 * @returns {{pixels: Pixels, valid: Uint8Array}}
 */
function resampled(raw, valid, rows, cols) {
  const height = rows.first.length, width = cols.first.length, across = cols.end - cols.start;
  const isSame = (/** @type {Taps} */ axis) => axis.end - axis.start === axis.first.length && axis.first.every((at, n) => {
    return at === n && axis.weights[n].length === 1;
  });
  if (isSame(rows) && isSame(cols)) return { pixels: raw, valid };
  const bands = raw.length / valid.length, isFloat = raw instanceof Float32Array;
  const pixels = new (/** @type {Uint8ArrayConstructor} */ (raw.constructor))(height * width * bands);
  const kept = new Uint8Array(height * width), sums = new Float64Array(bands);
  for (let row = 0, at = 0; row < height; row++) {
    for (let col = 0; col < width; col++, at++) {
      let total = 0;
      sums.fill(0);
      rows.weights[row].forEach((tall, down) => {
        const line = (rows.first[row] + down) * across + cols.first[col];
        cols.weights[col].forEach((wide, right) => {
          if (!valid[line + right]) return;
          total += tall * wide;
          for (let band = 0; band < bands; band++) sums[band] += raw[(line + right) * bands + band] * tall * wide;
        });
      });
      kept[at] = valid[rows.center[row] * across + cols.center[col]];
      for (let band = 0; total && band < bands; band++) {
        pixels[at * bands + band] = isFloat ? sums[band] / total : Math.floor(sums[band] / total + 0.5);
      }
    }
  }
  return { pixels, valid: kept };
}

/**
 * @param {Pixels} indices
 * @param {ArrayLike<number>} colors 16-bit reds, greens, blues.
 */
function throughPalette(indices, colors) {
  const size = colors.length / 3, pixels = new Uint8Array(indices.length * 3);
  indices.forEach((index, pixel) => {
    for (let color = 0; color < 3; color++) pixels[pixel * 3 + color] = colors[color * size + index] >> 8;
  });
  return pixels;
}

/**
 * @param {Pixels} pixels Changed.
 * @param {[number, number][]} change
 */
function applyScaling(pixels, change) {
  const limits = pixels instanceof Int16Array ? [-32768, 32767] : [0, pixels instanceof Uint8Array ? 255 : 65535];
  for (let at = 0; at < pixels.length; at++) {
    const [factor, shift] = change[at % change.length], value = pixels[at] * factor + shift;
    pixels[at] = pixels instanceof Float32Array ? value : Math.max(limits[0], Math.min(limits[1], Math.round(value)));
  }
}

/**
 * @param {Pixels} pixels
 * @param {Uint8Array} valid
 * @param {number} height
 * @param {number} width
 * @returns {Reading}
 */
function finished(pixels, valid, height, width) {
  if (!valid.includes(0)) return { pixels, valid: null };
  fillNodata(pixels, valid, height, width);
  return { pixels, valid };
}
