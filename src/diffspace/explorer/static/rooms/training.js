// Room 3: c_skip, c_out, c_in and c_noise over σ, the loss by σ, and small networks that learn with them.

import { picture } from "../api.js";
import { button, check, group, h, only, refresh, select, slider } from "../controls.js";
import { dataControls, dataSettings } from "../data.js";
import { Picture } from "../picture.js";
import { Room, fixed, readouts } from "../room.js";
import * as state from "../state.js";
import { Handles } from "./training_handles.js";
import { drawCoefficients, drawDenoiser, drawLearning, drawLoss, drawSamples, drawTargets, shown } from "./training_pictures.js";
import { Runs } from "./training_runs.js";

const STAGES = 11; // of a run, after its start

state.declare({
  "t.prediction": "EDM", "t.weighting": "own", "t.draws": "EDM", "t.P_mean": -1.2, "t.P_std": 1.2, "t.own_sigma": false, "t.sigma_data": 0.5,
  "t.steps": 400, "t.width": "64", "t.seed": 0, "t.sigma": 0.3, "t.stage": STAGES, "t.measure": "excess", "t.runs": "",
});

const PREDICTIONS = [["EDM", "EDM: a mixture by σ"], ["VP", "VP: predicts ε"], ["VE", "VE: predicts −ε, c_in = 1"], ["iDDPM", "iDDPM: predicts ε, by index"], ["ε", "ε-prediction"], ["x₀", "x₀-prediction: c_skip = 0"], ["v", "v-prediction"], ["flow", "flow: the velocity ε − x₀"]];
const WEIGHTINGS = [["own", "1/c_out², as in Table 1"], ["EDM", "EDM: 1/σ² + 1/σ_data²"], ["noise", "1/σ², that of ε"], ["uniform", "1, that of x₀"]];
const DRAWS = [["EDM", "EDM: lognormal, moved to σ_data"], ["lognormal", "lognormal, of my own"], ["VP", "VP: uniform in t"], ["VE", "VE: uniform in ln σ"], ["iDDPM", "iDDPM: uniform over its levels"]];

const math = (inside) => `<math>${inside}</math>`;
const c = (name) => `<msub><mi>c</mi><mtext>${name}</mtext></msub>`;
const FORMULA = `<mi>D</mi><mo>(</mo><mi>x</mi><mo>;</mo><mi>σ</mi><mo>)</mo><mo>=</mo>${c("skip")}<mo>·</mo><mi>x</mi><mo>+</mo>${c("out")}<mo>·</mo><mi>F</mi><mo>(</mo>${c("in")}<mo>·</mo><mi>x</mi><mo>;</mo><mspace width="0.2em"/>${c("noise")}<mo>)</mo>`;
const INTRO = `A network <i>F</i> becomes a denoiser <i>D</i> by four functions of the noise level: <math display="block">${FORMULA}</math> With ${math(`${c("skip")}<mo>=</mo><mn>1</mn>`)} the network gives the noise alone, and its errors reach <i>D</i> multiplied by σ: much too large where there is much noise. With ${math(`${c("skip")}<mo>=</mo><mn>0</mn>`)} it has to give the whole signal, even where x is nearly clean already. EDM goes from 1 to 0 around σ<sub>data</sub>, so that <i>F</i> always sees and gives numbers of variance 1. Train with each and compare.`;

/** The settings of a design, as the server takes them. */
const design = () => {
  const { prediction, weighting, draws, P_mean, P_std, own_sigma, sigma_data } = state.part("t.");
  return { data: dataSettings(), prediction, weighting, draws, P_mean, P_std, sigma_data: own_sigma ? sigma_data : null };
};

const COLUMNS = ["VP", "VE", "iDDPM", "EDM"];

function designControls(note) {
  const own = () => state.get("t.own_sigma");
  const column = (name) => button(name, () => state.set({ "t.prediction": name, "t.weighting": "own", "t.draws": name }), { class: "small", "aria-label": `All choices of ${name}` });
  return group(
    "Design",
    h("div", { class: "row" }, h("span", { class: "help" }, "all of"), COLUMNS.map(column)),
    select("t.prediction", "preconditioning", PREDICTIONS),
    select("t.weighting", "weight λ(σ) of the loss", WEIGHTINGS),
    select("t.draws", "noise levels of the training", DRAWS),
    only(() => state.get("t.draws") === "lognormal", slider("t.P_mean", "<i>P</i><sub>mean</sub> of ln σ", { min: -6, max: 4, least: -12, most: 12 })),
    only(() => state.get("t.draws") === "lognormal", slider("t.P_std", "<i>P</i><sub>std</sub> of ln σ", { min: 0.1, max: 3, least: 0.05, most: 5 })),
    check("t.own_sigma", "a σ_data of my own", { help: "Without it, EDM is told the deviation of the data." }),
    only(own, slider("t.sigma_data", "σ<sub>data</sub>", { min: 0.02, max: 20, log: true, least: 0.001, most: 1000 })),
    note,
  );
}

