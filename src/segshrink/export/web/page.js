// The page: takes an image, shows what its worker finds, and hands over the map.

import { STEPS } from "./stored.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./scene.js").Model} Model */
/** @typedef {{pixels: number, area: number | null, confidence: number | null}} ClassTotal */

// From unsure to sure.
const CONFIDENCE_COLORS = [[60, 9, 108], [181, 54, 122], [251, 136, 97], [252, 253, 191]];

/**
 * @template {HTMLElement} T
 * @param {string} id
 */
const element = (id) => /** @type {T} */ (/** @type {unknown} */ (document.getElementById(id)));

/** @type {Model} */
const model = JSON.parse(element("model").textContent ?? "");
const stage = element("stage"), file = /** @type {HTMLInputElement} */ (element("file"));
const opacity = /** @type {HTMLInputElement} */ (element("opacity"));
const bar = /** @type {HTMLProgressElement} */ (element("progress"));
const viewer = new Viewer(stage, pointed);
const toggles = /** @type {HTMLInputElement[]} */ ([...document.querySelectorAll(".legend input")]);
const job = { name: "", tiles: 0, began: 0, factor: 1 };

// Pages from the disk may start classic workers only; those import modules, too.
const code = new Blob([element("worker").textContent ?? ""], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(code));
worker.onerror = (/** @type {ErrorEvent} */ event) => answers.failed({ text: event.message, during: "start" });
worker.onmessage = (/** @type {MessageEvent} */ { data }) => answers[/** @type {keyof answers} */ (data.kind)](data);
const parts = ["runtime", "binary", "geotiff", "network"].map(bytes);
worker.postMessage({ kind: "start", model, parts, code: element("runner").textContent }, parts.map((part) => part.buffer));

const answers = {
  ready() {
    show("empty");
    say("");
  },
  /** @param {{name: string, height: number, width: number, shown: {height: number, width: number}, tiles: number,
   *   pixel: [number, number] | null}} scene */
  opened({ name, height, width, shown, tiles, pixel }) {
    Object.assign(job, { name, tiles, began: performance.now(), factor: height / shown.height });
    const size = pixel ? ` · ${Math.max(...pixel).toPrecision(2)} m a pixel` : "";
    element("name").textContent = name;
    element("size").textContent = `${number(width)} × ${number(height)} pixels${size}`;
    show("running");
    recolor();
    viewer.open(shown.height, shown.width);
  },
  /** @param {{done: number, piece: import("./viewer.js").Piece}} finished */
  piece({ done, piece }) {
    if (document.body.dataset.state !== "running") return;
    viewer.add(piece);
    bar.value = done / job.tiles;
    if (!done) return;
    const seconds = ((performance.now() - job.began) / done) * (job.tiles - done) / 1000;
    const left = done > 2 && seconds > 3 ? `, about ${duration(seconds)} left` : "";
    element("share").textContent = `${Math.floor((100 * done) / job.tiles)} %`;
    element("left").textContent = `tile ${number(done)} of ${number(job.tiles)}${left}`;
  },
  /** @param {{totals: {classes: ClassTotal[], nodata: number}, seconds: number}} finished */
  done({ totals, seconds }) {
    show("done");
    tell(totals);
    element("took").dataset.seconds = String(seconds);
    element("took").textContent = `Segmented on this device in ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s.`;
    say(`${job.name} is segmented.`);
  },
  /** @param {{blob: Blob, format: string}} map */
  saved({ blob, format }) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${job.name.replace(/\.[^.]*$/, "")}.classes.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  },
  /** @param {{text: string, during: string}} failure */
  failed({ text: reason, during }) {
    const isStart = during === "start";
    fail(isStart ? `the model can't be started in this browser (${reason}); use a newer one` : reason);
    if (isStart) show("broken");
  },
};

file.addEventListener("change", () => file.files?.[0] && segment(file.files[0]));
for (const button of document.querySelectorAll("[data-choose]")) button.addEventListener("click", () => file.click());
element("cancel").addEventListener("click", () => {
  worker.postMessage({ kind: "cancel" });
  show("stopped");
  say("Stopped.");
});
for (const format of ["png", "tif"]) {
  element(format).addEventListener("click", () => worker.postMessage({ kind: "save", format }));
}
element("closer").addEventListener("click", () => viewer.zoom(1.5));
element("farther").addEventListener("click", () => viewer.zoom(1 / 1.5));
element("whole").addEventListener("click", () => viewer.fit());
opacity.addEventListener("input", () => (viewer.overlay.style.opacity = opacity.value));
for (const input of document.querySelectorAll(".legend input, [name=look]")) input.addEventListener("change", recolor);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const dropped = event.dataTransfer?.files[0];
  if (dropped) segment(dropped);
});

