// Inputs that are bound to keys of the state, each with a label, a value that can be typed, and a place for a message.

import * as state from "./state.js";

/** An element with attributes, listeners (`onclick`) and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "html") element.innerHTML = value; // of our own formulas alone
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

let count = 0;
const shown = new Map(); // key -> functions that show the value

state.listen((changed) => {
  for (const key of changed) for (const show of shown.get(key) ?? []) show(state.get(key));
});

/** Show a value again, whose control depends on more than the state. */
export function refresh(key) {
  for (const show of shown.get(key) ?? []) show(state.get(key));
}

function bind(key, show) {
  shown.set(key, [...(shown.get(key) ?? []), show]);
  show(state.get(key));
}

function frame(key, label, { wide = false, help = null } = {}, ...inputs) {
  const id = `control-${(count += 1)}`;
  inputs[0].id = id;
  const wrong = h("span", { class: "wrong", id: `${id}-wrong`, hidden: true });
  inputs[0].setAttribute("aria-describedby", `${id}-wrong`);
  const parts = [h("label", { for: id, html: label }), ...inputs, help ? h("small", { class: "help" }, help) : null, wrong];
  return h("div", { class: `control${wide ? " wide" : ""}`, "data-key": key }, parts);
}

const digits = (value) => String(Number(value.toPrecision(4)));

/** A slider with a number beside it; `log`: equal ratios; `integer`: whole numbers; `last()`: the present maximum. */
export function slider(key, label, { min, max, log = false, integer = false, least = min, most = max, last, help } = {}) {
  const parts = 1000;
  const toPlace = (value) => (log ? Math.log(value / min) / Math.log(max / min) : (value - min) / (max - min)) * parts;
  const fromPlace = (place) => {
    const share = place / parts;
    if (share <= 0) return min;
    if (share >= 1) return max;
    const value = log ? min * (max / min) ** share : min + share * (max - min);
    return integer ? Math.round(value) : Number(value.toPrecision(3));
  };
  const steps = integer && !log ? { min, max, step: 1 } : { min: 0, max: parts, step: parts / 200 };
  const plain = label.replace(/<[^>]*>/g, "");
  const range = h("input", { type: "range", ...steps, "aria-label": `${plain} (slider)` });
  const number = h("input", { type: "number", step: integer ? 1 : "any" });
  range.addEventListener("input", () => state.set({ [key]: integer && !log ? Number(range.value) : fromPlace(Number(range.value)) }));
  number.addEventListener("change", () => {
    const value = Number(number.value);
    if (number.value.trim() === "" || !Number.isFinite(value) || value < least || value > most || (integer && !Number.isInteger(value))) {
      fail(number, `expected ${integer ? "a whole number" : "a number"} from ${least} to ${most}, got ${number.value || "nothing"}`);
      return;
    }
    fail(number, "");
    state.set({ [key]: value });
  });
  bind(key, (value) => {
    if (last) range.max = last();
    if (last) value = Math.min(value, last());
    range.value = integer && !log ? value : toPlace(Math.min(Math.max(value, min), max));
    range.setAttribute("aria-valuetext", digits(value));
    number.value = digits(value);
    fail(number, "");
  });
  const element = frame(key, label, { help }, number, range);
  element.insertBefore(range, number);
  return element;
}

/** A choice among [value, label] pairs. */
export function select(key, label, choices, { help } = {}) {
  const input = h("select", {}, choices.map(([value, text]) => h("option", { value }, text)));
  input.addEventListener("change", () => state.set({ [key]: input.value }));
  bind(key, (value) => (input.value = value));
  return frame(key, label, { wide: true, help }, input);
}

/** A line of text, taken while it is typed. */
export function text(key, label, { help } = {}) {
  const input = h("input", { type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off" });
  input.addEventListener("input", () => state.set({ [key]: input.value }));
  bind(key, (value) => {
    if (document.activeElement !== input || input.value !== value) input.value = value;
  });
  return frame(key, label, { wide: true, help }, input);
}

export function check(key, label, { help } = {}) {
  const input = h("input", { type: "checkbox" });
  input.addEventListener("change", () => state.set({ [key]: input.checked }));
  bind(key, (value) => (input.checked = value));
  const element = frame(key, label, { help }, input);
  element.classList.add("check");
  return element;
}

export const button = (label, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, label);

export const group = (title, ...children) => h("fieldset", {}, h("legend", {}, title), children);

/** Show an element only where `when()` is true, now and after each change. */
export function only(when, element) {
  const show = () => (element.hidden = !when());
  state.listen(show);
  show();
  return element;
}

/** Show what is wrong with an input, "" for nothing. */
export function fail(input, message) {
  const wrong = input.closest(".control")?.querySelector(".wrong");
  if (!wrong) return;
  wrong.textContent = message;
  wrong.hidden = !message;
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

/** Show a message of the server, "name: …", at the control of that name; returns whether there is one that is visible. */
export function place(root, message) {
  for (const invalid of root.querySelectorAll(".control [aria-invalid]")) fail(invalid, "");
  if (!message) return true;
  const name = message.split(/[:, ]/, 1)[0];
  const controls = [...root.querySelectorAll(".control")].filter((each) => each.offsetParent !== null);
  const match = controls.find((each) => each.dataset.key === name) ?? controls.find((each) => each.dataset.key.endsWith(`.${name.split(".").pop()}`) || each.dataset.key === name.split(".").pop());
  if (!match) return false;
  fail(match.querySelector("input:not([type=range]), select, textarea"), message);
  return true;
}

/** Tell everybody, screen readers too, for some seconds. */
export function say(message) {
  const said = document.getElementById("said");
  said.textContent = message;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (said.textContent = ""), 4000);
}
