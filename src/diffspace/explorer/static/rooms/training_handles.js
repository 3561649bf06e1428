// Handles over the curve of p_train: its middle is P_mean, its edges are at P_std from it.

import * as state from "../state.js";

const SVG = "http://www.w3.org/2000/svg";
const round = (value) => Number(value.toFixed(3));
const clip = (value, low, high) => Math.min(Math.max(value, low), high);

function s(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export class Handles {
  constructor(picture, room) {
    this.room = room;
    this.plot = picture.plot;
    this.svg = s("svg", { class: "handles" });
    this.parts = {};
    const label = { mean: "P_mean: the middle of the noise levels of the training, ln σ", low: "P_std, by its lower edge", high: "P_std, by its upper edge" };
    for (const name of ["mean", "low", "high"]) {
      const line = s("line", {}), knob = s("circle", { r: 7, tabindex: 0, role: "slider", "aria-label": label[name], "data-handle": name });
      const area = s("rect", { class: "area" });
      for (const part of [area, knob]) part.addEventListener("pointerdown", (event) => this.press(event, name));
      knob.addEventListener("keydown", (event) => this.key(event, name));
      this.parts[name] = { line, knob, area };
    }
    this.svg.append(...["mean", "low", "high"].flatMap((name) => [this.parts[name].area, this.parts[name].line]), ...["mean", "low", "high"].map((name) => this.parts[name].knob));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => (this.held = null));
    picture.element.append(this.svg);
    new ResizeObserver(() => requestAnimationFrame(() => this.place())).observe(this.plot);
    state.listen((changed) => (changed.has("t.P_mean") || changed.has("t.P_std")) && this.place());
  }

  /** (P_mean, P_std) as shown: what the state says, or what EDM's are for the data. */
  get values() {
    if (state.get("t.draws") === "lognormal") return [state.get("t.P_mean"), state.get("t.P_std")];
    const n = this.room.numbers;
    return n && n.P_mean !== null ? [n.P_mean, n.P_std] : null;
  }

  set(mean, std) {
    state.set({ "t.draws": "lognormal", "t.P_mean": round(clip(mean, -12, 12)), "t.P_std": round(clip(std, 0.05, 5)) });
  }

  place() {
    const layout = this.plot._fullLayout, values = this.values;
    this.svg.style.display = layout?.yaxis2 && values ? "" : "none";
    if (!layout?.yaxis2 || !values) return;
    const { xaxis, yaxis2 } = layout;
    const top = yaxis2._offset, height = yaxis2._length;
    Object.assign(this.svg.style, { left: `${this.plot.offsetLeft + xaxis._offset}px`, top: `${this.plot.offsetTop + top}px`, width: `${xaxis._length}px`, height: `${height}px` });
    const [mean, std] = values;
    const at = { mean, low: mean - std, high: mean + std };
    for (const [name, { line, knob, area }] of Object.entries(this.parts)) {
      const x = clip(xaxis.l2p(at[name]), 0, xaxis._length);
      for (const [key, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: height })) line.setAttribute(key, value);
      knob.setAttribute("cx", x);
      knob.setAttribute("cy", name === "mean" ? height / 3 : (2 * height) / 3);
      const wide = name === "mean" ? Math.max(xaxis.l2p(at.high) - xaxis.l2p(at.low) - 20, 8) : 20;
      for (const [key, value] of Object.entries({ x: x - wide / 2, y: 0, width: wide, height })) area.setAttribute(key, value);
      const shown = name === "mean" ? mean : std;
      for (const [key, value] of Object.entries({ now: round(shown), min: name === "mean" ? -12 : 0.05, max: name === "mean" ? 12 : 5 })) knob.setAttribute(`aria-value${key}`, value);
      knob.setAttribute("aria-valuetext", name === "mean" ? `${round(mean)}: most at σ = ${Number(Math.exp(mean).toPrecision(3))}` : `${round(std)}`);
    }
  }

  press(event, name) {
    const values = this.values;
    if (!values) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    this.parts[name].knob.focus();
    this.held = { name, from: this.at(event), mean: values[0], std: values[1] };
  }

  /** ln σ under the pointer. */
  at(event) {
    return this.plot._fullLayout.xaxis.p2l(event.clientX - this.svg.getBoundingClientRect().left);
  }

  move(event) {
    if (!this.held) return;
    const { name, from, mean, std } = this.held;
    const by = this.at(event) - from;
    if (name === "mean") this.set(mean + by, std);
    else this.set(mean, name === "high" ? std + by : std - by);
  }

  key(event, name) {
    const sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    const values = this.values;
    if (!sign || !values) return;
    event.preventDefault();
    const by = sign * (event.shiftKey ? 0.01 : 0.1);
    const [mean, std] = values;
    if (name === "mean") this.set(mean + by, std);
    else this.set(mean, name === "low" && event.key.match(/Left|Right/) ? std - by : std + by);
  }
}
