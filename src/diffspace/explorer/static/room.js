// What the rooms share: controls on the left, pictures on the right, one request for the newest settings.

import { Newest, Refused } from "./api.js";
import { h, place } from "./controls.js";
import * as state from "./state.js";

/** Milliseconds from each change of a control to the first picture of it, for tests and the curious. */
export const latencies = [];

/** Pictures that are asked for together: one request for the newest settings, and its failure shown at the control. */
export class Study {
  /** `ask(signal)` gets numbers, `draw(numbers)` draws them; messages go to the controls in `panel`. */
  constructor({ panel, pictures, ask, draw }) {
    Object.assign(this, { panel, pictures, ask, draw });
    this.newest = new Newest((signal) => this.refresh(signal));
    this.changed = 0;
    this.latencies = null;
  }

  /** Ask for what the state says, and draw it. */
  update() {
    this.changed ||= performance.now();
    this.drawn = false; // until the picture is of what the state says
    for (const picture of this.pictures) picture.busy(true);
    this.newest.request();
  }

  /** Give up what is being asked for. */
  stop() {
    this.newest.again = false;
    this.newest.slow?.abort();
  }

  /** Wait until what is drawn is seen; the first time after a change of a control, note how long that took. */
  async painted() {
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
    if (this.since) this.latencies?.push(performance.now() - this.since);
    this.since = 0;
  }

  async refresh(signal) {
    const changed = this.changed;
    this.changed = 0;
    try {
      const numbers = await this.ask(signal);
      this.numbers = numbers;
      this.since = changed;
      await this.draw(numbers);
      place(this.panel, "");
      await this.painted();
      if (!this.newest.again) {
        this.drawn = true;
        document.dispatchEvent(new Event("drawn"));
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const message = error instanceof Refused ? error.message : error instanceof TypeError ? `The server does not answer (${error.message}).` : String(error);
      if (!(error instanceof Refused) && !(error instanceof TypeError)) console.error(error);
      const placed = place(this.panel, message);
      for (const picture of this.pictures) picture.say(placed && this.numbers ? "The picture is of the last settings that were right." : message, true);
    } finally {
      if (!this.newest.again) for (const picture of this.pictures) picture.busy(false);
    }
  }
}

export class Room extends Study {
  /** `affects(changed)`: whether the room has to be asked for again; `ask` and `draw` are set by the room. */
  constructor({ id, title, intro, controls, pictures, readouts = null }) {
    const panel = h("section", { class: "controls", "aria-label": "Settings" }, h("p", { class: "intro", html: intro }), controls);
    super({ panel, pictures });
    Object.assign(this, { id, title, latencies });
    this.area = h("section", { class: "pictures", "aria-label": "Pictures" }, readouts, pictures.map((picture) => picture.element));
    pictures[0].element.classList.add("first");
    this.elements = [this.panel, this.area];
  }
}

export const fixed = (value, digits = 3) => (value === null || value === undefined || Number.isNaN(value) ? "–" : Number(Number(value).toPrecision(digits)).toString());

/** Numbers by name: a <dl> and a function that sets its values. */
export function readouts(names) {
  const values = names.map((name) => [name, h("dd")]);
  const element = h("dl", { class: "readouts" }, values.map(([name, value]) => h("div", {}, h("dt", { html: name }), value)));
  return [element, (...given) => given.forEach((text, k) => (values[k][1].textContent = text))];
}

export { state };
