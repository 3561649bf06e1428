// Pictures of many small images, each a canvas that is scaled up without smoothing: rows of tiles with names.

import { button, h } from "./controls.js";
import { Picture, save, theme } from "./picture.js";

const hex = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** The pixels of an image (H, W), ink on paper, or (H, W, channels), for a canvas. */
function toImage(pixels) {
  const [height, width, channels = 1] = pixels.shape;
  const image = new ImageData(width, height);
  const { ink, paper } = theme();
  const [from, to] = [hex(paper), hex(ink)];
  for (let i = 0; i < width * height; i++) {
    const gray = pixels[i] / 255;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = channels === 1 ? from[c] + gray * (to[c] - from[c]) : pixels[channels * i + c];
    image.data[4 * i + 3] = channels === 4 ? pixels[4 * i + 3] : 255;
  }
  return image;
}

/** Lines around the pixels where `mask` (H, W) is 1, on a canvas of `scale` pixels for each. */
export function outline(context, mask, scale, colour) {
  const [height, width] = mask.shape;
  const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : mask[y * width + x]);
  context.strokeStyle = colour;
  context.lineWidth = Math.max(1.5, scale / 9);
  context.beginPath();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (at(y, x) !== at(y - 1, x)) context.moveTo(x * scale, y * scale), context.lineTo((x + 1) * scale, y * scale);
      if (at(y, x) !== at(y, x - 1)) context.moveTo(x * scale, y * scale), context.lineTo(x * scale, (y + 1) * scale);
    }
  }
  context.stroke();
}

/** Draw a tile: pixels, with an outline where there is a `mask`, points of a plane, or lines. */
export function paint(canvas, { pixels, kind, mask = null, among = null, least = 0 }) {
  const context = canvas.getContext("2d");
  if (kind === "image") {
    const image = toImage(pixels);
    const scale = mask || least ? Math.max(1, Math.ceil(Math.max(least, 112) / image.width)) : 1;
    [canvas.width, canvas.height] = [image.width * scale, image.height * scale];
    context.putImageData(image, 0, 0);
    if (scale === 1) return scale;
    context.imageSmoothingEnabled = false;
    const small = new OffscreenCanvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (mask) outline(context, mask, scale, theme().palette[1]);
    return scale;
  }
  [canvas.width, canvas.height] = [144, 144];
  (kind === "points" ? paintPoint : paintLines)(context, pixels, among ?? pixels);
  return 1;
}

function paintPoint(context, point, among) {
  const { gray, palette } = theme();
  const reach = 1.15 * among.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  const dot = (x, y, radius, colour) => {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(72 + (72 * x) / reach, 72 - (72 * y) / reach, radius, 0, 7);
    context.fill();
  };
  for (let i = 0; i + 1 < among.length; i += 2) dot(among[i], among[i + 1], 2, gray);
  dot(point[0], point[1], 6, palette[0]);
}

function paintLines(context, lines, among) {
  const { palette } = theme();
  const [channels, length] = lines.shape;
  const low = among.reduce((a, b) => Math.min(a, b), Infinity), high = among.reduce((a, b) => Math.max(a, b), -Infinity);
  for (let c = 0; c < channels; c++) {
    context.strokeStyle = palette[c % palette.length];
    context.lineWidth = 2;
    context.beginPath();
    for (let i = 0; i < length; i++) context.lineTo((144 * (i + 0.5)) / length, 136 - (128 * (lines[c * length + i] - low)) / Math.max(high - low, 1e-9));
    if (length === 1) context.lineTo(144, 136 - (128 * (lines[c] - low)) / Math.max(high - low, 1e-9));
    context.stroke();
  }
}

