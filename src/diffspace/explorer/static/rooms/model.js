// Room 4: samples of trained models, and four views of one of them: its way, solvers, interpolation, painting.

import { row, rows, stream } from "../api.js";
import { button, group, h, only, refresh, select, slider } from "../controls.js";
import { Mask } from "../mask.js";
import { Picture, axis, theme } from "../picture.js";
import { Room, Study, fixed } from "../room.js";
import * as state from "../state.js";
import { Tiles } from "../tiles.js";

const LEAST = 0.001, MOST = 1000; // σ between which samples are guided by default: everywhere

state.declare({
  "m.model": "", "m.label": "in turn", "m.guidance": 1, "m.low": LEAST, "m.high": MOST, "m.method": "heun", "m.num_steps": 18, "m.rho": 7, "m.churn": 0, "m.seed": 0, "m.count": 16, "m.chosen": 0,
  "m.view": "way", "m.begin": 0, "m.end": 1, "m.mask": "", "m.image": "sample", "m.number": 0, "m.resamplings": 4,
});

const VIEWS = [["way", "How it comes about"], ["solvers", "Solvers"], ["between", "Between two seeds"], ["paint", "Paint anew"]];
const GRID = /^(room|m\.(model|label|guidance|low|high|method|num_steps|rho|churn|seed|count))$/;
const OWN = { way: /^m\.chosen$/, solvers: /^m\.chosen$/, between: /^m\.(chosen|begin|end)$/, paint: /^m\.(chosen|mask|image|number|resamplings)$/ };

let models = [], methods = []; // what the server says of each, and the solvers: [word, label, whether it can churn]

const current = () => models.find(({ name }) => name === state.get("m.model")) ?? models[0];
const is = (test) => () => test(current());
const guided = () => current().guidance && state.get("m.label") !== "none";
const fitted = () => state.get("m.method").startsWith("fitted ");
const churns = () => methods.some(([word, , can]) => word === state.get("m.method") && can);
const views = () => VIEWS.filter(([name]) => name !== "paint" || current().paintable).map(([name]) => name);
const viewed = () => (views().includes(state.get("m.view")) ? state.get("m.view") : "way");
const view = (name) => () => viewed() === name;
const chosen = () => Math.min(state.get("m.chosen"), state.get("m.count") - 1);

/** The settings that all pictures share; what the model cannot do, or what is hidden, is left at its default. */
function drawing() {
  const { model, label, guidance, low, high, method, num_steps, rho, churn, seed, count } = state.part("m.");
  const weight = guided() ? guidance : 1;
  const guide = weight === 1 ? { guidance: 1 } : { guidance: weight, low, high };
  return { model, label: current().classes.length ? label : "in turn", ...guide, method, num_steps, rho, churn: churns() ? churn : 0, seed, count };
}

const className = (label) => current().classes.find(([key]) => Number(key) === label)?.[1] ?? `#${label}`;
const named = (n, k) => `seed ${n.seeds[k]}${n.labels ? `, class ${className(n.labels[k])}` : ""}`;
const tileOf = (array, k, kind, more = {}) => ({ pixels: row(array, k), kind, among: kind === "image" ? null : array, ...more });

