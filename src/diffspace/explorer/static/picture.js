// A picture: a Plotly plot or an element of its own, with a title, a sentence, and its code and files.

import { button, h, say } from "./controls.js";

const themes = new Map();

/** The colours of the page, for plots. */
export function theme() {
  const name = document.documentElement.dataset.theme;
  // asking for styles makes the browser lay out the page, which a picture would do many times
  if (themes.has(name)) return themes.get(name);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const palette = [0, 1, 2, 3, 4, 5].map((k) => colour(`c${k}`));
  const found = { palette, ink: colour("ink"), paper: colour("paper"), gray: colour("gray"), grid: colour("grid"), density: [[0, colour("paper")], [0.35, colour("density0")], [1, colour("density1")]] };
  themes.set(name, found);
  return found;
}

const coarse = matchMedia("(pointer: coarse)").matches;

/** An axis with a title; more of Plotly's options in `options`. */
export function axis(title, options = {}) {
  const { gray, grid, ink } = theme();
  return { title: { text: title, standoff: 6 }, gridcolor: grid, linecolor: gray, zeroline: false, color: ink, ...options };
}

export class Picture {
  constructor({ id, title, size = "", height = null }) {
    this.id = id;
    this.title = title;
    this.size = size;
    this.data = null; // what the server has answered
    this.heading = h("h2", {}, title);
    this.plot = h("div", { class: "plot", role: "img", "aria-label": title });
    if (height) this.plot.style.height = height;
    this.caption = h("figcaption");
    const small = { class: "small", disabled: true };
    this.buttons = [
      button("code", () => this.showCode(), { ...small, "aria-label": `Code of ${title}` }),
      button("PNG", () => this.image("png"), { ...small, "aria-label": `Save ${title} as PNG` }),
      button("SVG", () => this.image("svg"), { ...small, "aria-label": `Save ${title} as SVG` }),
      button("CSV", () => this.table(), { ...small, "aria-label": `Save the numbers of ${title} as CSV` }),
    ];
    const bar = h("header", {}, this.heading, h("div", { class: "buttons" }, this.buttons));
    this.element = h("figure", { class: `picture ${size}`, "data-picture": id }, bar, this.plot, this.caption);
  }

  /** A part of the width: "", "half", "third" or "two-thirds". */
  resize(size) {
    if (this.size === size) return;
    if (this.size) this.element.classList.remove(this.size);
    if (size) this.element.classList.add(size);
    this.size = size;
    if (this.plot.data) Plotly.Plots.resize(this.plot);
  }

  busy(on) {
    this.element.classList.toggle("busy", on);
  }

  /** Draw traces; `summary` is the sentence below, `columns` the table, `python` and `command` the code. */
  async draw({ traces, layout = {}, summary = "", columns = null, python = "", command = "", data = null }) {
    const { ink, grid } = theme();
    Object.assign(this, { data, columns, python, command });
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12, family: "system-ui, sans-serif" },
      margin: { l: 58, r: 14, t: 10, b: 44 }, showlegend: false, hovermode: "closest", dragmode: coarse ? false : "zoom",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)" }, uirevision: "keep",
      hoverlabel: { font: { size: 12 } }, modebar: { color: grid },
    };
    await Plotly.react(this.plot, traces, { ...base, ...layout }, { displayModeBar: false, responsive: true });
    this.say(summary);
    for (const each of this.buttons) each.disabled = false;
    this.buttons[0].hidden = !python;
    this.buttons[3].hidden = !columns;
  }

  say(summary, failed = false) {
    this.caption.textContent = summary;
    this.caption.classList.toggle("failed", failed);
    if (!failed) this.plot.setAttribute("aria-label", summary ? `${this.title}. ${summary}` : this.title);
  }

  showCode() {
    const parts = [h("h3", {}, "In Python"), h("pre", { tabindex: 0 }, h("code", {}, this.python))];
    if (this.command) parts.push(h("h3", {}, "On the command line"), h("pre", { tabindex: 0 }, h("code", {}, this.command)));
    const copy = button("Copy the Python", async () => {
      await navigator.clipboard.writeText(this.python);
      say("Copied.");
    }, { class: "primary" });
    openDialog(`Code of “${this.title}”`, ...parts, h("div", { class: "row" }, copy));
  }

  async image(format) {
    const { paper } = theme();
    const { width, height } = this.plot.getBoundingClientRect();
    const figure = { data: this.plot.data, layout: { ...this.plot.layout, paper_bgcolor: paper, plot_bgcolor: paper, title: { text: this.title, font: { size: 14 } }, margin: { ...this.plot.layout.margin, t: 48 } } };
    const url = await Plotly.toImage(figure, { format, width: Math.round(width), height: Math.round(height) + 40, scale: format === "png" ? 2 : 1 });
    save(url, `${this.id}.${format}`);
  }

  table() {
    const names = Object.keys(this.columns);
    const length = Math.max(...names.map((name) => this.columns[name].length));
    const lines = [names.join(",")];
    for (let i = 0; i < length; i++) {
      lines.push(names.map((name) => (Number.isNaN(this.columns[name][i]) ? "" : this.columns[name][i] ?? "")).join(","));
    }
    const url = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
    save(url, `${this.id}.csv`);
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
}

export function save(url, name) {
  h("a", { href: url, download: name }).click();
}

/** A dialog with a title and a button that closes it. */
export function openDialog(title, ...children) {
  const dialog = document.getElementById("dialog");
  const close = button("Close", () => dialog.close());
  dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...children, h("div", { class: "row", style: "margin-top:.8rem" }, close));
  dialog.showModal();
  return dialog;
}

/** Many lines as one trace, with gaps between them: x and y are arrays of arrays. */
export function lines(xs, ys, options) {
  const x = [], y = [];
  for (let k = 0; k < ys.length; k++) {
    for (let i = 0; i < ys[k].length; i++) {
      x.push(xs[k][i]);
      y.push(ys[k][i]);
    }
    x.push(null);
    y.push(null);
  }
  return { type: "scatter", mode: "lines", x, y, hoverinfo: "skip", ...options };
}
