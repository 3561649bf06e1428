// A mask that one paints over an image, by pointer or by keys, as a text of hexadecimal digits.

import { button, h } from "./controls.js";
import { outline, paint } from "./tiles.js";
import { theme } from "./picture.js";

export function toHex(cells) {
  let text = "";
  for (let i = 0; i < cells.length; i += 4) text += [0, 1, 2, 3].reduce((sum, k) => 2 * sum + (cells[i + k] ?? 0), 0).toString(16);
  return text;
}

export class Mask {
  /** `commit(text)` is called with the mask after each stroke. */
  constructor(commit) {
    this.commit = commit;
    this.cells = null;
    this.cursor = [0, 0];
    this.stroke = null;
    this.canvas = h("canvas", { class: "image mask", tabindex: 0, role: "application", "aria-roledescription": "mask", "aria-label": "Mask over the image. Arrow keys move, space paints or keeps a cell." });
    this.told = h("span", { class: "help", "aria-live": "polite" }, "Paint what is drawn anew. Arrow keys move, space paints.");
    this.brush = h("select", { "aria-label": "Brush" }, [1, 2, 3, 5].map((size) => h("option", { value: size }, `brush of ${size}`)));
    const fill = (name, make) => button(name, () => this.fill(make), { class: "small" });
    this.element = h("div", { class: "painter" }, this.canvas, h("div", { class: "row" }, this.brush,
      fill("Nothing", () => 0), fill("Lower half", (y) => Number(y >= this.rows >> 1)), fill("Left half", (y, x) => Number(x < this.columns >> 1)), fill("Invert", (y, x) => 1 - this.cells[y * this.columns + x])), this.told);
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.stroke !== null && this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.release());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    for (const change of ["focus", "blur"]) this.canvas.addEventListener(change, () => this.draw());
  }

  /** Show an image {pixels, kind} below cells (rows, columns) of `size` pixels. */
  show(tile, cells, size) {
    this.tile = tile;
    this.size = size;
    if (this.columns !== cells.shape[1] || this.rows !== cells.shape[0]) {
      [this.rows, this.columns] = cells.shape;
      this.cursor = [this.rows >> 1, this.columns >> 1];
      this.brush.value = this.columns > 20 ? 3 : this.columns > 12 ? 2 : 1;
    }
    if (this.stroke === null) this.cells = Uint8Array.from(cells);
    this.draw();
  }

  draw() {
    if (!this.tile) return;
    const scale = paint(this.canvas, { ...this.tile, least: 288 });
    const context = this.canvas.getContext("2d"), side = scale * this.size;
    const { palette } = theme();
    context.fillStyle = palette[1];
    context.globalAlpha = 0.3;
    for (let i = 0; i < this.cells.length; i++) if (this.cells[i]) context.fillRect((i % this.columns) * side, Math.floor(i / this.columns) * side, side, side);
    context.globalAlpha = 1;
    const mask = Object.assign(Uint8Array.from(this.cells), { shape: [this.rows, this.columns] });
    outline(context, mask, side, palette[1]);
    if (document.activeElement !== this.canvas) return;
    context.strokeStyle = palette[0];
    context.lineWidth = 4;
    context.strokeRect(this.cursor[1] * side + 2, this.cursor[0] * side + 2, side - 4, side - 4);
  }

  set(y, x, value, brush = 1) {
    const before = (brush - 1) >> 1;
    for (let i = y - before; i < y - before + brush; i++) {
      for (let j = x - before; j < x - before + brush; j++) if (i >= 0 && j >= 0 && i < this.rows && j < this.columns) this.cells[i * this.columns + j] = value;
    }
    this.draw();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect(), scale = this.canvas.width / box.width;
    const side = (this.canvas.width / this.tile.pixels.shape[1]) * this.size;
    const place = (value, most) => Math.min(Math.max(Math.floor((value * scale) / side), 0), most - 1);
    return [place(event.clientY - box.top, this.rows), place(event.clientX - box.left, this.columns)];
  }

  press(event) {
    if (!this.tile) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [y, x] = this.at(event);
    this.stroke = 1 - this.cells[y * this.columns + x]; // a stroke that begins on paint removes it
    this.drag(event);
  }

  drag(event) {
    this.cursor = this.at(event);
    this.set(...this.cursor, this.stroke, Number(this.brush.value));
  }

  release() {
    if (this.stroke === null) return;
    this.stroke = null;
    this.commit(toHex(this.cells));
  }

  fill(make) {
    if (!this.tile) return;
    this.cells = this.cells.map((_, i) => make(Math.floor(i / this.columns), i % this.columns));
    this.draw();
    this.commit(toHex(this.cells));
  }

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    let [y, x] = this.cursor;
    if (event.key in moves) {
      y = Math.min(Math.max(y + moves[event.key][0], 0), this.rows - 1);
      x = Math.min(Math.max(x + moves[event.key][1], 0), this.columns - 1);
      this.cursor = [y, x];
      this.draw();
    } else if (event.key === " ") {
      this.set(y, x, 1 - this.cells[y * this.columns + x]);
      this.commit(toHex(this.cells));
    } else return;
    event.preventDefault();
    this.told.textContent = `row ${y + 1}, column ${x + 1}: ${this.cells[y * this.columns + x] ? "drawn anew" : "kept"}`;
  }
}
