// What room 3 draws.

import { row } from "../api.js";
import { axis, lines, theme } from "../picture.js";
import { fixed } from "../room.js";
import * as state from "../state.js";

const NAMES = ["VP", "VE", "iDDPM", "EDM"];
const DASHES = { VP: "dash", VE: "dot", iDDPM: "dashdot", EDM: "solid" };
const log = (values) => Float64Array.from(values, Math.log);
const finite = (values) => Array.from(values).filter(Number.isFinite);

const phone = matchMedia("(max-width: 800px)");

/** A log axis with powers of ten alone, of which a few are named. */
const powers = (low, high, few = 5) => ({ type: "log", range: [low, high], dtick: Math.max(1, Math.ceil((high - low) / few)), exponentformat: "power", tickfont: { size: 11 } });

/** The range of the logarithms of positive numbers, of at least a decade: those that are all 1 would show the rounding. */
function decades(values, most = 12) {
  const shown = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  const low = Math.min(...shown), high = Math.max(...shown), gap = Math.max(0.5 - (high - low) / 2, 0.08 * (high - low), 0.05);
  return [Math.max(low - gap, high - most), high + gap];
}

/** Four plots of curves over σ in one picture: the same legend and the same axis of σ. */
function panels(n, parts) {
  const { palette, gray, ink } = theme();
  const traces = [], annotations = [], shapes = [];
  const layout = { showlegend: true, margin: { l: 44, r: 10, t: 8, b: 38 }, annotations, shapes, uirevision: "panels", legend: { orientation: "h", y: 1.1, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)" } };
  const names = Object.keys(n.curves), wide = [n.sigma[0], n.sigma.at(-1)].map(Math.log10); // Plotly needs long to find it
  parts.forEach(({ title, key, value = (curve) => curve[key], text = null, ...options }, k) => {
    const id = k ? k + 1 : "", left = k % 2 ? 0.56 : 0, bottom = k < 2 ? 0.57 : 0;
    layout[`xaxis${id}`] = axis(k < 2 ? "" : "σ", { type: "log", domain: [left, left + 0.44], anchor: `y${id}`, showticklabels: k > 1, exponentformat: "power", dtick: 2, tickfont: { size: 11 }, automargin: false, range: wide });
    const scale = options.range ? options : powers(...decades(names.flatMap((name) => Array.from(value(n.curves[name])))), phone.matches ? 2 : 5);
    layout[`yaxis${id}`] = axis("", { domain: [bottom, bottom + 0.36], anchor: `x${id}`, nticks: 5, automargin: false, ...scale });
    annotations.push({ text: title, x: left, y: bottom + 0.36, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12, color: ink } });
    shapes.push({ type: "line", xref: `x${id}`, yref: `y${id} domain`, x0: n.sigma_data, x1: n.sigma_data, y0: 0, y1: 1, line: { color: gray, width: 1, dash: "dot" } });
    names.forEach((name) => {
      const chosen = name === n.prediction, place = NAMES.indexOf(name);
      traces.push({
        type: "scatter", mode: "lines", name, legendgroup: name, showlegend: k === 0, x: n.sigma, y: value(n.curves[name]), xaxis: `x${id}`, yaxis: `y${id}`,
        ...(text ? { customdata: text(n.curves[name]) } : {}),
        line: { color: palette[place < 0 ? 5 : place], dash: DASHES[name] ?? "solid", width: chosen ? 3 : 1.4 }, opacity: chosen ? 1 : 0.85,
        hovertemplate: `${name}: %{${text ? "customdata" : "y"}:.4g} at σ = %{x:.3g}<extra></extra>`,
      });
    });
  });
  return { traces, layout };
}

const columns = (n, keys) => Object.fromEntries([["sigma", n.sigma], ...Object.entries(n.curves).flatMap(([name, curve]) => keys.map((key) => [`${key}_${name}`, curve[key]]))]);

/** Values between 0 and 1: indices and logarithms in one plot. */
function unit(values) {
  const known = finite(values);
  const low = Math.min(...known), high = Math.max(...known);
  return Float64Array.from(values, (value) => (value - low) / (high - low || 1));
}