export function trainingRoom() {
  const pictures = {
    coefficients: new Picture({ id: "coefficients-by-sigma", title: "The four functions of σ", size: "half", height: "21rem" }),
    targets: new Picture({ id: "targets-by-sigma", title: "What F sees and gives", size: "half", height: "21rem" }),
    loss: new Picture({ id: "loss-by-sigma", title: "The loss by σ", size: "half", height: "24rem" }),
    learning: new Picture({ id: "learning", title: "How fast it learns", size: "half", height: "24rem" }),
    denoiser: new Picture({ id: "denoiser", title: "The denoiser, learnt and exact", size: "half", height: "20rem" }),
    samples: new Picture({ id: "samples", title: "Samples of the network", size: "half", height: "20rem" }),
  };
  const [numbers, show] = readouts(["σ<sub>data</sub> of the design", "deviation of the data", "<i>P</i><sub>mean</sub>", "<i>P</i><sub>std</sub>", "loss", "attainable"]);
  const note = h("small", { class: "help" });
  const runs = new Runs((step) => (step ? drawBar() : drawTraining()));
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Training" });
  const said = h("span", { class: "help" });
  const follow = () => {
    state.set({ "t.stage": STAGES });
    runs.train();
  };
  const train = button("Train", follow, { class: "primary" });
  const stop = button("Stop", () => runs.stop());
  const clear = button("Clear", () => runs.clear(), { "aria-label": "Clear all runs" });
  const bar = h("div", { class: "training" }, h("div", { class: "row" }, train, stop, clear, progress, said), numbers);
  const room = new Room({
    id: "training",
    title: "Training",
    intro: INTRO,
    controls: [
      dataControls(),
      designControls(note),
      group("Training", slider("t.steps", "steps, of 128 samples each", { min: 100, max: 5000, log: true, integer: true }),
        select("t.width", "width of the network", [["16", "16"], ["32", "32"], ["64", "64"], ["128", "128"]]), slider("t.seed", "seed", { min: 0, max: 20, integer: true, most: 2 ** 31 })),
      group("View", slider("t.sigma", "σ of the denoiser shown", { min: 0.01, max: 100, log: true, least: 0.0001, most: 10000 }),
        slider("t.stage", "stage of the newest run", { min: 0, max: STAGES, integer: true, last: () => (runs.newest?.stages.length ?? STAGES + 1) - 1, help: "0: before training; the last: its end" }),
        select("t.measure", "learning curve", [["excess", "above the attainable loss"], ["loss", "the loss, beside the attainable"]])),
    ],
    pictures: Object.values(pictures),
    readouts: bar,
  });
  const handles = new Handles(pictures.loss, room);

  function drawBar() {
    const active = runs.active, run = runs.newest;
    stop.disabled = !active;
    clear.disabled = !runs.list.length;
    progress.hidden = !active;
    progress.value = active ? active.step / Math.max(active.settings.steps, 1) : 0;
    said.classList.toggle("failed", Boolean(runs.failure));
    said.textContent = runs.failure ? runs.failure : active ? `step ${active.step} of ${active.settings.steps}` : run?.done ? `trained in ${fixed(run.seconds, 2)} s` : run ? "stopped" : "A network of this design, in some seconds.";
    const n = room.numbers;
    if (n) show(fixed(n.sigma_data), fixed(n.deviation), fixed(n.P_mean), fixed(n.P_std), fixed(shown(run)?.loss, 4), fixed(n.exact.attainable_loss, 4));
  }

  /** Everything that changes while a network learns. */
  async function drawTraining() {
    drawBar();
    refresh("t.stage");
    const n = room.numbers;
    if (!n || !room.area.isConnected) return;
    await Promise.all([drawLoss(pictures.loss, n, runs.newest), drawRuns()]);
    handles.place();
    document.dispatchEvent(new Event("drawn"));
  }

  const drawRuns = () => {
    const n = room.numbers;
    return Promise.all([drawLearning(pictures.learning, n.exact, runs), drawDenoiser(pictures.denoiser, n.exact, runs.newest), drawSamples(pictures.samples, n.exact, runs.newest)]);
  };

  let known = { key: "", exact: null };
  const exact = async (signal) => {
    const key = JSON.stringify(dataSettings());
    if (known.key !== key) known = { key, exact: await picture("exact", "training", { data: dataSettings() }, signal) };
    return known.exact;
  };

  const OWN = /^(data|room|t\.(prediction|weighting|draws|P_mean|P_std|own_sigma|sigma_data))/;
  room.affects = (changed) => {
    runs.follow(changed);
    return [...changed].some((key) => OWN.test(key));
  };
  room.also = (changed) => {
    if (!room.numbers) return;
    if (changed.has("t.sigma")) drawDenoiser(pictures.denoiser, room.numbers.exact, runs.newest);
    if (changed.has("t.stage")) drawTraining();
    if (changed.has("t.measure")) drawLearning(pictures.learning, room.numbers.exact, runs);
  };
  room.ask = async (signal) => {
    const [curves, known] = await Promise.all([picture("curves", "training", design(), signal), exact(signal)]);
    return { ...curves, exact: known };
  };
  let drawn = {};
  room.draw = async (n) => {
    note.textContent = `The data deviate from their mean by ${fixed(n.deviation)}; the design takes them for ${fixed(n.sigma_data)}.`;
    drawBar();
    const { prediction, weighting } = state.part("t."), { theme } = document.documentElement.dataset;
    // while the noise levels of the training are dragged these stay as they are
    const same = `${theme} ${prediction} ${weighting} ${n.sigma_data} ${n.deviation}`, learnt = `${theme} ${known.key} ${runs.version}`;
    await drawLoss(pictures.loss, n, runs.newest);
    handles.place();
    if (drawn.curves !== same) await Promise.all([drawCoefficients(pictures.coefficients, n), drawTargets(pictures.targets, n)]);
    else for (const each of [pictures.coefficients, pictures.targets]) Object.assign(each, { data: n, python: n.python });
    if (drawn.runs !== learnt) await drawRuns();
    drawn = { curves: same, runs: learnt };
  };
  room.runs = runs;
  drawBar();
  runs.resume();
  return room;
}
