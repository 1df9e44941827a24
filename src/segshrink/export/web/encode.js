// Class maps as files: PNG and GeoTIFF with the classes' colors, compressed by the browser. (geotiff.js's own writer
// neither compresses nor has room for a palette.)

import { NODATA } from "./stored.js";

/** @typedef {{classes: Uint8Array, height: number, width: number, palette: number[][]}} ClassMap 255 is no data. */

// Rows of a strip of a GeoTIFF hold about so many bytes.
const STRIP_BYTES = 1 << 20;
const SHORT = 3, LONG = 4, DOUBLE = 12, ASCII = 2;
const BYTES = /** @type {Record<number, number>} */ ({ [ASCII]: 1, [SHORT]: 2, [LONG]: 4, [DOUBLE]: 8 });
const DOUBLE_TAGS = [33550, 33922, 34264, 34736];

/**
 * Returns a palette PNG: class numbers 0, 1, ... and 255, which is transparent.
 * @param {ClassMap} map
 */
export async function toPng({ classes, height, width, palette }) {
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 3], 8); // bits; palette
  const transparency = new Uint8Array(256).fill(255, 0, NODATA);
  const rows = (/** @type {number} */ start, /** @type {number} */ end) => {
    const filtered = new Uint8Array((end - start) * (width + 1)); // each row begins with 0: no filter
    for (let row = start; row < end; row++) {
      filtered.set(classes.subarray(row * width, (row + 1) * width), (row - start) * (width + 1) + 1);
    }
    return filtered;
  };
  const chunks = [
    chunk("IHDR", header),
    chunk("PLTE", Uint8Array.from(colorTable(palette).flat())),
    chunk("tRNS", transparency),
    chunk("tEXt", new TextEncoder().encode("Software\0segshrink")),
    chunk("IDAT", await deflated(height, Math.max(1, Math.floor(STRIP_BYTES / width)), rows)),
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), ...chunks.flat()], { type: "image/png" });
}

/**
 * Returns a GeoTIFF in strips.
 * @param {ClassMap} map
 * @param {import("./georeference.js").GeoTags} geoTags
 * @param {string} metadata As GDAL writes it: XML.
 */
export async function toGeotiff({ classes, height, width, palette }, geoTags, metadata) {
  const rowsPerStrip = Math.max(1, Math.min(height, Math.floor(STRIP_BYTES / width)));
  const strips = [];
  for (let row = 0; row < height; row += rowsPerStrip) {
    const end = Math.min(height, row + rowsPerStrip);
    strips.push(await deflated(end, end, (_, last) => classes.subarray(row * width, last * width)));
  }
  const colors = colorTable(palette);
  /** @type {Record<number, [number, ArrayLike<number> | string]>} */
  const tags = {
    256: [LONG, [width]],
    257: [LONG, [height]],
    258: [SHORT, [8]],
    259: [SHORT, [8]], // deflate
    262: [SHORT, [3]], // palette
    273: [LONG, strips.map(() => 0)], // filled in below
    277: [SHORT, [1]],
    278: [LONG, [rowsPerStrip]],
    279: [LONG, strips.map((strip) => strip.length)],
    305: [ASCII, "segshrink"],
    320: [SHORT, [0, 1, 2].flatMap((band) => colors.map((color) => color[band] * 257))],
    42112: [ASCII, metadata],
    42113: [ASCII, String(NODATA)],
  };
  for (const [number, value] of Object.entries(geoTags)) {
    const kind = typeof value === "string" ? ASCII : DOUBLE_TAGS.includes(Number(number)) ? DOUBLE : SHORT;
    tags[Number(number)] = [kind, typeof value === "string" ? value.replace(/\0+$/, "") : value];
  }
  let offset = directory(tags).length;
  tags[273] = [LONG, strips.map((strip) => (offset += strip.length) - strip.length)];
  return new Blob([directory(tags), ...strips], { type: "image/tiff" });
}

/**
 * Returns the head of a TIFF: its header and one directory of tags with their values.
 * @param {Record<number, [number, ArrayLike<number> | string]>} tags By number, which objects sort.
 */
function directory(tags) {
  const entries = Object.entries(tags).map(([number, [kind, value]]) => {
    const values = typeof value === "string" ? [...new TextEncoder().encode(value), 0] : value;
    return { number: Number(number), kind, values, bytes: values.length * BYTES[kind] };
  });
  let free = 8 + 2 + 12 * entries.length + 4;
  const even = (/** @type {number} */ bytes) => bytes + (bytes % 2);
  const size = entries.reduce((sum, { bytes }) => sum + (bytes > 4 ? even(bytes) : 0), free);
  const content = new Uint8Array(size), view = new DataView(content.buffer);
  content.set([0x49, 0x49, 42, 0, 8, 0, 0, 0]);
  view.setUint16(8, entries.length, true);
  entries.forEach(({ number, kind, values, bytes }, place) => {
    const entry = 10 + 12 * place, start = bytes > 4 ? free : entry + 8;
    view.setUint16(entry, number, true);
    view.setUint16(entry + 2, kind, true);
    view.setUint32(entry + 4, values.length, true);
    if (bytes > 4) {
      view.setUint32(entry + 8, free, true);
      free += even(bytes);
    }
    for (let n = 0; n < values.length; n++) {
      const at = start + n * BYTES[kind];
      if (kind === ASCII) content[at] = values[n];
      else if (kind === SHORT) view.setUint16(at, values[n], true);
      else if (kind === LONG) view.setUint32(at, values[n], true);
      else view.setFloat64(at, values[n], true);
    }
  });
  return content;
}

/**
 * Returns red, green and blue of each of 256 numbers.
 * @param {number[][]} palette Of the classes and, last, of what has no data.
 */
function colorTable(palette) {
  const nothing = palette[palette.length - 1];
  return Array.from({ length: 256 }, (_, number) => (number < palette.length - 1 ? palette[number] : nothing));
}

/**
 * Compresses rows, some at once, into one stream of zlib.
 * @param {number} height
 * @param {number} atOnce
 * @param {(start: number, end: number) => Uint8Array} rows
 */
async function deflated(height, atOnce, rows) {
  let row = 0;
  const source = new ReadableStream({
    pull(controller) {
      const end = Math.min(height, row + atOnce);
      if (row < height) controller.enqueue(rows(row, end));
      else controller.close();
      row = end;
    },
  });
  return new Uint8Array(await new Response(source.pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
}

/**
 * Returns a part of a PNG: length, name, content, checksum.
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} content
 */
function chunk(name, content) {
  const head = new Uint8Array(8), tail = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, content.length);
  head.set(new TextEncoder().encode(name), 4);
  new DataView(tail.buffer).setUint32(0, crc32([head.subarray(4), content]));
  return [head, content, tail];
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param {Uint8Array[]} parts */
function crc32(parts) {
  let value = 0xffffffff;
  for (const part of parts) for (const byte of part) value = (value >>> 8) ^ CRC_TABLE[(value ^ byte) & 255];
  return ~value >>> 0;
}