export function modelRoom(about) {
  ({ models, methods } = about);
  const grid = new Tiles({ id: "samples", title: "Samples", choose: (k) => state.set({ "m.chosen": k }), tile: 84, stop: () => room.stop() });
  const scatter = new Picture({ id: "sample-points", title: "Samples in the plane", height: "24rem" });
  const studies = { way: wayStudy(), solvers: solverStudy(), between: betweenStudy(), paint: paintStudy() };
  const tabs = VIEWS.map(([name, title]) => button(title, () => state.set({ "m.view": name }, { step: true }), { "data-view": name }));
  const panes = Object.entries(studies).map(([name, { element }]) => only(view(name), element));
  const side = h("section", { class: "studies", "aria-label": "The selected sample" }, h("div", { class: "row", role: "group", "aria-label": "Views of the selected sample" }, tabs), panes);
  const room = new Room({
    id: "model",
    title: "Model",
    intro: "A trained model is a denoiser <math><mi>D</mi><mo>(</mo><mi>x</mi><mo>;</mo><mi>σ</mi><mo>)</mo></math>. Everything else is chosen when one samples: the solver, its steps, churn, guidance. Select a sample to see how it comes about.",
    controls: controls(),
    pictures: [grid, scatter],
  });
  scatter.element.hidden = true;
  room.area.append(side);
  fill(room);
  state.listen((changed) => {
    if (changed.has("m.model")) fill(room);
    if (changed.has("m.count")) refresh("m.chosen");
  });
  room.studies = studies;
  const study = () => studies[viewed()].study;
  let [pending, own] = [false, false];
  Object.defineProperty(room, "drawn", { get: () => own && !pending && study().drawn === true, set: (value) => (own = value) });

  room.affects = (changed) => [...changed].some((key) => GRID.test(key));
  room.also = (changed) => {
    if (!room.numbers) return;
    if (changed.has("m.chosen")) mark(grid, scatter, room.numbers);
    if (changed.has("m.view")) showTabs();
    if (changed.has("m.view") || [...changed].some((key) => OWN[viewed()].test(key))) askStudy();
  };
  const showTabs = () => tabs.forEach((tab) => {
    tab.setAttribute("aria-pressed", String(tab.dataset.view === viewed()));
    tab.hidden = !views().includes(tab.dataset.view);
  });
  const askStudy = () => {
    for (const { study: each } of Object.values(studies)) if (each !== study()) each.stop();
    study().update();
  };
  for (const each of Object.values(studies)) each.study.panel = document.getElementById("room"); // their controls are in both halves
  showTabs();

  room.ask = async (signal) => {
    for (const each of Object.values(studies)) each.study.stop();
    pending = true;
    const settings = drawing(), { kind } = current();
    return stream("model-samples", "model-samples", settings, ({ first, tiles, share }) => {
      if (kind === "points") return;
      if (grid.canvases?.length !== settings.count) drawBlank(grid, settings, row(tiles, 0), kind);
      grid.progress(share);
      rows(tiles).forEach((pixels, k) => grid.preview(first + k, { pixels, kind, among: kind === "image" ? null : tiles }));
    }, signal);
  };
  room.draw = async (n) => {
    const flat = n.kind === "points";
    grid.element.hidden = flat;
    scatter.element.hidden = !flat;
    await (flat ? drawScatter(scatter, n) : drawGrid(grid, n));
    showTabs();
    if (pending) askStudy();
    else for (const { study: each } of Object.values(studies)) if (each.numbers) await each.draw(each.numbers);
    pending = false;
  };
  return room;
}

/** What guidance adds to the evaluations, for the summary. */
function guidance() {
  const { guidance: weight = 1, low, high } = drawing();
  if (weight === 1) return "";
  return low === LEAST && high === MOST ? ", each with guidance of two" : `, with guidance of two where ${fixed(low)} < σ ≤ ${fixed(high)}`;
}

const summary = (n) => `${n.num_steps} steps from σ = ${fixed(n.sigmas[0])} to ${fixed(n.sigmas[n.num_steps - 1])} and 0: ${n.nfe} evaluations of the denoiser${guidance()}. Selected: ${named(n, chosen())}.`;

async function drawGrid(grid, n) {
  const tiles = n.seeds.map((seed, k) => tileOf(n.tiles, k, n.kind, { name: named(n, k), label: n.labels ? className(n.labels[k]) : null }));
  const columns = { seed: n.seeds, ...(n.labels ? { class: n.labels.map(className) } : {}) };
  await grid.draw({ rows: [{ tiles }], chosen: chosen(), summary: summary(n), python: n.python, command: n.command, columns });
}

/** Empty places for images that are on the way. */
function drawBlank(grid, { seed, count }, like, kind) {
  const pixels = Object.assign(like.slice().fill(0), { shape: like.shape });
  grid.element.hidden = false;
  grid.draw({ rows: [{ tiles: Array.from({ length: count }, (_, k) => ({ pixels, kind, name: `seed ${seed + k}` })) }], chosen: chosen() });
}

function mark(grid, scatter, n) {
  if (n.kind === "points") return drawScatter(scatter, n);
  grid.mark(chosen());
  return grid.say(summary(n));
}

