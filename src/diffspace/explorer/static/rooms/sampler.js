// Room 2: steps, solver and noise; trajectories beside the exact flow, end points over the data, error over evaluations.

import { picture, rows, stream } from "../api.js";
import { button, check, group, h, only, refresh, select, slider, text } from "../controls.js";
import { dataControls, dataSettings } from "../data.js";
import { Picture, axis, lines, theme } from "../picture.js";
import { Room, fixed } from "../room.js";
import * as state from "../state.js";
import { processControls, processSettings } from "./process.js";

const CHOICE = { solver: "heun", alpha: 1, eta: 1, beta: "", steps: "edm", num_steps: 18, rho: 7, S_churn: 0, S_tmin: 0, S_tmax: 1000, S_noise: 1 };
const OTHER = { ...CHOICE, solver: "euler", num_steps: 35 };
const prefixed = (prefix, values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [`${prefix}.${name}`, value]));

state.declare({ ...prefixed("a", CHOICE), ...prefixed("b", OTHER), compare: false, sigma_min: 0.002, "sampler.sigma_max": 80, shrink: 0, shift: 0, tracks: 12, step: 200, view: "data" });

const STEPS = [["edm", "EDM, with ρ"], ["loglinear", "equal ratios (log-linear)"], ["time", "equal steps in the time t"]];

function choiceControls(name, solvers) {
  const is = (...words) => words.includes(state.get(`${name}.solver`));
  const deterministic = () => !is("sde", "sde:stages=2", "euler-ancestral", "dpmpp2m-sde", "fitted");
  const oneStep = () => is("euler", "heun", "rk4", "dpm2", "dpm3", "dpmpp2s");
  const key = (option) => `${name}.${option}`;
  return [
    select(key("solver"), "solver", Object.entries(solvers)),
    only(() => is("heun"), slider(key("alpha"), "α (1: Heun, ½: midpoint, ⅔: Ralston)", { min: 0.1, max: 1 })),
    only(() => is("sde", "sde:stages=2"), slider(key("eta"), "β in units of σ̇/σ (0: ODE, 1: Song’s SDE)", { min: 0, max: 4, most: 10 })),
    only(() => is("sde", "sde:stages=2"), text(key("beta"), "or β(t) as a formula", { help: "such as 1/t; it replaces the slider’s" })),
    slider(key("num_steps"), "steps N", { min: 1, max: 60, integer: true, most: 200 }),
    only(() => !is("fitted"), select(key("steps"), "steps at", STEPS)),
    only(() => !is("fitted") && state.get(key("steps")) === "edm", slider(key("rho"), "ρ (large: short steps near the data)", { min: 1, max: 30, log: true, least: 0.2, most: 100 })),
    only(() => deterministic() && oneStep(), h("details", { open: state.get(key("S_churn")) > 0 }, h("summary", {}, "Churn: noise in each step"), h("div", { class: "inner" },
      slider(key("S_churn"), "S<sub>churn</sub>, in all", { min: 0, max: 60, most: 1000 }),
      slider(key("S_tmin"), "from S<sub>tmin</sub>", { min: 0, max: 5, most: 1e6 }),
      slider(key("S_tmax"), "to S<sub>tmax</sub>", { min: 0.1, max: 1000, log: true, least: 0, most: 1e6 }),
      slider(key("S_noise"), "S<sub>noise</sub>", { min: 0.95, max: 1.05, least: 0, most: 2 })))),
  ];
}

