// Workers that run the network on tiles beside each other: as many as the device has room for.

/** @typedef {import("./tiling.js").Window} Window */
/** @typedef {{runtime: ArrayBuffer, binary: ArrayBuffer, network: ArrayBuffer}} Parts What a runner starts from. */
/** @typedef {{images: Uint8Array | Float32Array, height: number, width: number, kept: Window}} Asked
 *   Pixels of a tile, band by band, and the part of it that is decided. */
/** @typedef {{classes: Uint8Array<ArrayBuffer>, confidence: Uint8Array<ArrayBuffer>}} Decided
 *   Class and confidence, 0 .. 254, of each pixel of that part. */

const MOST = 4, GIGABYTES_EACH = 2;

export class Runner {
  /**
   * @param {string} code
   * @param {Parts} parts
   */
  constructor(code, parts) {
    this.worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    this.start = this.ask(parts);
    this.isReady = this.start.then(() => true, () => false);
    /** @type {Promise<unknown>} */
    this.last = this.isReady;
  }

  /**
   * @param {Asked} tile
   * @returns {Promise<Decided>}
   */
  decide(tile) {
    // One after the other: an answer that nobody waits for any more, of a scene that was cancelled, isn't taken for this.
    const ask = () => this.ask(tile, [tile.images.buffer]), answer = this.last.then(ask, ask);
    this.last = answer;
    return /** @type {Promise<Decided>} */ (answer);
  }

  /**
   * @param {object} message
   * @param {Transferable[]} transfer
   * @returns {Promise<unknown>}
   */
  ask(message, transfer = []) {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => (data.failure ? reject(new Error(data.failure)) : resolve(data));
      this.worker.onerror = (event) => reject(new Error(event.message));
      this.worker.postMessage(message, transfer);
    });
  }
}

/**
 * Starts one runner and, once it is ready, more where the device has cores and memory for them, as far as its browser
 * tells.
 * @param {string} code
 * @param {Parts} parts
 * @returns {Promise<Runner[]>}
 */
export async function startRunners(code, parts) {
  const { hardwareConcurrency = 1, deviceMemory = 4 } = /** @type {Navigator & {deviceMemory?: number}} */ (navigator);
  const count = Math.min(hardwareConcurrency, MOST, Math.ceil(deviceMemory / GIGABYTES_EACH)), first = new Runner(code, parts);
  await first.start;
  return [first, ...Array.from({ length: count - 1 }, () => new Runner(code, parts))];
}
