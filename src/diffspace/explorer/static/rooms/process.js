// Room 1: σ(t) and s(t), flow lines over p_t(x), f and g, and how straight the lines are.

import { column, picture, row, rows } from "../api.js";
import { button, group, h, only, select, slider, text } from "../controls.js";
import { dataControls, dataSettings, dim } from "../data.js";
import { Picture, axis, lines, theme } from "../picture.js";
import { Room, fixed, readouts } from "../room.js";
import * as state from "../state.js";

state.declare({
  "process.name": "EDM", "process.sigma": "3 t (1 + 0.55 sin(14 t))", "process.s": "(1 + 0.35 sin(11 t)) / sqrt(1 + 4 t^2)", "process.t_max": 1,
  "towards.name": "none", share: 0, sigma_max: 3, lines: 25, time: 1,
});

export const PROCESSES = [["EDM", "EDM: σ = t, s = 1"], ["VP", "VP (DDPM)"], ["VE", "VE: σ = √t, s = 1"], ["cosine", "cosine (iDDPM)"], ["rectified flow", "rectified flow"], ["formula", "formulas of your own"]];

/** The controls of a process, for this room and others. */
export function processControls() {
  const own = () => state.get("process.name") === "formula";
  return [
    select("process.name", "process", PROCESSES),
    only(own, text("process.sigma", "σ(t)")),
    only(own, text("process.s", "s(t)", { help: "numbers, t, + − × ÷ ^, exp, log, sqrt, sin, cos, tan, tanh" })),
    only(own, slider("process.t_max", "t from 0 to", { min: 0.1, max: 10, log: true, least: 0.001, most: 1000 })),
  ];
}

export const processSettings = () => state.part("process.");

const TIMES = 160;

export function processRoom() {
  const flow = new Picture({ id: "flow-lines", title: "Flow lines over the density pₜ", size: "", height: "25rem" });
  const slice = new Picture({ id: "density", title: "The density at the time", size: "half" });
  const curves = new Picture({ id: "coefficients", title: "σ, s, f and g over time", size: "half" });
  const [numbers, show] = readouts(["time <i>t</i>", "σ(<i>t</i>)", "<i>s</i>(<i>t</i>)", "<i>f</i>(<i>t</i>)", "<i>g</i>(<i>t</i>)", "lines bent by", "18 Euler steps miss by"]);
  const morphs = () => state.get("towards.name") !== "none";
  const play = playButton();
  const room = new Room({
    id: "process",
    title: "Process",
    intro: `A process adds noise, <math><msub><mi>x</mi><mi>t</mi></msub><mo>=</mo><mi>s</mi><mo>(</mo><mi>t</mi><mo>)</mo><mo>·</mo><mo>(</mo><msub><mi>x</mi><mn>0</mn></msub><mo>+</mo><mi>σ</mi><mo>(</mo><mi>t</mi><mo>)</mo><mo>·</mo><mi>ε</mi><mo>)</mo></math>. Its flow lines lead from noise back to the data, whatever <i>σ</i>(<i>t</i>) and <i>s</i>(<i>t</i>) are. What they decide is how the lines are seen: how straight, and in which time. A step of a solver misses what bends.`,
    controls: [
      dataControls(),
      group("Process", processControls(), only(() => state.get("process.name") !== "formula", slider("sigma_max", "shown up to σ =", { min: 0.2, max: 80, log: true, least: 0.05, most: 200 })),
        select("towards.name", "on the way to", [["none", "no other"], ...PROCESSES.slice(0, 5)]), only(morphs, slider("share", "how far towards it", { min: 0, max: 1 }))),
      group("View", slider("time", "time, as a part of all", { min: 0, max: 1 }), h("div", { class: "row" }, play), slider("lines", "flow lines", { min: 2, max: 60, integer: true, most: 120 })),
    ],
    pictures: [flow, slice, curves],
    readouts: numbers,
  });

  room.affects = (changed) => [...changed].some((key) => /^(data|process|towards|share|sigma_max|lines|room)/.test(key)) || (changed.has("time") && dim() === 2);
  room.also = (changed) => changed.has("time") && room.numbers && room.draw(room.numbers);
  room.ask = (signal) => {
    const other = morphs() ? { name: state.get("towards.name") } : null;
    const settings = { data: dataSettings(), noising: processSettings(), towards: other, share: morphs() ? state.get("share") : 0, sigma_max: state.get("sigma_max"), lines: state.get("lines"), time: state.get("time") };
    return picture("process", "process", settings, signal);
  };
  room.draw = async (n) => {
    const k = Math.round(state.get("time") * TIMES);
    show(fixed(n.t[k]), fixed(n.sigma[k]), fixed(n.s[k]), fixed(n.f[k]), fixed(n.g[k]), `${fixed(100 * n.deviation, 3)} %`, n.euler_error === null ? "–" : fixed(n.euler_error, 2));
    const command = state.get("process.name") === "formula" ? `diffspace figures strange --sigma ${JSON.stringify(state.get("process.sigma"))} --s ${JSON.stringify(state.get("process.s"))} --t-max ${state.get("process.t_max")}` : "";
    const common = { data: n, python: n.python, command };
    await (n.dim === 2 ? drawPlane : drawLines)(flow, n, k, common);
    await room.painted();
    await Promise.all([(n.dim === 2 ? drawSpread : drawSlice)(slice, n, k, common), drawCurves(curves, n, k, common)]);
  };
  return room;
}