export function samplerRoom({ solvers }) {
  const tracks = { a: new Picture({ id: "trajectories-a", title: "A: steps beside the exact flow", size: "two-thirds", height: "22rem" }), b: new Picture({ id: "trajectories-b", title: "B: the same noise", size: "half", height: "22rem" }) };
  const ends = new Picture({ id: "ends", title: "Where the samples end", size: "half" });
  const front = new Picture({ id: "front", title: "Error over evaluations", size: "half" });
  const levels = new Picture({ id: "levels", title: "The noise levels of the steps", size: "third" });
  const table = h("table", { class: "numbers measured" });
  const found = h("p", { class: "help", role: "status" });
  const budget = () => (state.get("b.solver") === "fitted" ? state.get("b.num_steps") : Math.max(2, Math.min(30, room.numbers?.a?.nfe ?? 8)));
  const find = button("Find the best for A’s evaluations", () => state.set({ compare: true, "b.solver": "fitted", "b.num_steps": budget() }), { class: "primary" });
  tracks.b.element.hidden = true;
  const room = new Room({
    id: "sampler",
    title: "Sampler",
    intro: `A sampler follows <math><mfrac><mrow><mi>d</mi><mi>x</mi></mrow><mrow><mi>d</mi><mi>σ</mi></mrow></mfrac><mo>=</mo><mfrac><mrow><mi>x</mi><mo>−</mo><mi>D</mi><mo>(</mo><mi>x</mi><mo>;</mo><mi>σ</mi><mo>)</mo></mrow><mi>σ</mi></mfrac></math> from noise to the data in N steps. The denoiser <i>D</i> here is exact, so all that is wrong with a sample is the sampler’s – unless you try an error below. The tangent of a line always points at <i>D</i>.`,
    controls: [
      dataControls(),
      group("Sampler A", choiceControls("a", solvers)),
      group("Compare", check("compare", "a second sampler B on the same noise"), only(() => state.get("compare"), h("div", { class: "inner" }, choiceControls("b", solvers))), find, found),
      group("Range and process", slider("sampler.sigma_max", "from σ<sub>max</sub>", { min: 1, max: 100, log: true, least: 0.05, most: 1000 }), slider("sigma_min", "to σ<sub>min</sub>, then 0", { min: 0.0005, max: 0.2, log: true, least: 0.0001, most: 10 }), processControls()),
      group("Errors to try", slider("shift", "at the start: x is moved by, in σ<sub>max</sub>", { min: 0, max: 1, least: -3, most: 3 }), slider("shrink", "of the denoiser: pulls towards the mean by", { min: 0, max: 0.2, most: 0.5 })),
      group("View", select("view", "show", [["data", "near the data (σ up to 3)"], ["all", "all noise levels (∛σ)"]]), slider("step", "steps taken", { min: 0, max: 60, integer: true, most: 200, last: mostSteps }), h("div", { class: "row" }, stepper(-1), stepper(1), button("all", () => state.set({ step: 200 }), { class: "small" })), slider("tracks", "samples shown", { min: 1, max: 30, integer: true, most: 60 })),
    ],
    pictures: [tracks.a, tracks.b, levels, ends, front],
    readouts: h("div", { class: "readouts" }, table),
  });

  const settings = () => ({
    data: dataSettings(), noising: processSettings(), a: state.part("a."), b: state.get("compare") ? state.part("b.") : null,
    sigma_min: state.get("sigma_min"), sigma_max: state.get("sampler.sigma_max"), shrink: state.get("shrink"), shift: state.get("shift"), lines: state.get("tracks"),
  });

  room.affects = (changed) => [...changed].some((key) => /^(data|process|a\.|b\.|compare|sigma_min|sampler|shrink|shift|tracks|room)/.test(key));
  room.also = (changed) => (changed.has("step") || changed.has("view")) && room.numbers && drawTracks(room.numbers);
  room.ask = async (signal) => {
    const asked = settings();
    const missing = [asked.a, asked.b].some((choice) => choice?.solver === "fitted" && !fits.has(JSON.stringify(wantedFit(asked, choice))));
    if (missing && asked.a.solver !== "fitted") {
      // A is there at once; the fit takes seconds
      room.numbers = await picture("sampler", "sampler", { ...asked, b: null }, signal);
      await room.draw(room.numbers);
    }
    await fit(asked, signal);
    return picture("sampler", "sampler", asked, signal);
  };

  const fits = new Set();
  const wantedFit = (asked, choice) => ({ data: asked.data, num_steps: choice.num_steps, sigma_min: asked.sigma_min, sigma_max: asked.sigma_max });
  async function fit(asked, signal) {
    for (const choice of [asked.a, asked.b]) {
      if (choice?.solver !== "fitted") continue;
      const wanted = wantedFit(asked, choice);
      const key = JSON.stringify(wanted);
      if (fits.has(key)) continue;
      found.replaceChildren("Fitting …");
      const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress of the fit" });
      found.append(bar, button("Stop", () => state.set({ compare: false, "b.solver": "euler" }), { class: "small" }));
      let result;
      try {
        result = await stream("fit", "fit", wanted, ({ done, total }) => (bar.value = done / total), signal);
      } catch (error) {
        found.textContent = "";
        throw error;
      }
      fits.add(key);
      const doubt = result.rms > 3 * result.seen ? ` A few of them, near a boundary between two modes, make most of it.` : "";
      const what = result.choice.startsWith("fitted") ? "levels and weights of its own" : `a known solver is best: ${result.choice}`;
      found.textContent = `N = ${choice.num_steps}: ${what}. RMS error ${fixed(result.rms, 2)} ± ${fixed(result.standard_error, 1)} on ${result.samples} samples that the search has not seen.${doubt}`;
    }
  }

  function drawTable(n) {
    const names = ["", "evaluations", "RMS error", "median error", "in another mode", "distance of the distribution", "spread, of the data’s"];
    const cells = (label, r) => [label, r.nfe, r.adds_noise ? "–" : fixed(r.rms, 3), r.adds_noise ? "–" : fixed(r.median, 3), r.adds_noise ? "–" : `${fixed(100 * r.elsewhere, 2)} %`, fixed(r.distance, 3), `${fixed(100 * r.spread, 3)} %`];
    const body = [cells("A", n.a), ...(n.b ? [cells("B", n.b)] : []), ["exact flow", "", fixed(n.known, 1), "", "", fixed(n.distance, 3), ""]];
    if (matchMedia("(max-width: 800px)").matches) {
      // a line for each measure, which fits a phone
      const lines = names.map((name, i) => [name, ...body.map((line) => line[i])]);
      table.replaceChildren(h("tbody", {}, lines.map((line, k) => h("tr", {}, line.map((cell, i) => h(i && k ? "td" : "th", k ? (i ? {} : { scope: "row" }) : { scope: "col" }, String(cell)))))));
      return;
    }
    table.replaceChildren(h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, body.map((line) => h("tr", {}, line.map((cell, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, String(cell)))))));
  }

  async function drawTracks(n) {
    tracks.a.resize(n.b ? "half" : "two-thirds");
    tracks.b.element.hidden = !n.b;
    for (const picture of [ends, front]) picture.resize(n.b ? "third" : "half");
    refresh("step");
    await Promise.all([drawRun(tracks.a, n, n.a, 0), n.b ? drawRun(tracks.b, n, n.b, 1) : null]);
  }

  room.draw = async (n) => {
    drawTable(n);
    await drawTracks(n);
    await room.painted();
    await Promise.all([drawEnds(ends, n), drawLevels(levels, n)]);
    drawFront(front, n, room.front);
    askFront();
  };

  let asked = "";
  async function askFront() {
    const wanted = { data: dataSettings(), sigma_min: state.get("sigma_min"), sigma_max: state.get("sampler.sigma_max") };
    if (JSON.stringify(wanted) === asked) return;
    asked = JSON.stringify(wanted);
    front.busy(true);
    if (!room.front) front.say("Eight solvers are being measured at nine budgets …");
    try {
      room.front = await picture("front", "front", wanted);
      if (JSON.stringify(wanted) === asked) {
        front.busy(false);
        await drawFront(front, room.numbers, room.front);
      }
    } catch (error) {
      if (error.name !== "AbortError") front.say(error.message, true);
      asked = "";
      front.busy(false);
    }
  }
  return room;
}