export async function drawCoefficients(picture, n) {
  const { traces, layout } = panels(n, [
    { title: "c<sub>skip</sub>", key: "c_skip", range: [-0.06, 1.1] },
    { title: "|c<sub>out</sub>|", value: (curve) => curve.c_out.map(Math.abs) },
    { title: "c<sub>in</sub>", key: "c_in" },
    { title: "c<sub>noise</sub>, scaled", value: (curve) => unit(curve.c_noise), text: (curve) => curve.c_noise, range: [-0.06, 1.1] },
  ]);
  const chosen = n.curves[n.prediction], { c_skip, c_out } = n.at_sigma_data;
  const summary = `At σ = σ_data = ${fixed(n.sigma_data)} (dotted) ${n.prediction} has c_skip = ${fixed(c_skip, 2)}: F's errors reach D times |c_out| = ${fixed(Math.abs(c_out), 2)} there, and times ${fixed(Math.abs(finite(chosen.c_out).at(-1)), 2)} at the right end.`;
  await picture.draw({ traces, layout, summary, data: n, python: n.python, columns: columns(n, ["c_skip", "c_out", "c_in", "c_noise"]) });
}

export async function drawTargets(picture, n) {
  const { traces, layout } = panels(n, [
    { title: "input variance", key: "input" },
    { title: "target variance", key: "target" },
    { title: "share of signal", key: "signal", range: [-0.06, 1.1] },
    { title: "weight λ·c<sub>out</sub>²", key: "weight" },
  ]);
  const { target } = n.curves[n.prediction];
  const known = finite(target);
  const range = [Math.min(...known), Math.max(...known)];
  const flat = range[1] / range[0] < 1.001;
  const summary = flat ? `With ${n.prediction} the target has variance ${fixed(range[0])} at every σ.` : `With ${n.prediction} the target's variance goes from ${fixed(range[0], 2)} to ${fixed(range[1], 2)}: F has to give small and large numbers.`;
  await picture.draw({ traces, layout, summary, data: n, python: n.python, columns: columns(n, ["input", "target", "signal", "weight"]) });
}

/** The stage of a run that is shown: by its number, at most the newest. */
export const shown = (run) => run?.stages[Math.min(state.get("t.stage"), run.stages.length - 1)];

/** λ·E‖D − y‖² as Figure 5a of the paper has it, and p_train below. */
export async function drawLoss(picture, n, run) {
  const { palette, ink, gray } = theme();
  const x = log(n.levels), fine = log(n.sigma);
  const stage = shown(run);
  const now = stage && stage.error.map((value, k) => value * n.weight[k]);
  const hover = "%{y:.4g} at ln σ = %{x:.3g}<extra></extra>";
  const traces = [
    { type: "scatter", mode: "lines", name: "start", x: fine, y: n.start, line: { color: gray, width: 1.5, dash: "dash" }, hovertemplate: `start ${hover}` },
    { type: "scatter", mode: "lines", name: "attainable", x, y: n.attainable, line: { color: ink, width: 1.5, dash: "dot" }, hovertemplate: `attainable ${hover}` },
  ];
  if (now) traces.push({ type: "scatter", mode: "lines+markers", name: `now: ${run.name}`, x, y: now, line: { color: palette[1], width: 2.2 }, marker: { size: 4 }, hovertemplate: `now ${hover}` });
  traces.push({ type: "scatter", mode: "lines", name: "p(σ)", x: fine, y: n.density, yaxis: "y2", fill: "tozeroy", line: { color: palette[2], width: 1.5 }, hovertemplate: `p ${hover}` });
  const seen = [...finite(n.start), ...finite(n.attainable), ...finite(now ?? [])].filter((value) => value > 0);
  const top = Math.max(...seen), low = Math.min(...finite(n.attainable));
  const scale = top < 3 ? { range: [0, Math.max(1.15, 1.08 * top)] } : powers(Math.log10(Math.max(low, 1e-5 * top)) - 0.15, Math.log10(top) + 0.15);
  const reach = [fine[0], fine.at(-1)];
  const layout = {
    showlegend: true, uirevision: `${n.levels[0]}`, dragmode: false,
    margin: { l: 56, r: 12, t: 8, b: 40 },
    xaxis: axis("ln σ", { range: reach, anchor: "y2", nticks: 12, automargin: false }), yaxis: axis("λ(σ)·E‖D − y‖²", { domain: [0.36, 1], automargin: false, ...scale }),
    yaxis2: axis("p", { domain: [0, 0.28], range: [0, 1.12 * Math.max(...n.density)], nticks: 3, automargin: false }),
  };
  const most = n.sigma[n.density.indexOf(Math.max(...n.density))];
  const lognormal = n.P_mean !== null ? " Drag its curve sideways, or its edges." : "";
  await picture.draw({ traces, layout, summary: `Training looks most at σ = ${fixed(most)}; only where the dotted line is below the dashed one is there something to learn.${lognormal}`, data: { ...n, now }, python: n.python, columns: { sigma: n.sigma, start: n.start, p: n.density, level: n.levels, attainable: n.attainable, ...(now ? { now } : {}) } });
}

