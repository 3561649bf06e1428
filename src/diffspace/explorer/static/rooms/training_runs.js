// Trainings: one at a time, the newest six kept. Their settings are in the address, so that a link trains them again.

import { Refused, stream } from "../api.js";
import { say } from "../controls.js";
import { dataSettings } from "../data.js";
import * as state from "../state.js";

const MOST = 6;

/** The settings of a run as a word of the address: the noise levels have numbers only where they are one's own. */
function write() {
  const { prediction, weighting, draws, P_mean, P_std, own_sigma, sigma_data, steps, width, seed } = state.part("t.");
  const noise = draws === "lognormal" ? `lognormal:${P_mean}:${P_std}` : draws;
  return [prediction, weighting, noise, own_sigma ? sigma_data : "", steps, width, seed].join(",");
}

function read(word) {
  const [prediction, weighting, noise = "", sigma, steps, width, seed] = word.split(",");
  const [draws, mean, std] = noise.split(":");
  const own = draws === "lognormal" ? { P_mean: Number(mean), P_std: Number(std) } : {};
  return { prediction, weighting, draws, ...own, sigma_data: sigma ? Number(sigma) : null, steps: Number(steps), width: Number(width), seed: Number(seed) };
}

const LAMBDA = { EDM: "λ of EDM", noise: "λ = 1/σ²", uniform: "λ = 1" };

/** What tells a run from that of EDM. */
function name({ prediction, weighting, draws, P_mean, P_std, sigma_data, steps, width, seed }) {
  const parts = [prediction];
  if (weighting !== "own") parts.push(LAMBDA[weighting]);
  if (draws === "lognormal") parts.push(`p(${P_mean}, ${P_std})`);
  else if (draws !== "EDM") parts.push(`p of ${draws}`);
  if (sigma_data !== null) parts.push(`σ_data ${sigma_data}`);
  if (steps !== 400) parts.push(`${steps} steps`);
  if (width !== 64) parts.push(`width ${width}`);
  if (seed !== 0) parts.push(`seed ${seed}`);
  return parts.join(", ");
}

const words = () => state.get("t.runs").split(";").filter((word) => word);

export class Runs {
  /** `changed(step)`: `step` where only the number of steps has changed. */
  constructor(changed) {
    this.changed = changed;
    this.list = []; // oldest first: {word, name, settings, stages, step, done, stopped, seconds, python}
    this.active = null;
    this.version = 0; // of what is drawn
    this.failure = ""; // why the last training did not begin, or ended early
  }

  get newest() {
    return this.list.at(-1) ?? null;
  }

  tell() {
    this.version += 1;
    this.changed();
  }

  /** Train the design of the controls. */
  train() {
    const word = write();
    if (this.list.some((run) => run.word === word && run.done)) return say("This design is trained already: change it, or the seed.");
    if (this.active) this.stop();
    this.failure = "";
    this.list = this.list.filter((run) => run.word !== word);
    this.write([...words().filter((other) => other !== word), word].slice(-MOST));
    this.list = this.list.slice(-(MOST - 1));
    this.resume();
  }

  write(all) {
    this.writing = true;
    state.set({ "t.runs": all.join(";") });
    this.writing = false;
  }

  stop() {
    const run = this.active;
    if (!run) return;
    run.stopped = true;
    run.controller.abort();
    this.active = null;
    if (!run.stages.length) this.list = this.list.filter((other) => other !== run);
    // what waits behind it in a link is given up too
    this.write(words().filter((word) => this.list.some((other) => other.word === word && other.done)));
    this.tell();
  }

  clear() {
    if (this.active) this.stop();
    this.failure = "";
    this.list = [];
    this.write([]);
    this.tell();
  }

  /** After a change of the state: runs are of the data that they have seen. */
  follow(changed) {
    if (this.writing) return;
    const data = [...changed].some((key) => key.startsWith("data."));
    if (!data && !changed.has("t.runs")) return;
    if (this.active) {
      this.active.stopped = true;
      this.active.controller.abort();
      this.active = null;
    }
    const had = this.list.length;
    this.list = data ? [] : this.list.filter((run) => run.done && words().includes(run.word));
    if (data && !changed.has("t.runs")) this.write([]);
    if (data && had) say("The data have changed, and the runs are cleared.");
    this.tell();
    this.resume();
  }

  /** Train what the address has and is not trained yet, one after the other. */
  async resume() {
    if (this.active) return;
    const word = words().slice(-MOST).find((each) => !this.list.some((run) => run.word === each));
    if (!word) return;
    const settings = read(word);
    if (![settings.steps, settings.width, settings.seed].every(Number.isInteger)) {
      this.failure = `t.runs: “${word.slice(0, 40)}” is not a run`;
      this.write(words().filter((other) => other !== word));
      this.changed();
      return this.resume();
    }
    const run = { word, name: name(settings), settings, stages: [], step: 0, done: false, stopped: false, controller: new AbortController() };
    this.active = run;
    this.list.push(run);
    this.tell();
    try {
      const result = await stream("training", "training", { data: dataSettings(), ...settings }, (event) => this.take(run, event), run.controller.signal);
      Object.assign(run, result, { done: true });
      if (this.active === run) this.active = null;
      this.tell();
      this.resume();
    } catch (error) {
      if (run.stopped) return;
      if (this.active === run) this.active = null;
      this.list = this.list.filter((other) => other !== run);
      this.write(words().filter((other) => other !== word));
      if (error.name !== "AbortError") this.failure = error instanceof Refused ? error.message : `The training ended: ${error.message}`;
      if (this.failure) say(this.failure);
      this.tell();
      this.resume();
    }
  }

  take(run, { step, stage }) {
    if (run.stopped) return;
    if (stage) {
      run.stages.push(stage);
      run.step = stage.step;
      this.tell();
    } else {
      run.step = step;
      this.changed(true);
    }
  }
}