async function drawScatter(scatter, n) {
  const { palette } = theme();
  const points = rows(n.tiles), k = chosen();
  const [x, y] = [0, 1].map((at) => points.map((point) => point[at]));
  const colours = n.labels ? n.labels.map((label) => palette[label % palette.length]) : palette[0];
  const traces = [
    { type: "scatter", mode: "markers", x, y, text: n.seeds.map((_, i) => named(n, i)), marker: { color: colours, size: 6, opacity: 0.75 }, hovertemplate: "%{text}<br>(%{x:.3g}, %{y:.3g})<extra></extra>" },
    { type: "scatter", mode: "markers", x: [x[k]], y: [y[k]], marker: { color: "rgba(0,0,0,0)", size: 16, line: { color: palette[1], width: 2.5 } }, hoverinfo: "skip" },
  ];
  const layout = { xaxis: axis("x", { constrain: "domain" }), yaxis: axis("y", { scaleanchor: "x" }) };
  await scatter.draw({ traces, layout, summary: summary(n), columns: { seed: n.seeds, ...(n.labels ? { class: n.labels.map(className) } : {}), x, y }, python: n.python, command: n.command });
  if (!scatter.listens) scatter.plot.on("plotly_click", ({ points: [point] }) => point.curveNumber === 0 && state.set({ "m.chosen": point.pointNumber }));
  scatter.listens = true;
}

// --- controls ---------------------------------------------------------------------------------------------------

const number = (key, label, max, options = {}) => slider(key, label, { min: 0, max, integer: true, most: 2 ** 32 - 1, ...options });

const edge = (key, label, options = {}) => slider(key, label, { min: LEAST, max: MOST, log: true, ...options });

function controls() {
  const model = select("m.model", "model", []);
  model.querySelector("select").addEventListener("change", () => {
    // what another model may not have
    state.set({ "m.label": "in turn", "m.mask": "", "m.image": "sample", "m.number": 0, ...(fitted() ? { "m.method": "heun" } : {}) });
  });
  const other = button("Other seeds", () => state.set({ "m.seed": (state.get("m.seed") + state.get("m.count")) % (2 ** 32 - 1000) }), { class: "small" });
  return [
    group("Model", model, h("p", { class: "help", id: "m-about" })),
    group("Samples",
      only(is(({ classes }) => classes.length > 0), select("m.label", "class", [["in turn", "each in turn"]])),
      only(guided, slider("m.guidance", "guidance weight <i>w</i>", { min: -1, max: 8, least: -5, most: 20, help: "1: none; 0: as without a class; more: further from it" })),
      only(() => guided() && state.get("m.guidance") !== 1, h("div", {}, edge("m.low", "guided where σ is above"), edge("m.high", "and at most", { help: `${LEAST} and ${MOST}: everywhere` }))),
      number("m.seed", "first seed", 100), h("div", { class: "row" }, other),
      slider("m.count", "samples", { min: 1, max: 36, integer: true, most: 1000 }),
      number("m.chosen", "selected sample, by number", 35, { most: 999, last: () => state.get("m.count") - 1 })),
    group("Sampler", select("m.method", "solver", methods),
      only(() => !fitted(), slider("m.num_steps", "steps <i>N</i>", { min: 1, max: 60, integer: true, most: 200 })),
      only(() => !fitted(), slider("m.rho", "ρ", { min: 1, max: 20, least: 0.2, most: 100 })),
      only(churns, slider("m.churn", "churn <i>S</i><sub>churn</sub>", { min: 0, max: 80, most: 1000, help: "in the samples and the way of one; the other views follow the ODE" }))),
  ];
}

const GET_ONE = `No model was given, so this is the exact denoiser of the 1797 digits that come with diffspace: each sample is one of them. For a model of your own: <code>diffspace train digits network.label_dropout=0.1</code>, about two minutes, and then <code>diffspace explore runs/digits</code>.`;

/** Put what the models can do into the controls. */
function fill({ elements }) {
  const { shape, classes, guidance, samplers, data, exact } = current();
  const find = (selector) => elements.map((element) => element.querySelector(selector)).find(Boolean);
  const put = (key, choices) => {
    const input = find(`[data-key="${key}"] select`);
    input.replaceChildren(...choices.map(([value, text]) => h("option", { value }, text)));
    input.value = state.get(key);
  };
  put("m.model", models.map(({ name }, k) => [k ? name : "", name]));
  put("m.label", [["in turn", "each in turn"], ...(guidance ? [["none", "none"]] : []), ...classes]);
  put("m.method", [...methods, ...samplers.map((name) => [`fitted ${name}`, `${name}, found for this model`])]);
  put("m.image", [["sample", "the selected sample"], ...data.map((name) => [name, `${name} of the data`])]);
  const can = classes.length ? `${classes.length} classes, ${guidance ? "with guidance" : "no guidance: it was trained without <code>label_dropout</code>"}` : "without classes";
  find("#m-about").innerHTML = exact ? GET_ONE : `Samples of ${shape.join(" × ")} numbers, ${can}.`;
  find('[data-key="m.model"]').hidden = exact;
}