const mostSteps = () => Math.max(state.get("a.num_steps"), state.get("compare") ? state.get("b.num_steps") : 0);

const stepper = (by) => button(by < 0 ? "◀ a step back" : "a step on ▶", () => {
  const n = mostSteps();
  state.set({ step: Math.min(Math.max(Math.min(state.get("step"), n) + by, 0), n) });
}, { class: "small" });

/** Element (i, line, axis) of an array (levels, lines, dims). */
const at = (array, i, line, axisOf) => array[(i * array.shape[1] + line) * array.shape[2] + axisOf];

function drawRun(shown, n, run, index) {
  const k = Math.min(state.get("step"), run.num_steps);
  return n.dim === 2 ? drawRunPlane(shown, n, run, index, k) : drawRunLine(shown, n, run, index, k);
}

function sentence(n, run) {
  const error = run.adds_noise ? `The distance of the distribution is ${fixed(run.distance, 2)} (exact flow ${fixed(n.distance, 2)}).` : `RMS error ${fixed(run.rms, 3)}.`;
  return `${run.nfe} evaluations in ${run.num_steps} steps. ${error}`;
}

function drawRunLine(shown, n, run, index, k) {
  const { palette, gray, ink } = theme();
  const near = state.get("view") === "data";
  const place = near ? (sigma) => sigma : Math.cbrt;
  const count = run.x.shape[1];
  const all = Array.from({ length: count }, (_, line) => line);
  const fine = Array.from(n.sigma, place);
  const colour = palette[index];
  const path = { x: [], y: [] }, up = { x: [], y: [] }, tangents = { x: [], y: [] };
  const put = (target, sigma, x) => (target.x.push(sigma === null ? null : place(sigma)), target.y.push(x));
  for (const line of all) {
    put(path, run.sigma[0], at(run.x, 0, line, 0));
    for (let i = 0; i < k; i++) {
      if (run.sigma_hat[i] > run.sigma[i] * (1 + 1e-9)) {
        put(up, run.sigma[i], at(run.x, i, line, 0));
        put(up, run.sigma_hat[i], at(run.x_hat, i, line, 0));
        put(up, null, null);
        put(path, null, null);
        put(path, run.sigma_hat[i], at(run.x_hat, i, line, 0));
      }
      put(path, run.sigma[i + 1], at(run.x, i + 1, line, 0));
    }
    put(path, null, null);
    if (k < run.num_steps) {
      if (run.sigma_hat[k] > run.sigma[k] * (1 + 1e-9)) {
        put(up, run.sigma[k], at(run.x, k, line, 0));
        put(up, run.sigma_hat[k], at(run.x_hat, k, line, 0));
        put(up, null, null);
      }
      put(tangents, run.sigma_hat[k], at(run.x_hat, k, line, 0));
      put(tangents, 0, at(run.denoised, k, line, 0));
      put(tangents, null, null);
    }
  }
  const low = all.map((line) => at(run.x, k, line, 0));
  const traces = [
    lines(all.map(() => fine), all.map((line) => Float64Array.from({ length: fine.length }, (_, i) => at(n.x, i, line, 0))), { name: "exact flow", line: { color: gray, width: 1 } }),
    { type: "scatter", mode: "lines", name: "noise up", ...up, line: { color: palette[3], width: 1.2, dash: "dot" }, hoverinfo: "skip", visible: up.x.length > 0 },
    { type: "scatter", mode: "lines+markers", name: "steps", ...path, line: { color: colour, width: 1.6 }, marker: { size: 4, color: colour }, hovertemplate: "x = %{y:.4g}<extra></extra>" },
    { type: "scatter", mode: "lines+markers", name: "tangent to D", ...tangents, line: { color: palette[2], width: 1.1, dash: "dash" }, marker: { size: 5, symbol: "circle-open", color: palette[2] }, hoverinfo: "skip", visible: tangents.x.length > 0 },
    { type: "scatter", mode: "markers", name: "now", x: all.map(() => place(run.sigma[k])), y: low, marker: { size: 7, color: colour, line: { color: ink, width: 1 } }, hovertemplate: "x = %{y:.4g}<extra></extra>", showlegend: false },
  ];
  const ticks = [0, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 200, 500];
  const reach = near ? Math.max(2.4, n.density.reach) + 1.2 : null;
  const top = near ? Math.min(3, n.sigma[n.sigma.length - 1]) : Math.cbrt(n.sigma[n.sigma.length - 1]);
  const layout = {
    showlegend: true,
    xaxis: axis("noise level σ: data at 0", { range: [-0.02 * top, 1.02 * top], ...(near ? {} : { tickvals: ticks.map(Math.cbrt), ticktext: ticks.map(String) }) }),
    yaxis: axis("x", near ? { range: [-reach, reach] } : {}),
    uirevision: `${state.get("view")}`,
  };
  const columns = { sample: [], step: [], sigma: [], x: [], denoised: [] };
  for (const line of all) for (let i = 0; i <= run.num_steps; i++) {
    columns.sample.push(line);
    columns.step.push(i);
    columns.sigma.push(run.sigma[i]);
    columns.x.push(at(run.x, i, line, 0));
    columns.denoised.push(i < run.num_steps ? at(run.denoised, i, line, 0) : "");
  }
  return shown.draw({ traces, layout, summary: sentence(n, run), columns, data: run, python: n.python });
}

