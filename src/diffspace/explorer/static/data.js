// The data: modes that are dragged, typed or moved by keys, points that are drawn or read from a CSV file.

import { button, fail, group, h, only, say, slider } from "./controls.js";
import * as state from "./state.js";

const MOST = { modes: 24, points: 500 };

const moons = () =>
  Array.from({ length: 120 }, (_, i) => {
    const a = (Math.PI * (i >> 1)) / 59;
    const [x, y] = i % 2 ? [1 - Math.cos(a), 0.5 - Math.sin(a)] : [Math.cos(a), Math.sin(a)];
    return [round(x - 0.5), round(y - 0.25)];
  });

const spiral = () =>
  Array.from({ length: 160 }, (_, i) => {
    const a = 1.2 + (4.2 * Math.PI * i) / 160;
    return [round(0.1 * a * Math.cos(a)), round(0.1 * a * Math.sin(a))];
  });

/** What one can begin with; the keys are those of the state. */
export const PRESETS = {
  "three modes": { "data.modes": [[0.4, 0.12, -1], [0.25, 0.08, 0.2], [0.35, 0.15, 1.2]], "data.points": [] },
  "two narrow modes": { "data.modes": [[0.5, 0.03, -1], [0.5, 0.03, 1]], "data.points": [] },
  "one wide mode": { "data.modes": [[1, 0.5, 0]], "data.points": [] },
  "narrow and wide": { "data.modes": [[0.5, 0.02, -0.6], [0.5, 0.5, 0.8]], "data.points": [] },
  "eight on a ring (2-D)": { "data.modes": Array.from({ length: 8 }, (_, k) => [1, 0.08, round(Math.cos((k * Math.PI) / 4)), round(Math.sin((k * Math.PI) / 4))]), "data.points": [] },
  "near and far (2-D)": { "data.modes": [[0.4, 0.1, -1, -0.6], [0.3, 0.06, -0.7, -0.3], [0.3, 0.2, 0.9, 0.7]], "data.points": [] },
  "two moons (2-D points)": { "data.points": moons(), "data.width": 0.05 },
  "spiral (2-D points)": { "data.points": spiral(), "data.width": 0.03 },
};

export function round(value) {
  return Number(value.toFixed(4));
}

const dim = () => {
  const points = state.get("data.points");
  return points.length ? points[0].length : state.get("data.modes")[0].length - 2;
};

/** The number of dimensions of the data. */
export { dim };

const WIDTH = 320;
const SVG = "http://www.w3.org/2000/svg";