// --- the views of the selected sample -----------------------------------------------------------------------------

/** A study with its figures; `settings()` beyond those that all share, and what to do with events on the way. */
function makeStudy({ name, pictures, settings = () => ({}), on = () => {}, draw }) {
  const study = new Study({
    pictures,
    ask: async (signal) => {
      const tell = (event) => {
        if ("share" in event) pictures[0].progress(event.share);
        on(event);
      };
      return stream(`model-${name}`, `model-${name}`, { ...drawing(), chosen: chosen(), ...settings() }, tell, signal);
    },
    draw,
  });
  return study;
}

function wayStudy() {
  const strip = new Tiles({ id: "way", title: "x and D(x; σ) on the way to the sample", tile: 72, stop: () => study.stop() });
  const draw = async (n) => {
    const sigmas = Array.from(n.sigma), last = sigmas.length - 1;
    const line = (array, what) => sigmas.map((sigma, k) => tileOf(array, k, n.kind, { name: `${what} at σ = ${fixed(sigma)}` }));
    const near = Array.from(n.distance).findIndex((distance, k) => k === last || n.distance.slice(k).every((value) => value <= 0.2 * n.distance[0]));
    const text = `Seed ${n.seed}: from σ = ${fixed(sigmas[near], 2)} on, D differs from the sample by less than a fifth of what it did at first (RMS ${fixed(n.distance[0], 2)}). x is shown divided by √(1 + σ²/σ_data²).`;
    await strip.draw({ heads: sigmas.map((sigma) => (sigma ? fixed(sigma, 2) : "0")), rows: [{ head: "x", tiles: line(n.x, "x") }, { head: "D", tiles: line(n.denoised, "D") }], summary: text, columns: { sigma: n.sigma, distance: n.distance }, python: n.python });
  };
  const study = makeStudy({ name: "way", pictures: [strip], draw });
  return { study, element: h("div", {}, strip.element) };
}

function solverStudy() {
  const tiles = new Tiles({ id: "solvers", title: "The selected sample by several solvers", tile: 76, stop: () => study.stop() });
  const plot = new Picture({ id: "solver-errors", title: "Distance from the exact solution over evaluations", height: "18rem" });
  let coming = null;
  const draw = async (n) => {
    const names = [...new Set(n.rows.map(({ name }) => name))];
    const cell = (name, budget) => {
      const found = n.rows.find((each) => each.name === name && each.budget === budget);
      return found ? tileOf(found.tile, 0, n.kind, { label: String(found.nfe), name: `${name}, ${found.nfe} evaluations` }) : null;
    };
    const exact = tileOf(n.reference, 0, n.kind, { label: "exact", name: "the exact solution" });
    await tiles.draw({ heads: [...n.budgets.map((budget) => `≤ ${budget}`), ""], rows: names.map((name, k) => ({ head: name, tiles: [...n.budgets.map((budget) => cell(name, budget)), k ? null : exact] })), summary: "Below each image the evaluations that it took.", python: n.python });
    await drawErrors(plot, n, names);
  };
  const on = (event) => {
    if (!coming && !tiles.python) tiles.say("The exact solution, in many small steps, comes first …");
    if (event.reference) coming = { kind: current().kind, budgets: [4, 6, 8, 10, 18, 35], rows: [], ...event };
    if (!event.row || !coming) return;
    coming.rows.push(event.row);
    if (coming.rows.length % 3 === 0) draw(coming);
  };
  const study = makeStudy({ name: "solvers", pictures: [tiles, plot], on, draw });
  return { study, element: h("div", {}, tiles.element, plot.element) };
}