/** √(p/max p) of the density of the data, as rows, kept with it. */
function shaded(density) {
  const top = density.p.reduce((a, b) => Math.max(a, b), 0);
  density.z ??= rows(density.p).map((line) => Float32Array.from(line, (value) => Math.sqrt(value / top)));
  return density.z;
}

const grid = (reach, count) => Float64Array.from({ length: count }, (_, i) => reach * ((2 * i) / (count - 1) - 1));

function plane(n) {
  const { density } = theme();
  const x = grid(n.density.reach, n.density.p.shape[0]);
  return { type: "heatmap", x, y: x, z: shaded(n.density), zmin: 0, zmax: 1, colorscale: density, showscale: false, zsmooth: "fast", hoverinfo: "skip" };
}

function drawRunPlane(shown, n, run, index, k) {
  const { palette, gray, ink } = theme();
  const count = run.x.shape[1];
  const all = Array.from({ length: count }, (_, line) => line);
  const exact = (axisOf) => all.map((line) => Float64Array.from({ length: n.sigma.length }, (_, i) => at(n.x, i, line, axisOf)));
  const path = (axisOf) => all.map((line) => Float64Array.from({ length: k + 1 }, (_, i) => at(run.x, i, line, axisOf)));
  const tangent = (axisOf) => (k < run.num_steps ? all.map((line) => [at(run.x_hat, k, line, axisOf), at(run.denoised, k, line, axisOf)]) : []);
  const up = (axisOf) => all.flatMap((line) => Array.from({ length: Math.min(k + 1, run.num_steps) }, (_, i) => (run.sigma_hat[i] > run.sigma[i] * (1 + 1e-9) ? [at(run.x, i, line, axisOf), at(run.x_hat, i, line, axisOf)] : [])));
  const colour = palette[index];
  const traces = [
    plane(n),
    lines(exact(0), exact(1), { name: "exact flow", line: { color: gray, width: 1 } }),
    lines(up(0), up(1), { name: "noise up", line: { color: palette[3], width: 1, dash: "dot" } }),
    lines(path(0), path(1), { name: "steps", mode: "lines+markers", line: { color: colour, width: 1.4 }, marker: { size: 3.5, color: colour } }),
    lines(tangent(0), tangent(1), { name: "tangent to D", mode: "lines+markers", line: { color: palette[2], width: 1, dash: "dash" }, marker: { size: 4, symbol: "circle-open" }, visible: k < run.num_steps }),
    { type: "scatter", mode: "markers", x: all.map((line) => at(run.x, k, line, 0)), y: all.map((line) => at(run.x, k, line, 1)), marker: { size: 7, color: colour, line: { color: ink, width: 1 } }, showlegend: false, hovertemplate: "(%{x:.3g}, %{y:.3g})<extra></extra>" },
  ];
  const reach = (state.get("view") === "data" ? 1.6 : 3) * n.density.reach;
  const layout = { showlegend: true, xaxis: axis("x", { range: [-reach, reach], showgrid: false, constrain: "domain" }), yaxis: axis("y", { range: [-reach, reach], showgrid: false, scaleanchor: "x" }), uirevision: `${state.get("view")}` };
  const columns = { sample: [], step: [], sigma: [], x: [], y: [] };
  for (const line of all) for (let i = 0; i <= run.num_steps; i++) {
    columns.sample.push(line);
    columns.step.push(i);
    columns.sigma.push(run.sigma[i]);
    columns.x.push(at(run.x, i, line, 0));
    columns.y.push(at(run.x, i, line, 1));
  }
  return shown.draw({ traces, layout, summary: sentence(n, run), columns, data: run, python: n.python });
}