export async function drawLearning(picture, exact, runs) {
  const { palette, ink } = theme();
  const measure = state.get("t.measure"), excess = measure === "excess";
  const traces = runs.list.map((run, k) => {
    const seen = run.stages.filter((stage) => stage.step > 0);
    return { type: "scatter", mode: "lines+markers", name: run.stopped ? `${run.name} (stopped)` : run.name, x: seen.map((stage) => stage.images), y: seen.map((stage) => stage[measure]), line: { color: palette[k % 6], width: run === runs.newest ? 2.6 : 1.5 }, marker: { size: 5, symbol: k }, hovertemplate: `${run.name}: %{y:.4g} after %{x} images<extra></extra>` };
  });
  const reach = Math.max(10000, ...runs.list.map((run) => 128 * run.settings.steps));
  const wide = [Math.log10(900), Math.log10(1.15 * reach)];
  const at = shown(runs.newest);
  if (at?.step) traces.push({ type: "scatter", mode: "markers", showlegend: false, x: [at.images], y: [at[measure]], marker: { size: 13, color: "rgba(0,0,0,0)", line: { color: ink, width: 2 } }, hoverinfo: "skip" });
  if (!excess) traces.unshift({ type: "scatter", mode: "lines", name: "attainable", x: wide.map((v) => 10 ** v), y: [exact.attainable_loss, exact.attainable_loss], line: { color: ink, width: 1.5, dash: "dot" }, hovertemplate: "attainable %{y:.4g}<extra></extra>" });
  const measured = runs.list.flatMap((run) => run.stages.map((stage) => stage[measure]));
  const range = measured.length ? decades([...measured, ...(excess ? [] : [exact.attainable_loss])]) : excess ? [-3, 1] : [-1, 1];
  const layout = {
    showlegend: true, uirevision: `${range} ${wide}`,
    xaxis: axis("training images", powers(...wide)),
    yaxis: axis(excess ? "loss above the attainable" : "loss on held-out data", powers(...range)),
    annotations: runs.list.length ? [] : [{ text: "Press Train: a curve for each run", x: 0.5, y: 0.5, xref: "paper", yref: "paper", showarrow: false, font: { size: 14 } }],
  };
  const run = runs.newest, last = shown(run);
  const summary = last ? `${run.name}: ${fixed(last.loss)} after ${last.images} images, ${fixed(last.excess, 2)} above the attainable ${fixed(exact.attainable_loss)}. All runs are measured with EDM's weight and noise levels for these data.` : "All runs are measured on the same held-out data, with EDM's weight and noise levels.";
  const table = Object.fromEntries(runs.list.flatMap((each, k) => [[`images_${k + 1}`, each.stages.map((stage) => stage.images)], [`loss_${k + 1}`, each.stages.map((stage) => stage.loss)], [`above_attainable_${k + 1}`, each.stages.map((stage) => stage.excess)]]));
  await picture.draw({ traces, layout, summary, data: runs.list.map((each) => each.stages), python: run?.python ?? "", columns: runs.list.length ? table : null });
}

const level = (exact) => exact.levels.reduce((best, value, k) => (Math.abs(Math.log(value / state.get("t.sigma"))) < Math.abs(Math.log(exact.levels[best] / state.get("t.sigma"))) ? k : best), 0);

const rms = (a, b) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length);

export async function drawDenoiser(picture, exact, run) {
  const k = level(exact), stage = shown(run);
  const x = row(exact.x, k), truth = row(exact.denoised, k), learnt = stage && row(stage.denoised, k);
  const far = learnt ? ` The learnt one is ${fixed(rms(learnt, truth), 2)} away from it on average (rms).` : "";
  const summary = `D(x; σ) at σ = ${fixed(exact.levels[k])}: the exact denoiser gives the mean of all data that x may come from.${far}`;
  const common = { summary, data: { exact, learnt }, python: run?.python ?? "" };
  if (exact.dim === 2) return drawArrows(picture, { x, truth, learnt, run, common });
  const { palette, ink } = theme();
  const hover = "D = %{y:.4g} at x = %{x:.4g}<extra></extra>";
  const traces = [{ type: "scatter", mode: "lines", name: "exact", x, y: truth, line: { color: ink, width: 1.5, dash: "dot" }, hovertemplate: hover }];
  if (learnt) traces.push({ type: "scatter", mode: "lines", name: `learnt: ${run.name}`, x, y: learnt, line: { color: palette[1], width: 2.2 }, hovertemplate: hover });
  const top = 1.15 * truth.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const layout = { showlegend: true, xaxis: axis("x, noisy"), yaxis: axis("D(x; σ)", { range: [-top, top] }), uirevision: `${k}` };
  await picture.draw({ traces, layout, columns: { x, exact: truth, ...(learnt ? { learnt } : {}) }, ...common });
}