function s(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

class Pad {
  constructor() {
    this.svg = s("svg", { class: "pad", role: "group", "aria-label": "The data. Drag a mode to move it, its edge to widen it." });
    this.reach = 2;
    this.held = null;
    this.draws = false;
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => this.release());
    state.listen((changed) => {
      if (["data.modes", "data.points", "data.width"].some((key) => changed.has(key))) this.draw();
    });
  }

  get height() {
    return dim() === 2 ? 256 : 150;
  }

  /** Wide enough for all data, and the same while something is dragged. */
  measure() {
    if (this.held) return;
    const points = state.get("data.points");
    const far = points.length ? points.flat().map(Math.abs) : state.get("data.modes").flatMap(([, std, ...x]) => x.map((v) => Math.abs(v) + 2 * std));
    this.reach = Math.max(1.6, 1.15 * Math.max(...far));
  }

  place(x, y) {
    const scale = Math.min(WIDTH, dim() === 2 ? this.height : WIDTH) / 2 / this.reach;
    return [WIDTH / 2 + x * scale, dim() === 2 ? this.height / 2 - y * scale : this.height - 34, scale];
  }

  at(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = this.place(0, 0)[2];
    const px = ((event.clientX - box.left) / box.width) * WIDTH, py = ((event.clientY - box.top) / box.height) * this.height;
    return [(px - WIDTH / 2) / scale, (this.height / 2 - py) / scale];
  }

  draw() {
    this.measure();
    const focused = document.activeElement?.dataset?.mode;
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${this.height}`);
    this.svg.classList.toggle("square", dim() === 2);
    this.svg.classList.toggle("drawing", this.draws);
    this.svg.replaceChildren();
    const [cx, cy] = this.place(0, 0);
    this.svg.append(s("line", { class: "axis", x1: 0, x2: WIDTH, y1: cy, y2: cy }));
    if (dim() === 2) this.svg.append(s("line", { class: "axis", x1: cx, x2: cx, y1: 0, y2: this.height }));
    const points = state.get("data.points");
    for (const point of points) {
      const [x, y] = this.place(point[0], point[1] ?? 0);
      this.svg.append(s("circle", { class: "point", cx: x, cy: y, r: 2 }));
    }
    if (points.length) return;
    const modes = state.get("data.modes");
    if (dim() === 1) this.svg.append(s("path", { d: this.curve(modes), fill: "var(--density0)", stroke: "var(--c0)", "stroke-width": 1 }));
    modes.forEach((mode, k) => this.svg.append(...this.mode(mode, k)));
    if (focused !== undefined) this.svg.querySelector(`[data-mode="${focused}"]`)?.focus();
  }

  curve(modes) {
    const total = modes.reduce((sum, [weight]) => sum + weight, 0);
    const xs = Array.from({ length: 241 }, (_, i) => (i / 120 - 1) * this.reach);
    const p = xs.map((x) => modes.reduce((sum, [w, std, mean]) => sum + ((w / total) * Math.exp(-0.5 * ((x - mean) / std) ** 2)) / std, 0));
    const top = Math.max(...p), base = this.place(0, 0)[1];
    const path = xs.map((x, i) => `${this.place(x, 0)[0].toFixed(1)},${(base - (p[i] / top) ** 0.5 * (base - 12)).toFixed(1)}`);
    return `M0,${base}L${path.join("L")}L${WIDTH},${base}Z`;
  }

  mode([weight, std, ...mean], k) {
    const [x, y, scale] = this.place(mean[0], mean[1] ?? 0);
    const radius = dim() === 2 ? Math.max(2 * std * scale, 7) : 8;
    const reach = Math.max(2 * std * scale, 13);
    const where = mean.map((v) => String(round(v))).join(", ");
    const handle = s("circle", {
      class: "mode", cx: x, cy: y, r: radius, tabindex: 0, role: "slider", "data-mode": k, "aria-valuenow": mean[0], "aria-valuemin": -100, "aria-valuemax": 100,
      "aria-label": `mode ${k + 1} of ${state.get("data.modes").length}`, "aria-valuetext": `at ${where}, width ${round(std)}, weight ${round(weight)}`,
    });
    handle.addEventListener("keydown", (event) => this.key(event, k));
    const grip = s("circle", { class: "grip", cx: x + (dim() === 2 ? radius : reach), cy: y, r: 4, "data-grip": k });
    const bar = dim() === 2 ? [] : [s("line", { x1: x - reach, x2: x + reach, y1: y, y2: y, stroke: "var(--c0)", "stroke-width": 2 })];
    return [...bar, handle, grip];
  }

  change(k, edit) {
    const modes = state.get("data.modes").map((mode) => [...mode]);
    edit(modes[k]);
    modes[k] = modes[k].map((value, i) => round(i === 0 ? Math.min(Math.max(value, 0.01), 100) : i === 1 ? Math.min(Math.max(value, 0.005), 10) : Math.min(Math.max(value, -20), 20)));
    state.set({ "data.modes": modes });
  }

  key(event, k) {
    const step = event.shiftKey ? 0.01 : 0.1;
    const moves = { ArrowLeft: [2, -step], ArrowRight: [2, step], ArrowUp: [3, step], ArrowDown: [3, -step] };
    if (event.key in moves) {
      let [axis, by] = moves[event.key];
      if (axis === 3 && dim() === 1) axis = 2;
      this.change(k, (mode) => (mode[axis] += by));
    } else if (event.key === "+" || event.key === "=") this.change(k, (mode) => (mode[1] *= 1.15));
    else if (event.key === "-") this.change(k, (mode) => (mode[1] /= 1.15));
    else if (event.key === "Delete" || event.key === "Backspace") removeMode(k);
    else return;
    event.preventDefault();
  }

  press(event) {
    const { mode, grip } = event.target.dataset;
    if (this.draws) this.held = { draw: true };
    else if (grip !== undefined) this.held = { grip: Number(grip) };
    else if (mode !== undefined) this.held = { mode: Number(mode) };
    else return;
    this.svg.setPointerCapture(event.pointerId);
    event.preventDefault();
    if (mode !== undefined) event.target.focus();
    this.move(event);
  }

  move(event) {
    if (!this.held) return;
    const [x, y] = this.at(event);
    const { mode, grip, draw } = this.held;
    if (draw) this.add(x, y);
    else if (mode !== undefined) {
      this.change(mode, (row) => {
        row[2] = x;
        if (dim() === 2) row[3] = y;
      });
    } else {
      const [, , cx, cy = 0] = state.get("data.modes")[grip];
      this.change(grip, (row) => (row[1] = (dim() === 2 ? Math.hypot(x - cx, y - cy) : Math.abs(x - cx)) / 2));
    }
  }

  add(x, y) {
    const points = state.get("data.points");
    const last = points.at(-1);
    if (last && Math.hypot(x - last[0], y - last[1]) < 0.03 * this.reach) return;
    if (points.length >= MOST.points) return say(`${MOST.points} points are the most.`);
    state.set({ "data.points": [...points, [round(x), round(y)]] });
  }

  release() {
    this.held = null;
    this.draw();
  }
}

function removeMode(k) {
  const modes = state.get("data.modes");
  if (modes.length === 1) return say("One mode has to stay.");
  state.set({ "data.modes": modes.filter((_, i) => i !== k) });
}

function addMode() {
  const modes = state.get("data.modes");
  if (modes.length >= MOST.modes) return say(`${MOST.modes} modes are the most.`);
  const place = modes[0].slice(2).map((_, axis) => round(0.8 * Math.sin(2.4 * modes.length + axis)));
  state.set({ "data.modes": [...modes, [modes[0][0], 0.1, ...place]] });
}

/** Points of a CSV text: rows of one or two numbers, a first line of names is allowed. Throws what is wrong, with its line. */
export function parseCSV(text) {
  const points = [];
  let width = 0;
  const lines = text.split(/\r?\n/);
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i].trim();
    if (!line || line.startsWith("#")) continue;
    const words = line.split(/[,;\t ]+/).filter((word) => word !== "");
    const row = words.map(Number);
    if (!row.every(Number.isFinite)) {
      if (!points.length && words.every((word) => !Number.isFinite(Number(word)))) continue; // names
      throw new Error(`line ${i + 1}: expected numbers, got “${line.slice(0, 40)}”`);
    }
    width ||= row.length;
    if (row.length !== width || width > 2) throw new Error(`line ${i + 1}: expected ${width > 2 ? "one or two" : width} numbers, got ${row.length}`);
    if (row.some((value) => Math.abs(value) > 100)) throw new Error(`line ${i + 1}: expected numbers from −100 to 100; divide the data by their standard deviation`);
    points.push(row.map(round));
  }
  if (!points.length) throw new Error("no line has a number");
  return points;
}

function csvBox() {
  const box = h("textarea", { rows: 4, spellcheck: "false", placeholder: "0.1, 0.2\n−0.4, 0.9\n…", "aria-label": "Points as CSV" });
  const wrong = h("span", { class: "wrong", hidden: true });
  const take = (text) => {
    try {
      let points = parseCSV(text.replaceAll("−", "-"));
      const count = points.length;
      if (count > MOST.points) points = points.filter((_, i) => Math.floor((i * MOST.points) / count) !== Math.floor(((i - 1) * MOST.points) / count));
      state.set({ "data.points": points });
      fail(box, "");
      say(count > points.length ? `${points.length} of the ${count} points, evenly spread over the file, are used.` : `${count} points.`);
    } catch (error) {
      fail(box, error.message);
    }
  };
  const file = h("input", { type: "file", accept: ".csv,.txt,.tsv", "aria-label": "A CSV file of points" });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > 2 ** 20) return fail(box, `${chosen.name}: expected at most 1 MB, got ${(chosen.size / 2 ** 20).toFixed(1)} MB`);
    take(await chosen.text());
  });
  return h("details", {}, h("summary", {}, "Points from a CSV file"), h("div", { class: "control wide", "data-key": "data.points" }, box, wrong, h("div", { class: "row" }, button("Use these", () => take(box.value), { class: "small" }), file)));
}

function numbers() {
  const body = h("tbody");
  const head = h("thead");
  const show = () => {
    if (state.get("data.points").length) return;
    const modes = state.get("data.modes");
    const names = ["weight", "width", ...(dim() === 2 ? ["x", "y"] : ["x"])];
    const focus = document.activeElement?.getAttribute?.("aria-label");
    head.replaceChildren(h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)), h("th", {}, h("span", { class: "help" }, ""))));
    body.replaceChildren(
      ...modes.map((mode, k) =>
        h("tr", {}, mode.map((value, i) => h("td", {}, h("input", { type: "number", step: "any", value, "aria-label": `${names[i]} of mode ${k + 1}`, onchange: (event) => edit(k, i, event.target) }))), h("td", {}, button("×", () => removeMode(k), { class: "small", "aria-label": `Remove mode ${k + 1}` }))),
      ),
    );
    if (focus) body.querySelector(`[aria-label="${focus}"]`)?.focus();
  };
  const edit = (k, i, input) => {
    const value = Number(input.value);
    const [low, high] = i === 0 ? [0.0001, 10000] : i === 1 ? [0.001, 10] : [-100, 100];
    if (input.value.trim() === "" || !(value >= low && value <= high)) {
      input.setAttribute("aria-invalid", "true");
      return say(`Expected a number from ${low} to ${high}, got ${input.value || "nothing"}.`);
    }
    state.set({ "data.modes": state.get("data.modes").map((mode, n) => (n === k ? mode.map((old, j) => (j === i ? value : old)) : mode)) });
  };
  state.listen((changed) => (changed.has("data.modes") || changed.has("data.points")) && show());
  show();
  return h("details", {}, h("summary", {}, "Modes as numbers"), h("table", { class: "numbers" }, head, body));
}

/** The controls of the data, which all rooms of exact denoisers share. */
export function dataControls() {
  const pad = new Pad();
  const preset = h("select", { "aria-label": "Data to begin with" }, h("option", { value: "" }, "choose data …"), Object.keys(PRESETS).map((name) => h("option", { value: name }, name)));
  preset.addEventListener("change", () => {
    if (preset.value) state.set(PRESETS[preset.value]);
    preset.value = "";
  });
  const draw = button("Draw points", () => {
    pad.draws = !pad.draws;
    draw.setAttribute("aria-pressed", String(pad.draws));
    if (pad.draws) {
      // of other data only what is drawn in the plane is kept, and a single point is too little to begin with
      if (!state.get("data.points").length || dim() !== 2) state.set({ "data.points": [[0, 0]], "data.width": 0.05 });
      say("Draw in the square with the pointer.");
    }
    pad.draw();
  }, { class: "small", "aria-pressed": "false" });
  const hasPoints = () => state.get("data.points").length > 0;
  const count = h("span", { class: "help" });
  const tell = () => (count.textContent = hasPoints() ? `${state.get("data.points").length} points, each a narrow mode` : "Drag modes; arrow keys, + and − work too.");
  state.listen(tell);
  tell();
  pad.draw();
  return group(
    "Data",
    preset,
    pad.svg,
    count,
    h("div", { class: "row" }, only(() => !hasPoints(), button("Add a mode", addMode, { class: "small" })), draw, only(hasPoints, button("Back to modes", () => state.set({ "data.points": [] }), { class: "small" }))),
    only(hasPoints, slider("data.width", "width of each point", { min: 0.005, max: 0.5, log: true, least: 0.001, most: 10 })),
    only(() => !hasPoints(), numbers()),
    csvBox(),
  );
}

/** The data as the server takes them. */
export const dataSettings = () => ({ modes: state.get("data.modes"), points: state.get("data.points"), width: state.get("data.width") });

state.declare({ "data.modes": PRESETS["three modes"]["data.modes"], "data.points": [], "data.width": 0.03 });