async function drawErrors(plot, n, names) {
  const { palette } = theme();
  const traces = names.map((name, k) => {
    const own = n.rows.filter((each) => each.name === name);
    return { type: "scatter", mode: "lines+markers", name, x: own.map(({ nfe }) => nfe), y: own.map(({ rms }) => (rms > 0 ? rms : null)), line: { color: palette[k % palette.length], width: 2, dash: ["solid", "dash", "dot", "dashdot"][Math.floor(k / palette.length) % 4] }, marker: { size: 7, symbol: k }, hovertemplate: `${name}: %{y:.3g} after %{x}<extra></extra>` };
  });
  const ten = n.rows.filter(({ nfe }) => nfe <= 10), best = ten.reduce((a, b) => (b.rms < a.rms || (b.rms === a.rms && b.nfe < a.nfe) ? b : a), ten[0]);
  const exact = n.rows.some(({ rms }) => rms === 0) ? " Where a line ends, the solver has met the exact end to the last bit: the data are points." : "";
  const text = best ? `${n.python ? "With" : "So far, with"} at most 10 evaluations ${best.name} is nearest, ${best.rms ? fixed(best.rms, 2) : `exact after ${best.nfe}`} (RMS${n.seeds ? ` of ${n.seeds.length} seeds; their standard deviation is ${fixed(n.scale, 2)}` : ""}).${exact}` : "";
  const layout = { showlegend: true, xaxis: axis("evaluations of the denoiser (NFE)", { type: "log", tickvals: [3, 4, 6, 8, 10, 18, 35], ticktext: ["3", "4", "6", "8", "10", "18", "35"] }), yaxis: axis("RMS distance", { type: "log", exponentformat: "power", tickformat: ".2~g" }), uirevision: "errors" };
  const columns = { solver: n.rows.map(({ name }) => name), nfe: n.rows.map(({ nfe }) => nfe), steps: n.rows.map(({ steps }) => steps), rms: n.rows.map(({ rms }) => rms) };
  await plot.draw({ traces, layout, summary: text, columns, python: n.python ?? "" });
}

function betweenStudy() {
  const strip = new Tiles({ id: "between", title: "Between two seeds", tile: 88, stop: () => study.stop() });
  const draw = async (n) => {
    const count = n.tiles.shape[0], { begin, end } = state.part("m.");
    const tiles = Array.from({ length: count }, (_, k) => tileOf(n.tiles, k, n.kind, { label: k === 0 ? `seed ${begin}` : k === count - 1 ? `seed ${end}` : fixed(k / (count - 1), 2), name: `${k} of ${count - 1} parts of the way from seed ${begin} to seed ${end}` }));
    const most = Array.from(n.moved).indexOf(Math.max(...n.moved));
    const text = `The latents turn by equal angles; the image changes most between ${fixed(most / (count - 1), 2)} and ${fixed((most + 1) / (count - 1), 2)} of the way (RMS ${fixed(n.moved[most], 2)})${n.labels ? `, all of class ${className(n.labels[0])}` : ""}.`;
    await strip.draw({ rows: [{ tiles }], summary: text, columns: { from: Array.from(n.moved, (_, k) => k / (count - 1)), moved: n.moved }, python: n.python });
  };
  const study = makeStudy({ name: "between", pictures: [strip], settings: () => ({ begin: state.get("m.begin"), end: state.get("m.end") }), draw });
  const ends = h("div", { class: "ends" }, number("m.begin", "from the seed", 100), number("m.end", "to the seed", 100));
  return { study, element: h("div", {}, ends, strip.element) };
}

function paintStudy() {
  const tiles = new Tiles({ id: "paint", title: "The painted part, drawn anew from several seeds", tile: 104, stop: () => study.stop() });
  const mask = new Mask((text) => state.set({ "m.mask": text }));
  const show = (n) => mask.show(tileOf(n.known, 0, n.kind), n.cells, n.size);
  const draw = async (n) => {
    show(n);
    const shown = n.seeds.map((seed, k) => tileOf(n.tiles, k, n.kind, { mask: n.anew, label: `seed ${seed}`, name: `filled from seed ${seed}` }));
    const share = n.anew.reduce((sum, value) => sum + value, 0) / n.anew.length;
    await tiles.draw({ rows: [{ tiles: shown }], summary: `${fixed(100 * share, 3)} % of the image is drawn anew, inside the line; the rest is kept. ${n.nfe} evaluations for each.`, python: n.python });
  };
  const settings = () => {
    const { mask: text, image, number, resamplings } = state.part("m.");
    return { mask: text, image, number: image === "sample" ? 0 : number, resamplings };
  };
  const study = makeStudy({ name: "paint", pictures: [tiles], settings, on: (event) => event.known && show(event), draw });
  const options = [
    only(is(({ data }) => data.length > 0), select("m.image", "image", [["sample", "the selected sample"]])),
    only(() => state.get("m.image") !== "sample", number("m.number", "its number", 100)),
    slider("m.resamplings", "times that each step is drawn", { min: 1, max: 20, integer: true, help: "more agree better with what is kept, and take longer" }),
  ];
  const painter = h("section", { class: "painting", "aria-label": "The image and its mask" }, mask.element, options);
  return { study, element: h("div", { class: "paint-pane" }, painter, tiles.element) };
}