function playButton() {
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶ play from noise to data";
  };
  const play = button("▶ play from noise to data", () => {
    if (timer) return stop();
    if (state.get("time") <= 0.01) state.set({ time: 1 });
    play.textContent = "❚❚ pause";
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => {
      const next = state.get("time") - (still ? 0.1 : 0.0125);
      state.set({ time: Math.max(0, Number(next.toFixed(5))) });
      if (next <= 0 || state.get("room") !== "process") stop();
    }, still ? 1000 : 60);
  });
  return play;
}

function summary(n) {
  const bent = `bent by ${fixed(100 * n.deviation, 3)} % of the way that they go`;
  return `${n.x.shape[1]} lines lead from noise to the data, ${bent}.`;
}

const places = (reach, count) => Float64Array.from({ length: count }, (_, i) => reach * ((2 * i) / (count - 1) - 1));

async function drawLines(flow, n, k, common) {
  const { ink, palette, density } = theme();
  const count = n.density.shape[1];
  const xs = Array.from({ length: n.x.shape[1] }, (_, line) => column(n.x, line));
  const traces = [
    { type: "heatmap", x: n.t, y: places(n.reach, count), z: rows(n.shades), zmin: 0, zmax: 255, colorscale: density, showscale: false, zsmooth: "fast", hoverinfo: "skip" },
    lines(xs.map(() => n.t), xs, { line: { color: ink, width: 1 }, opacity: 0.8 }),
    { type: "scatter", mode: "lines", x: [n.t[k], n.t[k]], y: [-n.reach, n.reach], line: { color: palette[1], width: 1.5 }, hoverinfo: "skip" },
    { type: "scatter", mode: "markers", x: xs.map(() => n.t[k]), y: xs.map((x) => x[k]), marker: { color: palette[1], size: 5 }, hovertemplate: "x = %{y:.4g}<extra></extra>" },
  ];
  const layout = { xaxis: axis("time t: data at 0, noise on the right", { range: [0, n.t_max], showgrid: false }), yaxis: axis("x", { range: [-n.reach, n.reach], showgrid: false }), uirevision: `${n.t_max}` };
  const columns = { t: n.t, sigma: n.sigma, s: n.s };
  xs.forEach((x, line) => (columns[`x_${line}`] = x));
  await flow.draw({ traces, layout, summary: summary(n), columns, ...common });
}

async function drawSlice(slice, n, k, common) {
  const { palette } = theme();
  const [, count] = n.density.shape;
  const p = row(n.density, k), at = row(n.x, k), x = places(n.reach, count);
  const top = p.reduce((a, b) => Math.max(a, b), 0);
  const traces = [
    { type: "scatter", mode: "lines", x, y: p, fill: "tozeroy", line: { color: palette[0], width: 1.5 }, hovertemplate: "p = %{y:.3g} at x = %{x:.3g}<extra></extra>" },
    { type: "scatter", mode: "markers", x: at, y: Array.from(at, () => -0.05 * top), marker: { color: palette[1], size: 5 }, hoverinfo: "skip" },
  ];
  const layout = { xaxis: axis("x"), yaxis: axis("p<sub>t</sub>(x)", { range: [-0.1 * top, 1.1 * top] }), uirevision: `${n.reach}` };
  const text = `At t = ${fixed(n.t[k])} the data are blurred by σ = ${fixed(n.sigma[k])} and scaled by s = ${fixed(n.s[k])}; dots are the lines.`;
  slice.heading.textContent = slice.title;
  await slice.draw({ traces, layout, summary: text, columns: { x, p }, ...common });
}