function drawEnds(ends, n) {
  const { palette, gray } = theme();
  const runs = [["A", n.a, palette[0]], ...(n.b ? [["B", n.b, palette[1]]] : [])];
  const columns = {};
  const traces = [];
  let layout;
  if (n.dim === 2) {
    traces.push(plane(n));
    for (const [name, run, colour] of runs) {
      const [x, y] = [0, 1].map((axisOf) => Float64Array.from({ length: run.ends.shape[0] }, (_, i) => run.ends[2 * i + axisOf]));
      traces.push({ type: "scatter", mode: "markers", name, x, y, marker: { size: 4, color: colour, opacity: 0.75 }, hovertemplate: "(%{x:.3g}, %{y:.3g})<extra></extra>" });
      Object.assign(columns, { [`${name}_x`]: x, [`${name}_y`]: y });
    }
    const reach = n.density.reach;
    layout = { xaxis: axis("x", { range: [-reach, reach], showgrid: false, constrain: "domain" }), yaxis: axis("y", { range: [-reach, reach], showgrid: false, scaleanchor: "x" }) };
  } else {
    const x = grid(n.density.reach, n.density.p.length);
    const size = (2 * n.density.reach) / 80;
    traces.push({ type: "scatter", mode: "lines", name: "data", x, y: n.density.p, fill: "tozeroy", line: { color: gray, width: 1 }, hoverinfo: "skip" });
    for (const [name, run, colour] of runs) {
      traces.push({ type: "histogram", name, x: run.ends, histnorm: "probability density", xbins: { start: -n.density.reach, end: n.density.reach, size }, marker: { color: colour, opacity: 0.55 }, hovertemplate: `${name}: %{y:.3g} at x = %{x}<extra></extra>` });
      columns[name] = run.ends;
    }
    columns.exact = n.ends;
    layout = { barmode: "overlay", bargap: 0.02, xaxis: axis("x", { range: [-n.density.reach, n.density.reach] }), yaxis: axis("density") };
  }
  const text = runs.map(([name, run]) => `${name} is ${fixed(run.distance, 2)} from the data`).join(", ");
  return ends.draw({ traces, layout: { showlegend: true, ...layout, uirevision: `${n.dim}` }, summary: `${text} (Wasserstein distance of ${n.a.ends.shape[0]} samples; the exact flow of the same noise ${fixed(n.distance, 2)}, which is chance).`, columns, data: n, python: n.python });
}

