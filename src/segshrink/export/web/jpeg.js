// JPEG tiles of GeoTIFFs, decoded by the browser: geotiff.js leaves out colors and smooth chroma, GDAL doesn't.

import { Refusal } from "./bands.js";

const JPEG = 7;
export const YCBCR = 6;

/** Makes geotiff.js use it. */
export function decodeJpegs() {
  const parameters = async (/** @type {any} */ directory) => ({
    predictor: 1,
    tables: directory.hasTag("JPEGTables") ? new Uint8Array(await directory.loadValue("JPEGTables")) : null,
    isYcbcr: directory.getValue("PhotometricInterpretation") === YCBCR,
    samples: directory.getValue("PlanarConfiguration") === 2 ? 1 : (directory.getValue("SamplesPerPixel") ?? 1),
    bits: directory.getValue("BitsPerSample")?.[0] ?? 8,
  });
  GeoTIFF.addDecoder(JPEG, async () => /** @type {any} */ (BrowserJpeg), /** @type {any} */ (parameters), false);
}

/** @typedef {{tables: Uint8Array | null, isYcbcr: boolean, samples: number, bits: number}} Parameters */

class BrowserJpeg {
  /** @param {Parameters} parameters */
  constructor(parameters) {
    this.parameters = parameters;
  }

  /**
   * @param {ArrayBuffer} buffer A JPEG stream, whose tables may stand in the tag JPEGTables.
   * @returns {Promise<ArrayBuffer>} Samples interleaved.
   */
  async decode(buffer) {
    const { tables, isYcbcr, samples, bits } = this.parameters;
    if (![1, 3].includes(samples) || bits !== 8) {
      throw new Refusal(`JPEG of ${samples} bands in ${bits} bits can't be read here; convert it: gdal_translate -co COMPRESS=DEFLATE`);
    }
    // Adobe's marker says whether the three components are YCbCr.
    const adobe = [0xff, 0xee, 0, 14, 65, 100, 111, 98, 101, 0, 100, 0, 0, 0, 0, isYcbcr ? 1 : 0];
    const start = samples === 3 ? new Uint8Array([0xff, 0xd8, ...adobe]) : new Uint8Array([0xff, 0xd8]);
    const stream = new Uint8Array(buffer).subarray(2);
    const image = await createImageBitmap(
      new Blob([start, new Uint8Array(tables ? tables.subarray(2, -2) : []), stream], { type: "image/jpeg" }),
      { colorSpaceConversion: "none" },
    );
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new Refusal("this browser has no memory left; close other tabs");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    const pixels = new Uint8Array((data.length / 4) * samples);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      for (let sample = 0; sample < samples; sample++) pixels[to++] = data[from + sample];
    }
    return pixels.buffer;
  }
}
