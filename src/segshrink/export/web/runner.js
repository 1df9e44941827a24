// Runs the network on tiles, one at a time; several of these work beside each other.

import { STEPS } from "./stored.js";

/** @typedef {import("./runners.js").Asked} Asked */
/** @typedef {import("./runners.js").Decided} Decided */

/** @type {import("onnxruntime-web")} */
let ort;
/** @type {import("onnxruntime-web").InferenceSession} */
let session;

self.onmessage = async ({ data }) => {
  try {
    if (data.network) {
      await start(data);
      self.postMessage({});
    } else {
      const decided = await decide(data);
      self.postMessage(decided, { transfer: [decided.classes.buffer, decided.confidence.buffer] });
    }
  } catch (error) {
    self.postMessage({ failure: error instanceof Error ? error.message : String(error) });
  }
};

/**
 * Starts the runtime with the network; one thread, since pages from the disk get no shared memory.
 * @param {import("./runners.js").Parts} parts
 */
async function start({ runtime, binary, network }) {
  ort = await import(URL.createObjectURL(new Blob([runtime], { type: "text/javascript" })));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  const options = /** @type {const} */ ({ executionProviders: ["wasm"], logSeverityLevel: 3 }); // errors
  session = await ort.InferenceSession.create(new Uint8Array(network), options);
}

/**
 * @param {Asked} tile
 * @returns {Promise<Decided>}
 */
async function decide({ images, height, width, kept }) {
  const plane = height * width, type = images instanceof Uint8Array ? "uint8" : "float32";
  const tensor = new ort.Tensor(type, images, [1, images.length / plane, height, width]);
  const output = (await session.run({ [session.inputNames[0]]: tensor })).logits;
  const logits = /** @type {Float32Array} */ (output.data), count = output.dims[1];
  const decided = { classes: new Uint8Array(kept.height * kept.width), confidence: new Uint8Array(kept.height * kept.width) };
  for (let row = 0, to = 0; row < kept.height; row++) {
    let at = (kept.row + row) * width + kept.col;
    for (let col = 0; col < kept.width; col++, at++, to++) {
      let best = 0, highest = logits[at], sum = 0;
      for (let number = 1; number < count; number++) {
        const logit = logits[at + number * plane];
        if (logit > highest) {
          highest = logit;
          best = number;
        }
      }
      for (let number = 0; number < count; number++) sum += Math.exp(logits[at + number * plane] - highest);
      decided.classes[to] = best;
      decided.confidence[to] = STEPS / sum + 0.5;
    }
  }
  return decided;
}