async function drawPlane(flow, n, k, common) {
  const { ink, palette, density } = theme();
  const [, count] = n.x.shape;
  const x = places(n.reach, n.density.shape[0]);
  const part = (line, axisOf) => Float64Array.from({ length: n.t.length }, (_, i) => n.x[(i * count + line) * 2 + axisOf]);
  const xs = Array.from({ length: count }, (_, line) => part(line, 0)), ys = Array.from({ length: count }, (_, line) => part(line, 1));
  const traces = [
    { type: "heatmap", x, y: x, z: rows(n.shades), zmin: 0, zmax: 255, colorscale: density, showscale: false, zsmooth: "fast", hoverinfo: "skip" },
    lines(xs, ys, { line: { color: ink, width: 1 }, opacity: 0.75 }),
    { type: "scatter", mode: "markers", x: xs.map((line) => line[k]), y: ys.map((line) => line[k]), marker: { color: palette[1], size: 6 }, hovertemplate: "(%{x:.3g}, %{y:.3g})<extra></extra>" },
  ];
  const layout = { xaxis: axis("x", { showgrid: false, range: [-n.reach, n.reach], constrain: "domain" }), yaxis: axis("y", { showgrid: false, range: [-n.reach, n.reach], scaleanchor: "x" }), uirevision: `${n.t_max}` };
  const columns = { t: n.t, sigma: n.sigma, s: n.s };
  xs.forEach((line, i) => Object.assign(columns, { [`x_${i}`]: line, [`y_${i}`]: ys[i] }));
  await flow.draw({ traces, layout, summary: summary(n), columns, ...common });
}

async function drawSpread(slice, n, k, common) {
  const { palette } = theme();
  const [times, count] = n.x.shape;
  const lengths = Array.from({ length: count }, (_, line) => Float64Array.from({ length: times }, (_, i) => Math.hypot(n.x[(i * count + line) * 2], n.x[(i * count + line) * 2 + 1])));
  const traces = [
    lines(lengths.map(() => n.t), lengths, { line: { color: palette[0], width: 1 }, opacity: 0.7 }),
    { type: "scatter", mode: "markers", x: lengths.map(() => n.t[k]), y: lengths.map((line) => line[k]), marker: { color: palette[1], size: 5 }, hoverinfo: "skip" },
  ];
  slice.heading.textContent = "Distance from the origin over time";
  await slice.draw({ traces, layout: { xaxis: axis("time t"), yaxis: axis("|x|") , uirevision: `${n.t_max}` }, summary: "Where the lines bend as they approach the data.", columns: { t: n.t, ...Object.fromEntries(lengths.map((line, i) => [`distance_${i}`, line])) }, ...common });
}

async function drawCurves(curves, n, k, common) {
  const { palette, gray } = theme();
  const styles = [["σ", n.sigma, "solid"], ["s", n.s, "dash"], ["f", n.f, "dot"], ["g", n.g, "dashdot"]];
  const values = [...n.sigma, ...n.s, ...n.f, ...n.g].filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
  const top = 1.15 * Math.max(values[Math.floor(0.97 * values.length)], ...n.sigma.filter((v, i) => i % 20 === 0));
  const traces = styles.map(([name, y, dash], i) => ({ type: "scatter", mode: "lines", name: `${name}(t)`, x: n.t, y, line: { color: palette[i], dash, width: 2 }, hovertemplate: `${name} = %{y:.4g} at t = %{x:.4g}<extra></extra>` }));
  const layout = { showlegend: true, xaxis: axis("time t", { range: [0, n.t_max] }), yaxis: axis("", { range: [Math.min(0, ...Array.from(n.f).filter(Number.isFinite).map((v) => Math.max(v, -top))) * 1.1, top] }), shapes: [{ type: "line", x0: n.t[k], x1: n.t[k], yref: "paper", y0: 0, y1: 1, line: { color: gray, width: 1 } }], uirevision: `${n.t_max}` };
  await curves.draw({ traces, layout, summary: "f and g are those of dx = f·x dt + g dω, the same process as an SDE; g is not real where σ falls.", columns: { t: n.t, sigma: n.sigma, s: n.s, f: n.f, g: n.g }, ...common });
}