/** @param {File} image */
function segment(image) {
  if (["loading", "broken"].includes(document.body.dataset.state ?? "")) return;
  file.value = "";
  element("error").textContent = "";
  tell(null);
  bar.value = 0;
  element("share").textContent = element("left").textContent = "";
  say(`${image.name} is being segmented.`);
  worker.postMessage({ kind: "segment", file: image });
}

/** @param {string} state */
function show(state) {
  document.body.dataset.state = state;
}

/** @param {string} sentence */
function fail(sentence) {
  element("error").textContent = `${sentence[0].toUpperCase()}${sentence.slice(1)}.`;
  show(viewer.width ? "stopped" : "empty");
}

/** @param {string} sentence For screen readers. */
function say(sentence) {
  element("status").textContent = sentence;
}

/** Takes over which classes are shown, or how sure the model is. */
function recolor() {
  viewer.isConfidence = /** @type {HTMLInputElement} */ (element("confidence")).checked;
  document.body.classList.toggle("confident", viewer.isConfidence);
  viewer.colors = new Uint32Array(256);
  const color = (/** @type {number[]} */ [red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
  if (viewer.isConfidence) {
    for (let step = 0; step <= STEPS; step++) viewer.colors[step] = color(between(CONFIDENCE_COLORS, step / STEPS));
  } else {
    toggles.forEach((toggle, index) => {
      if (toggle.checked) viewer.colors[index] = color(model.palette[index]);
    });
  }
  viewer.paint();
}

/**
 * @param {number[][]} colors
 * @param {number} share From the first color, 0, to the last, 1.
 */
function between(colors, share) {
  const place = Math.min(share * (colors.length - 1), colors.length - 1.001), low = Math.floor(place);
  return colors[low].map((part, n) => Math.round(part + (place - low) * (colors[low + 1][n] - part)));
}

/** @param {{classes: ClassTotal[], nodata: number} | null} totals */
function tell(totals) {
  const all = totals?.classes.reduce((sum, { pixels }) => sum + pixels, 0) ?? 0;
  document.querySelectorAll(".legend tbody tr").forEach((row, index) => {
    const total = totals?.classes[index], share = total && all ? total.pixels / all : 0;
    /** @type {HTMLElement} */ (row).style.setProperty("--share", String(share));
    const cells = [...row.querySelectorAll("td")];
    const ground = total && (total.area === null ? `${number(total.pixels)} px` : area(total.area));
    const sure = total?.confidence ? percent(total.confidence) : "–";
    [total && percent(share), ground, total && sure].forEach((cell, n) => (cells[n].textContent = cell ?? ""));
  });
  element("nodata").textContent = totals?.nodata ? `${number(totals.nodata)} pixels have no data and aren't counted.` : "";
}

/** @type {import("./viewer.js").Pointed} */
function pointed(place) {
  const text = place && `${model.classes[place.index].name} · ${percent(place.confidence)} sure`;
  const at = place && ` · row ${number(Math.floor((place.row + 0.5) * job.factor))}, column ${number(Math.floor((place.col + 0.5) * job.factor))}`;
  element("readout").textContent = place ? `${text}${at}` : "";
}

/** @param {number} value */
function number(value) {
  return value.toLocaleString("en-US");
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;
}

/** @param {number} meters Square meters. */
function area(meters) {
  const [value, unit] = meters < 1e4 ? [meters, "m²"] : meters < 1e7 ? [meters / 1e4, "ha"] : [meters / 1e6, "km²"];
  return `${value.toLocaleString("en-US", { maximumSignificantDigits: 3 })} ${unit}`;
}

/** @param {number} seconds */
function duration(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

/** @param {string} id Of an element that holds gzipped bytes in base64. */
function bytes(id) {
  const packed = atob(element(id).textContent ?? ""), unpacked = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at++) unpacked[at] = packed.charCodeAt(at);
  element(id).remove();
  return unpacked;
}
