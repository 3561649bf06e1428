// What the page shows, as one flat mapping that is also its address: keys that differ from their defaults.

const schema = new Map(); // key -> {value, kind}
const values = new Map();
const listeners = new Set();

/** Declare keys with their defaults; the kind follows from the default: number, text, flag, or rows of numbers. */
export function declare(defaults) {
  for (const [key, value] of Object.entries(defaults)) {
    const kind = Array.isArray(value) ? "rows" : { number: "number", boolean: "flag" }[typeof value] ?? "text";
    schema.set(key, { value, kind });
    values.set(key, value);
  }
}

export const get = (key) => values.get(key);

/** The keys below a prefix, without it, as an object. */
export function part(prefix) {
  const found = {};
  for (const [key, value] of values) if (key.startsWith(prefix)) found[key.slice(prefix.length)] = value;
  return found;
}

export const isDefault = (key) => write(key, values.get(key)) === write(key, schema.get(key).value);

/** Set some keys, tell the listeners which have changed, and write the address; `step`: as a new entry of the history. */
export function set(changes, { step = false } = {}) {
  const changed = new Set();
  for (const [key, value] of Object.entries(changes)) {
    if (!schema.has(key)) throw new Error(`unknown key ${key}`);
    if (write(key, values.get(key)) === write(key, value)) continue;
    values.set(key, value);
    changed.add(key);
  }
  if (changed.size) publish(changed, step);
}

/** The defaults of everything, then these changes. */
export function reset(changes, options) {
  const all = {};
  for (const [key, { value }] of schema) all[key] = value;
  set({ ...all, ...changes }, options);
}

/** Call `listener(changed)` after each change with the set of keys. */
export function listen(listener) {
  listeners.add(listener);
}

let timer = 0;
function publish(changed, step) {
  clearTimeout(timer);
  const save = () => history[step ? "pushState" : "replaceState"](null, "", address());
  // browsers allow some hundred changes of the address in half a minute
  if (step) save();
  else timer = setTimeout(save, 150);
  for (const listener of listeners) listener(changed);
}

function write(key, value) {
  return schema.get(key).kind === "rows" ? value.map((row) => row.join(",")).join(";") : String(value);
}

/** #room?key=value&…, with the keys that differ from the defaults. */
export function address() {
  const parts = [];
  for (const [key, value] of values) {
    if (key !== "room" && !isDefault(key)) parts.push(`${key}=${encodeURIComponent(write(key, value)).replace(/%2C/g, ",").replace(/%3B/g, ";")}`);
  }
  return `#${values.get("room")}${parts.length ? `?${parts.join("&")}` : ""}`;
}

function read(key, text) {
  const { kind, value } = schema.get(key);
  if (kind === "text") return text.slice(0, 500);
  if (kind === "flag") return text === "true";
  if (kind === "number") return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : value;
  if (text === "") return value.length && key === "data.modes" ? value : [];
  const rows = text.split(";").slice(0, 2000).map((row) => row.split(",").map(Number));
  return rows.every((row) => row.every(Number.isFinite)) ? rows : value;
}

/** Read an address; unknown keys are left out, and what cannot be read is the default. */
export function load(hash, rooms) {
  const [room, query = ""] = hash.replace(/^#/, "").split("?");
  const found = { room: rooms.includes(room) ? room : rooms[0] };
  for (const pair of query.split("&")) {
    const at = pair.indexOf("=");
    const key = at < 0 ? pair : pair.slice(0, at);
    if (key === "room" || !schema.has(key)) continue;
    try {
      found[key] = read(key, decodeURIComponent(pair.slice(at + 1)));
    } catch {
      continue; // a percent sign that escapes nothing
    }
  }
  reset(found);
}
