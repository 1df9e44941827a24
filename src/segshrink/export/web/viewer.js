// The image with its classes over it: painted piece by piece, moved and zoomed by mouse, touch and keys.

import { NODATA } from "./stored.js";

/** @typedef {{row: number, col: number, height: number, width: number, photo: Uint8ClampedArray<ArrayBuffer>,
 *   classes: Uint8Array, confidence: Uint8Array}} Piece */
/** @typedef {(place: {row: number, col: number, index: number, confidence: number} | null) => void} Pointed */

const MOST_PIXELATED = 32, ZOOM_STEP = 1.5, MOVE_STEP = 60;

export class Viewer {
  /**
   * @param {HTMLElement} stage
   * @param {Pointed} pointed Told what is under the pointer.
   */
  constructor(stage, pointed) {
    this.stage = stage;
    this.pointed = pointed;
    this.layers = /** @type {HTMLElement} */ (stage.querySelector(".layers"));
    const [photo, overlay] = stage.querySelectorAll("canvas");
    this.photo = photo;
    this.overlay = overlay;
    this.height = this.width = 0;
    this.classes = this.confidence = new Uint8Array();
    /** Color of each class and of each confidence as the canvas stores it: alpha, blue, green, red. */
    this.colors = new Uint32Array(256);
    this.isConfidence = false;
    this.scale = 1;
    this.left = this.top = 0;
    /** @type {Map<number, PointerEvent>} */
    this.pointers = new Map();
    this.listen();
  }

  /**
   * Begins with an empty picture.
   * @param {number} height
   * @param {number} width
   */
  open(height, width) {
    Object.assign(this, { height, width });
    for (const canvas of [this.photo, this.overlay]) Object.assign(canvas, { height, width });
    this.classes = new Uint8Array(height * width).fill(NODATA);
    this.confidence = this.classes.slice();
    this.fit();
  }

  /** @param {Piece} piece */
  add({ row, col, height, width, photo, classes, confidence }) {
    if (!height || !width) return;
    for (let line = 0; line < height; line++) {
      const to = (row + line) * this.width + col;
      this.classes.set(classes.subarray(line * width, (line + 1) * width), to);
      this.confidence.set(confidence.subarray(line * width, (line + 1) * width), to);
    }
    this.photo.getContext("2d")?.putImageData(new ImageData(photo, width, height), col, row);
    this.paint(row, col, height, width);
  }

  /**
   * Paints the classes, or how sure the model is, over a part of the picture.
   * @param {number} row
   * @param {number} col
   * @param {number} height
   * @param {number} width
   */
  paint(row = 0, col = 0, height = this.height, width = this.width) {
    if (!height || !width) return;
    const image = new ImageData(width, height), painted = new Uint32Array(image.data.buffer);
    const shown = this.isConfidence ? this.confidence : this.classes;
    for (let line = 0, at = 0; line < height; line++) {
      let from = (row + line) * this.width + col;
      for (let right = 0; right < width; right++) painted[at++] = this.colors[shown[from++]];
    }
    this.overlay.getContext("2d")?.putImageData(image, col, row);
  }

  /** Shows the whole picture. */
  fit() {
    const { clientWidth, clientHeight } = this.stage;
    this.fitting = Math.min(clientWidth / this.width, clientHeight / this.height, MOST_PIXELATED) || 1;
    this.scale = this.fitting;
    this.left = (clientWidth - this.width * this.scale) / 2;
    this.top = (clientHeight - this.height * this.scale) / 2;
    this.place();
  }

  /**
   * @param {number} factor
   * @param {number} x Of the stage, where the picture stays.
   * @param {number} y
   */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(MOST_PIXELATED, Math.max(this.fitting ?? 1, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  /**
   * @param {number} right
   * @param {number} down
   */
  move(right, down) {
    this.left += right;
    this.top += down;
    this.place();
  }

  /** Keeps the picture in the stage, and tells the browser where it is. */
  place() {
    const { clientWidth, clientHeight } = this.stage, { width, height, scale } = this;
    const inside = (/** @type {number} */ start, /** @type {number} */ length, /** @type {number} */ room) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, start));
    this.left = inside(this.left, width * scale, clientWidth);
    this.top = inside(this.top, height * scale, clientHeight);
    this.layers.style.transform = `translate(${this.left}px, ${this.top}px) scale(${scale})`;
    this.layers.style.imageRendering = scale >= 2 ? "pixelated" : "auto";
    // At full size a finger scrolls the page.
    this.stage.style.touchAction = scale > (this.fitting ?? 1) * 1.01 ? "none" : "pan-y";
  }

  listen() {
    const { stage, pointers } = this;
    const at = (/** @type {MouseEvent} */ event) => {
      const box = stage.getBoundingClientRect();
      return /** @type {const} */ ([event.clientX - box.left, event.clientY - box.top]);
    };
    stage.addEventListener("wheel", (event) => {
      if (!this.width) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), ...at(event));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (!this.width || /** @type {Element} */ (event.target).closest("button, label")) return;
      pointers.set(event.pointerId, event);
      this.point(...at(event));
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId), other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
      if (!before) return this.point(...at(event));
      if (other) {
        const spread = (/** @type {PointerEvent} */ one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        this.zoom(spread(event) / Math.max(1, spread(before)), ...at(event));
      } else if (event.pointerType === "mouse" || stage.style.touchAction === "none") {
        this.move(event.clientX - before.clientX, event.clientY - before.clientY);
      }
      pointers.set(event.pointerId, event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      window.addEventListener(name, (event) => pointers.delete(/** @type {PointerEvent} */ (event).pointerId));
    }
    stage.addEventListener("pointerleave", () => this.pointed(null));
    stage.addEventListener("dblclick", (event) => this.zoom(ZOOM_STEP * ZOOM_STEP, ...at(event)));
    stage.addEventListener("keydown", (event) => {
      const steps = /** @type {Record<string, () => void>} */ ({
        "+": () => this.zoom(ZOOM_STEP),
        "=": () => this.zoom(ZOOM_STEP),
        "-": () => this.zoom(1 / ZOOM_STEP),
        0: () => this.fit(),
        ArrowLeft: () => this.move(MOVE_STEP, 0),
        ArrowRight: () => this.move(-MOVE_STEP, 0),
        ArrowUp: () => this.move(0, MOVE_STEP),
        ArrowDown: () => this.move(0, -MOVE_STEP),
      });
      if (!this.width || !steps[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      steps[event.key]();
    });
    new ResizeObserver(() => this.width && this.fit()).observe(stage);
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  point(x, y) {
    const col = Math.floor((x - this.left) / this.scale), row = Math.floor((y - this.top) / this.scale);
    const isInside = row >= 0 && col >= 0 && row < this.height && col < this.width, at = row * this.width + col;
    const known = isInside && this.classes[at] !== NODATA;
    this.pointed(known ? { row, col, index: this.classes[at], confidence: this.confidence[at] / 254 } : null);
  }
}
