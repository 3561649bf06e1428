// The page: rooms, the address, the theme, and what all rooms share.

import { h, say } from "./controls.js";
import { latencies } from "./room.js";
import { modelRoom } from "./rooms/model.js";
import { processRoom } from "./rooms/process.js";
import { samplerRoom } from "./rooms/sampler.js";
import { trainingRoom } from "./rooms/training.js";
import * as state from "./state.js";
import { chooseTour, showTour } from "./tours.js";

state.declare({ room: "process" });

const MAKERS = [["process", "Process", processRoom], ["sampler", "Sampler", samplerRoom], ["training", "Training", trainingRoom], ["model", "Model", modelRoom]];
const made = new Map();
const about = await (await fetch("/api/about")).json(); // version, models, solvers

function current() {
  const id = state.get("room");
  if (!made.has(id)) made.set(id, MAKERS.find(([name]) => name === id)[2](about));
  return made.get(id);
}

function showRoom() {
  const room = current();
  document.getElementById("room").replaceChildren(...room.elements);
  for (const link of document.querySelectorAll("#rooms a")) {
    if (link.dataset.room === room.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${room.title} – diffspace explorer`;
}

function start() {
  const rooms = document.getElementById("rooms");
  for (const [id, title] of MAKERS) {
    rooms.append(h("a", { href: `#${id}`, "data-room": id, onclick: (event) => {
      event.preventDefault();
      state.set({ room: id }, { step: true });
    } }, title));
  }
  state.load(location.hash, MAKERS.map(([id]) => id));
  showRoom();
  current().update();
  showTour(current());
  history.replaceState(null, "", state.address()); // without what could not be read
  state.listen((changed) => {
    if (changed.has("room")) showRoom();
    const room = current();
    if (room.affects(changed)) room.update();
    else room.also?.(changed);
    showTour(room);
  });
  document.addEventListener("drawn", () => showTour(current()));
  document.getElementById("tours").addEventListener("click", chooseTour);
  addEventListener("popstate", () => state.load(location.hash, MAKERS.map(([id]) => id)));
  document.getElementById("link").addEventListener("click", async () => {
    const link = `${location.origin}${location.pathname}${state.address()}`;
    try {
      await navigator.clipboard.writeText(link);
      say("The link is copied. It leads to the same pictures.");
    } catch {
      say(link);
    }
  });
  themes();
}

function themes() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
    const room = current();
    if (room.numbers) room.draw(room.numbers);
  };
  dark.addEventListener("change", apply);
  document.getElementById("theme").addEventListener("click", () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}

// what tests and the curious read
window.explorer = { state, latencies, room: current };
start();