function drawLevels(levels, n) {
  const { palette } = theme();
  const runs = [["A", n.a, 0], ...(n.b ? [["B", n.b, 1]] : [])];
  const columns = {};
  const traces = runs.map(([name, run, index]) => {
    const sigma = Array.from(run.sigma).filter((value) => value > 0);
    columns[name] = run.sigma;
    return { type: "scatter", mode: "lines+markers", name, x: sigma.map((_, i) => i), y: sigma, line: { color: palette[index], width: 1.2, dash: index ? "dash" : "solid" }, marker: { size: 5, color: palette[index], symbol: index ? "diamond" : "circle" }, hovertemplate: "σ<sub>%{x}</sub> = %{y:.4g}<extra></extra>" };
  });
  const layout = { showlegend: runs.length > 1, xaxis: axis("step i"), yaxis: axis("σᵢ", { type: "log", dtick: 1 }), uirevision: "levels" };
  return levels.draw({ traces, layout, summary: "The last step leads from the lowest level shown to σ = 0.", columns, data: n, python: n.python });
}

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

function drawFront(front, n, known) {
  if (!n) return;
  const { palette, ink, gray } = theme();
  const curves = (known?.curves ?? []).map(({ solver, nfe, rms }, k) => ({ type: "scatter", mode: "lines+markers", name: solver, x: nfe, y: rms, line: { color: palette[k % 6], dash: DASHES[(k + (k < 6 ? 0 : 3)) % 6], width: 1.2 }, marker: { size: 4 }, opacity: 0.75, hovertemplate: `${solver}<br>%{x} evaluations: %{y:.2e}<extra></extra>` }));
  const own = [["A", n.a, 0], ["B", n.b, 1]].filter(([, run]) => run && !run.adds_noise).map(([name, run, index]) => ({ type: "scatter", mode: "markers+text", name, x: [run.nfe], y: [run.rms], text: [name], textposition: "top right", textfont: { color: ink, size: 14 }, marker: { size: 13, symbol: index ? "diamond" : "star", color: palette[index], line: { color: ink, width: 1 } }, hovertemplate: `${name}: %{x} evaluations, %{y:.3e}<extra></extra>` }));
  const columns = { solver: [], nfe: [], rms: [] };
  for (const { solver, nfe, rms } of known?.curves ?? []) nfe.forEach((value, i) => (columns.solver.push(`"${solver}"`), columns.nfe.push(value), columns.rms.push(rms[i])));
  const wide = front.plot.clientWidth > 460;
  const ticks = wide ? [2, 4, 6, 8, 10, 14, 20, 28, 40, 56, 100, 200] : [2, 5, 10, 20, 50, 100, 200];
  const layout = { showlegend: true, legend: wide ? { font: { size: 10 }, x: 1.01, y: 1, xanchor: "left", bgcolor: "rgba(0,0,0,0)" } : { font: { size: 9 }, orientation: "h", x: 0, y: -0.28, bgcolor: "rgba(0,0,0,0)" }, margin: { l: 58, r: 14, t: 10, b: wide ? 44 : 110 }, annotations: known ? [{ xref: "paper", x: 0.01, y: Math.log10(known.known), xanchor: "left", yanchor: "bottom", showarrow: false, text: "the exact flow is known to this", font: { size: 9, color: gray } }] : [], xaxis: axis("evaluations of D", { type: "log", tickvals: ticks, tickangle: 0 }), yaxis: axis("RMS error", { type: "log", exponentformat: "power", dtick: 1 }), uirevision: "front", shapes: known ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: known.known, y1: known.known, line: { color: gray, width: 1, dash: "dot" } }] : [] };
  const noisy = !own.length ? " A run with noise does not follow the flow, so it has no point here." : "";
  return front.draw({ traces: [...curves, ...own], layout, summary: `Known solvers with the paper’s steps, ρ = 7, σ = t; the star is yours.${noisy}`, columns, data: known, python: known?.python ?? "" });
}