export class Tiles extends Picture {
  /** `choose(k)`: tiles can be selected, by pointer and by keys; `tile`: pixels of the page along a side. */
  constructor({ choose = null, tile = 88, stop = null, ...options }) {
    super(options);
    this.choose = choose;
    this.plot.className = "tiles-plot";
    this.plot.setAttribute("role", "group");
    this.plot.style.setProperty("--tile", `${tile}px`);
    this.share = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${this.title}` });
    this.bar = h("div", { class: "row bar", hidden: true }, this.share, stop && button("Stop", stop, { class: "small" }));
    this.plot.before(this.bar);
    this.buttons[2].hidden = true; // images have no SVG
  }

  busy(on) {
    super.busy(on);
    if (!on) this.progress(null);
  }

  progress(share) {
    this.bar.hidden = share === null;
    this.share.value = share ?? 0;
  }

  /** Draw rows of tiles, [{head, tiles: [{pixels, kind, label, name, …} | null]}], below `heads`; one row alone is wrapped. */
  async draw({ rows, heads = null, chosen = null, summary = "", ...rest }) {
    const focused = this.plot.contains(document.activeElement);
    const count = Math.max(...rows.map(({ tiles }) => tiles.length));
    const wrapped = rows.length === 1 && !rows[0].head;
    this.plot.style.setProperty("--columns", count);
    this.plot.classList.toggle("wrapped", wrapped);
    this.canvases = [];
    const children = [];
    if (heads) children.push(h("span"), ...heads.map((head) => h("span", { class: "tag" }, head)));
    for (const { head, tiles } of rows) {
      if (!wrapped) children.push(h("span", { class: "head tag" }, head));
      for (let k = 0; k < count; k++) children.push(tiles[k] ? this.tile(tiles[k], k, chosen) : wrapped ? null : h("span"));
    }
    this.plot.replaceChildren(...children.filter(Boolean));
    if (focused) this.plot.querySelector("[tabindex='0']")?.focus();
    Object.assign(this, { columns: null, python: "", command: "", ...rest });
    this.say(summary);
    for (const each of this.buttons) each.disabled = false;
    this.buttons[0].hidden = !this.python;
    this.buttons[3].hidden = !this.columns;
  }

  tile(tile, k, chosen) {
    const canvas = h("canvas", { class: "image" });
    paint(canvas, tile);
    this.canvases.push(canvas);
    const tag = tile.label ? h("span", { class: "tag" }, tile.label) : null;
    if (!this.choose) return h("div", { class: "tile", role: "img", "aria-label": tile.name }, canvas, tag);
    return h("button", { type: "button", class: "tile", "aria-pressed": String(k === chosen), "aria-label": tile.name, tabindex: k === chosen ? 0 : -1, onclick: () => this.choose(k), onkeydown: (event) => this.key(event, k) }, canvas, tag);
  }

  key(event, k) {
    const tiles = [...this.plot.children];
    const across = tiles.filter((each) => each.offsetTop === tiles[0].offsetTop).length;
    const to = { ArrowLeft: k - 1, ArrowRight: k + 1, ArrowUp: k - across, ArrowDown: k + across, Home: 0, End: tiles.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0 || to >= tiles.length) return;
    this.choose(to);
    tiles[to].focus();
  }

  /** Show which tile is selected, without drawing anew. */
  mark(chosen) {
    [...this.plot.children].forEach((tile, k) => {
      tile.setAttribute("aria-pressed", String(k === chosen));
      tile.tabIndex = k === chosen ? 0 : -1;
    });
  }

  /** Show a tile as it is on the way. */
  preview(k, tile) {
    if (this.canvases?.[k]) paint(this.canvases[k], tile);
  }

  async image() {
    const { paper, ink, gray } = theme();
    const box = this.plot.getBoundingClientRect(), scale = 2;
    const canvas = h("canvas", { width: Math.ceil(this.plot.scrollWidth * scale), height: Math.ceil((box.height + 30) * scale) });
    const context = canvas.getContext("2d");
    context.fillStyle = paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    context.fillStyle = ink;
    context.font = "14px system-ui, sans-serif";
    context.fillText(this.title, 4, 18);
    const at = (element) => {
      const own = element.getBoundingClientRect();
      return [own.left - box.left + this.plot.scrollLeft, own.top - box.top + 30, own.width, own.height];
    };
    for (const each of this.plot.querySelectorAll("canvas")) context.drawImage(each, ...at(each));
    context.fillStyle = gray;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const tag of this.plot.querySelectorAll(".tag")) {
      const [left, top, width, height] = at(tag);
      context.textAlign = tag.classList.contains("head") ? "left" : "center";
      context.fillText(tag.textContent, tag.classList.contains("head") ? left : left + width / 2, top + height / 2);
    }
    save(canvas.toDataURL("image/png"), `${this.id}.png`);
  }
}