async function drawArrows(picture, { x, truth, learnt, run, common }) {
  const { palette, ink } = theme();
  const count = x.length / 2, at = (values, i) => [values[2 * i], values[2 * i + 1]];
  const arrows = (ends, name, colour, width) => {
    const from = Array.from({ length: count }, (_, i) => [at(x, i), at(ends, i)]);
    const body = lines(from.map(([a, b]) => [a[0], b[0]]), from.map(([a, b]) => [a[1], b[1]]), { name, legendgroup: name, line: { color: colour, width }, opacity: 0.75 });
    const heads = { type: "scatter", mode: "markers", legendgroup: name, showlegend: false, x: from.map(([, b]) => b[0]), y: from.map(([, b]) => b[1]), marker: { color: colour, size: 5 }, hovertemplate: `${name}: (%{x:.3g}, %{y:.3g})<extra></extra>` };
    return [body, heads];
  };
  const traces = [...arrows(truth, "exact", ink, 1), ...(learnt ? arrows(learnt, `learnt: ${run.name}`, palette[1], 1.2) : [])];
  const layout = { showlegend: true, xaxis: axis("x", { constrain: "domain" }), yaxis: axis("y", { scaleanchor: "x" }), uirevision: "arrows" };
  const part = (values, k) => Float64Array.from({ length: count }, (_, i) => values[2 * i + k]);
  const table = { x: part(x, 0), y: part(x, 1), exact_x: part(truth, 0), exact_y: part(truth, 1), ...(learnt ? { learnt_x: part(learnt, 0), learnt_y: part(learnt, 1) } : {}) };
  await picture.draw({ traces, layout, columns: table, ...common });
}

export async function drawSamples(picture, exact, run) {
  const { palette, density } = theme();
  const stage = shown(run), plane = exact.dim === 2;
  const places = Float64Array.from({ length: exact.density.shape[0] }, (_, i) => exact.reach * ((2 * i) / (exact.density.shape[0] - 1) - 1));
  const samples = stage?.samples;
  const part = (k) => (samples ? Float64Array.from({ length: samples.shape[0] }, (_, i) => samples[i * exact.dim + k]) : []);
  const traces = [];
  if (plane) {
    const top = exact.density.reduce((a, b) => Math.max(a, b), 0);
    const z = Array.from(places, (_, i) => Float32Array.from(row(exact.density, i), (value) => Math.sqrt(value / top)));
    traces.push({ type: "heatmap", x: places, y: places, z, zmin: 0, zmax: 1, colorscale: density, showscale: false, zsmooth: "fast", hoverinfo: "skip" });
    traces.push({ type: "scatter", mode: "markers", name: "samples", x: part(0), y: part(1), marker: { color: palette[1], size: 4, opacity: 0.8 }, hovertemplate: "(%{x:.3g}, %{y:.3g})<extra></extra>" });
  } else {
    traces.push({ type: "histogram", name: "samples", x: part(0), histnorm: "probability density", xbins: { start: -exact.reach, end: exact.reach, size: exact.reach / 40 }, marker: { color: palette[1] }, opacity: 0.65, hovertemplate: "%{y:.3g} at %{x}<extra></extra>" });
    traces.push({ type: "scatter", mode: "lines", name: "data", x: places, y: exact.density, line: { color: palette[0], width: 2 }, hovertemplate: "p = %{y:.3g} at x = %{x:.3g}<extra></extra>" });
  }
  const range = [-exact.reach, exact.reach];
  const layout = plane ? { xaxis: axis("x", { range, showgrid: false, constrain: "domain" }), yaxis: axis("y", { range, showgrid: false, scaleanchor: "x" }), uirevision: `${exact.reach}` } : { showlegend: true, bargap: 0, xaxis: axis("x", { range }), yaxis: axis("density", { range: [0, 2 * exact.density.reduce((a, b) => Math.max(a, b), 0)] }), uirevision: `${exact.reach}` };
  const summary = stage ? `After ${stage.images} images ${fixed(100 * stage.usual, 3)} % of the ${samples.shape[0]} samples lie where 95 % of the data do: fewer are too blurred, more too narrow.` : "After training, samples of the network stand beside the density of the data.";
  const table = samples ? (plane ? { x: part(0), y: part(1) } : { x: part(0) }) : null;
  await picture.draw({ traces, layout, summary, data: { exact, samples }, python: run?.python ?? "", columns: table });
}
