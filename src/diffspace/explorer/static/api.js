// Requests to the server, of which the newest of each place counts, and tensors from base64.

const page = Math.random().toString(36).slice(2);

/** Replace {"shape", "f8"|"f4"|"u1"} by typed arrays with a shape. */
export function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  const kind = ["f8", "f4", "u1"].find((name) => name in value);
  if (kind && "shape" in value) {
    const text = atob(value[kind]);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const array = new { f8: Float64Array, f4: Float32Array, u1: Uint8Array }[kind](bytes.buffer);
    array.shape = value.shape;
    return array;
  }
  for (const name of Object.keys(value)) value[name] = decode(value[name]);
  return value;
}

/** Row i of an array of at least two dimensions. */
export function row(array, i) {
  const size = array.length / array.shape[0];
  const part = array.subarray(i * size, (i + 1) * size);
  part.shape = array.shape.slice(1);
  return part;
}

/** All rows of an array. */
export const rows = (array) => Array.from({ length: array.shape[0] }, (_, i) => row(array, i));

/** Column k of a matrix. */
export function column(array, k) {
  const [count, width] = array.shape;
  return Float64Array.from({ length: count }, (_, i) => array[i * width + k]);
}

export class Refused extends Error {}

async function post(kind, name, place, settings, signal) {
  const response = await fetch(`/api/${kind}/${name}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ place: `${page}/${place}`, settings }),
    signal,
  });
  return response;
}

function check(content, status) {
  if (content.superseded) throw new DOMException("superseded", "AbortError");
  if (content.error) throw new Refused(content.error);
  if (status >= 400) throw new Refused(`the server answered ${status}`);
  return content;
}

/** A picture's numbers. */
export async function picture(name, place, settings, signal) {
  const response = await post("picture", name, place, settings, signal);
  return decode(check(await response.json(), response.status));
}

/** A longer computation: `tell(event)` is called on the way; resolves to its result. */
export async function stream(name, place, settings, tell, signal) {
  const response = await post("stream", name, place, settings, signal);
  if (!response.ok) check(await response.json(), response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("the server ended before the result; is it still running?");
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = decode(check(JSON.parse(line), 200));
      if ("result" in event) return event.result;
      tell(event);
    }
  }
}

/** Runs `ask(signal)` for the newest settings alone: one request at a time, the next as soon as it is there. */
export class Newest {
  constructor(ask) {
    this.ask = ask;
    this.running = false;
    this.again = false;
    this.slow = null;
  }

  /** Ask now, or as soon as the present request is done; one that takes long is given up. */
  async request() {
    if (this.running) {
      this.again = true;
      if (performance.now() - this.started > 300) this.slow?.abort();
      return;
    }
    this.running = true;
    do {
      this.again = false;
      this.started = performance.now();
      this.slow = new AbortController();
      try {
        await this.ask(this.slow.signal);
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      }
    } while (this.again);
    this.running = false;
  }
}
