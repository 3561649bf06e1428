// Guided tours: each claim of the article in five steps, with a question that is answered by moving something.

import { button, h } from "./controls.js";
import { PRESETS } from "./data.js";
import { openDialog } from "./picture.js";
import * as state from "./state.js";

const narrow = PRESETS["two narrow modes"];
const wide = PRESETS["one wide mode"];
const percent = (value) => `${Number((100 * value).toPrecision(3))} %`;
const short = (value, digits = 2) => Number(value.toPrecision(digits)).toString();

/** The runs of two designs of the room of training, when both are trained; the first that is not EDM’s own, then EDM’s. */
function losses(room, one, other) {
  const runs = (room?.runs?.list ?? []).filter((run) => run.done);
  const plain = ({ settings }) => settings.weighting === "own" && settings.draws === "EDM" && settings.sigma_data === null;
  const second = runs.findLast((run) => run.settings.prediction === other && plain(run));
  const first = runs.findLast((run) => run.settings.prediction === one && run !== second);
  return first && second ? [first, second] : null;
}

const told = (runs) => `${runs.map((run) => `${run.name}: ${short(run.stages.at(-1).loss, 3)}`).join(", ")} after ${runs[0].settings.steps} steps.`;

/*
 * A step: `text` and `question`; `start` is the state that it begins with, `done(get, numbers, room)` whether the question is
 * answered, `answer(numbers, first, room)` what there is to see then, and `move` a change that answers it, for “Show me” and for tests.
 */
export const TOURS = [
  {
    id: "processes",
    title: "Why does any σ(t), s(t) work?",
    claim: "A common framework: σ(t) and s(t) can be chosen freely, and the flow still leads to the data.",
    steps: [
      {
        text: "On the right is noise, on the left are the data. Each line is a way from one to the other; the shades are the density of noisy data at each time.",
        question: "Move the time to 0. Where are the dots then?",
        start: { room: "process" },
        done: (get) => get("time") <= 0.02,
        answer: () => "At the data: at t = 0 nothing is left of the noise, and the dots lie under the three modes.",
        move: { time: 0 },
      },
      {
        text: "VP, the process of DDPM, also scales: s(t) shrinks the data while noise comes in, so that the sum stays about as large as before.",
        question: "Choose VP. Do the lines still end at the same data?",
        start: { room: "process", time: 0 },
        done: (get) => get("process.name") === "VP",
        answer: (n) => `Yes. They bend more (${percent(n.deviation)} of their way), but at t = 0 they are at the same modes.`,
        move: { "process.name": "VP" },
      },
      {
        text: "This process is made up: σ(t) rises and falls on its way, s(t) swings. Nobody would choose it.",
        question: "Change the formula of s(t) to 1/(1+t), or to any other that is positive. Do the lines still lead to the data?",
        start: { room: "process", "process.name": "formula", lines: 40 },
        done: (get, n) => get("process.s") !== "(1 + 0.35 sin(11 t)) / sqrt(1 + 4 t^2)" && n?.dim,
        answer: () => "They do: x/s(t) is always the same line, only seen larger or smaller. s(t) and σ(t) say when, and how large, a point of a line is seen.",
        move: { "process.s": "1/(1+t)" },
      },
      {
        text: "Between two processes there is another one: here the geometric means of their σ and s.",
        question: "Take VP all the way to EDM with “how far towards it”. What happens to “lines bent by”?",
        start: { room: "process", "process.name": "VP", "towards.name": "EDM" },
        done: (get) => get("share") >= 0.98,
        answer: (n) => `It falls to ${percent(n.deviation)}: the ends are the same all the way, the lines get straighter.`,
        move: { share: 1 },
      },
      {
        text: "f(t) and g(t) are the older way to write a process: dx = f·x dt + g dω. They follow from σ and s: f = ṡ/s and g = s·√(2σ̇σ).",
        question: "Type σ(t) = t and s(t) = 1. What are f and g?",
        start: { room: "process", "process.name": "formula", "process.sigma": "t^2", "process.s": "1/(1+t)", "process.t_max": 2 },
        done: (get, n) => n?.s && n.s.every((value) => Math.abs(value - 1) < 1e-9) && n.sigma.every((value, i) => Math.abs(value - n.t[i]) < 1e-9),
        answer: () => "f = 0 and g = √(2t): nothing is scaled, and the variance of the noise grows at the rate 2t. That is EDM’s choice.",
        move: { "process.sigma": "t", "process.s": "1" },
      },
    ],
  },
  {
    id: "curvature",
    title: "Why does EDM’s flow bend so little?",
    claim: "σ(t) = t, s(t) = 1 makes trajectories nearly straight, so that large steps do little harm.",
    steps: [
      {
        text: "With σ = t and s = 1 the lines fan out straight from the data; what bends is near the data alone.",
        question: "Raise “shown up to σ =” to 40 or more. How much are the lines bent now, as a part of the way that they go?",
        start: { room: "process" },
        done: (get) => get("sigma_max") >= 40,
        answer: (n) => `Only ${percent(n.deviation)}: nearly all of the way is straight.`,
        move: { sigma_max: 80 },
      },
      {
        text: "The same data, up to the same noise, in EDM’s process. “18 Euler steps miss by” is what counts in the end: how far from the exact ends 18 steps at the same noise levels lead.",
        question: "Try VP, VE, cosine and rectified flow. Does the process that looks straightest miss by least?",
        start: { room: "process", sigma_max: 80 },
        done: (get) => get("process.name") !== "EDM",
        answer: (n, first) => `Not always. This one is bent by ${percent(n.deviation)} of its way and misses by ${short(n.euler_error)}; EDM’s by ${percent(first.deviation)} and ${short(first.euler_error)}. VP and cosine shrink the picture as noise comes in: the way is short, so that a bend is a large part of it, and for data of deviation 1, as these, lines hardly move and steps miss little. VE misses most. What EDM’s choice has for data of any size, the next steps show.`,
        move: { "process.name": "VP" },
      },
      {
        text: "Here a sampler takes its first steps. The dashed lines are tangents: where would a single step to σ = 0 lead?",
        question: "Take steps with “a step on”. Where do the tangents meet σ = 0, and how does that place change?",
        start: { room: "sampler", "sampler.sigma_max": 10, "a.solver": "euler", "a.num_steps": 14, step: 4, tracks: 6 },
        done: (get) => get("step") >= 7 && get("step") < 14,
        answer: () => "They meet it at D(x; σ), the denoiser’s answer. It moves slowly while σ falls, so the tangent hardly turns, so the line is nearly straight.",
        move: { step: 9 },
      },
      {
        text: "What bends a line is that D changes: while σ is larger than the data, D is about their mean; near σ = the distance of the modes it makes up its mind.",
        question: "Look at the steps between σ = 2 and σ = 0.3: step on until the tangents of all lines point into a mode.",
        start: { room: "sampler", "sampler.sigma_max": 10, "a.solver": "heun", "a.num_steps": 24, step: 8, tracks: 6, ...narrow },
        done: (get, n) => n?.a && get("step") <= n.a.num_steps && n.a.sigma_hat[Math.min(get("step"), n.a.num_steps - 1)] < 0.4,
        answer: () => "Below σ ≈ 0.4 each line knows its mode. What is left is straight again: only the range in between needs short steps.",
        move: { step: 18 },
      },
      {
        text: "One wide Gaussian has no modes to choose from. Its lines are hyperbolas, x ∝ √(σ² + σ_data²).",
        question: "Lower N as far as it goes while the RMS error stays below 0.2. How few steps are enough?",
        start: { room: "sampler", ...wide, "a.num_steps": 18 },
        done: (get, n) => n?.a && get("a.num_steps") <= 10 && n.a.rms < 0.2,
        answer: (n) => `${n.a.num_steps} steps leave ${short(n.a.rms)}. With fewer than about 8 the error grows fast: one step then has to cross the whole bend around σ = σ_data.`,
        move: { "a.num_steps": 9 },
      },
    ],
  },
  {
    id: "heun",
    title: "What is Heun’s second evaluation worth?",
    claim: "A second-order method is an excellent trade between error and evaluations.",
    steps: [
      {
        text: "Euler’s method follows the tangent for a whole step. Each step costs one evaluation of the denoiser.",
        question: "Double N from 16 to 32. What happens to the RMS error?",
        start: { room: "sampler", "a.solver": "euler", "a.num_steps": 16, "data.modes": wide["data.modes"], "data.points": [] },
        done: (get) => get("a.num_steps") === 32,
        answer: (n, first) => `It falls from ${short(first.a.rms)} to ${short(n.a.rms)}, to about a half: order 1.`,
        move: { "a.num_steps": 32 },
      },
      {
        text: "Heun’s method looks at the slope at the end of Euler’s step, too, and takes the mean of both: two evaluations for each step.",
        question: "Double N from 16 to 32 again. By how much does the error fall now?",
        start: { room: "sampler", "a.solver": "heun", "a.num_steps": 16, "data.modes": wide["data.modes"], "data.points": [] },
        done: (get) => get("a.num_steps") === 32,
        answer: (n, first) => `From ${short(first.a.rms)} to ${short(n.a.rms)}, to about a quarter: order 2.`,
        move: { "a.num_steps": 32 },
      },
      {
        text: "The fair comparison is by evaluations. A is Heun with 18 steps, B is Euler with 35: 35 evaluations each, on the same noise.",
        question: "Compare their RMS errors in the table, then halve both: A with 9 steps, B with 17. Who wins now?",
        start: { room: "sampler", compare: true, ...PRESETS["eight on a ring (2-D)"] },
        done: (get) => get("a.num_steps") === 9 && get("b.num_steps") === 17,
        answer: (n) => `With 17 evaluations Heun has ${short(n.a.rms)} and Euler ${short(n.b.rms)}: with few, long steps the second slope misleads. Order pays when steps are short enough.`,
        move: { "a.num_steps": 9, "b.num_steps": 17 },
      },
      {
        text: "Other solvers remember earlier evaluations instead of making new ones: one evaluation for each step, and a high order.",
        question: "Choose Adams–Bashforth or DPM-Solver++ for A, with 18 steps. Look at the star among the known solvers.",
        start: { room: "sampler", ...PRESETS["eight on a ring (2-D)"] },
        done: (get) => /^(ab|ipndm|dpmpp|unipc|deis)/.test(get("a.solver")),
        answer: (n, first) => `RMS ${short(n.a.rms)} with ${n.a.nfe} evaluations; Heun had ${short(first.a.rms)} with ${first.a.nfe}.`,
        move: { "a.solver": "ab:k=4" },
      },
      {
        text: "A solver can also be fitted to one problem: its levels and weights are searched so that runs end where the exact flow does.",
        question: "Set A to 8 steps and press “Find the best for A’s evaluations”. Who is where in “Error over evaluations”?",
        start: { room: "sampler", ...PRESETS["eight on a ring (2-D)"], "a.solver": "dpmpp2m" },
        done: (get, n) => get("b.solver") === "fitted" && Boolean(n?.b),
        answer: (n) => `B, fitted, has ${short(n.b.rms)} with ${n.b.nfe} evaluations; A has ${short(n.a.rms)}. It belongs to these data alone.`,
        move: { "a.num_steps": 8, compare: true, "b.solver": "fitted", "b.num_steps": 8 },
      },
    ],
  },
  {
    id: "steps",
    title: "Where should the steps be?",
    claim: "Steps should shrink as σ falls: σ_i by Eq. 5 with ρ = 7.",
    steps: [
      {
        text: "With ρ = 1 all steps in σ are of the same size. From σ = 80 nearly all of them are spent far from the data.",
        question: "Raise ρ to 7, and look at “The noise levels of the steps” and the error.",
        start: { room: "sampler", "a.rho": 1, ...PRESETS["eight on a ring (2-D)"] },
        done: (get) => Math.abs(get("a.rho") - 7) < 0.3,
        answer: (n, first) => `The steps are short now where lines bend; the RMS error falls from ${short(first.a.rms)} to ${short(n.a.rms)}.`,
        move: { "a.rho": 7 },
      },
      {
        text: "Large ρ makes steps equal in ratio, as equal steps in ln σ: still shorter near the data.",
        question: "Raise ρ to 30. Is more always better?",
        start: { room: "sampler", ...PRESETS["eight on a ring (2-D)"] },
        done: (get) => get("a.rho") >= 25,
        answer: (n, first) => `Hardly: ${short(n.a.rms, 3)} instead of ${short(first.a.rms, 3)}. Steps are exchanged between high and low noise now. The paper chose 7 by looking at images, for which errors near the data count most.`,
        move: { "a.rho": 30 },
      },
      {
        text: "A uses ρ = 7, B equal steps in the time of VP, as early samplers did. Same solver, same number of steps, same noise.",
        question: "Compare their errors, then give B as many steps as it needs to be as good as A.",
        start: { room: "sampler", compare: true, "b.solver": "heun", "b.num_steps": 18, "b.steps": "time", "process.name": "VP", ...PRESETS["eight on a ring (2-D)"] },
        done: (get, n) => n?.b && n.b.rms <= n.a.rms,
        answer: (n) => `B needs ${n.b.num_steps} steps for ${short(n.b.rms)}, A has ${short(n.a.rms)} with ${n.a.num_steps}.`,
        move: { "b.num_steps": 60 },
      },
      {
        text: "The last level before 0 is σ_min. The last step goes from there to D(x; σ_min), so details smaller than σ_min are lost.",
        question: "The modes here have a width of 0.03. Raise σ_min to 0.1 and look at the spread of the samples within a mode.",
        start: { room: "sampler", ...narrow },
        done: (get) => get("sigma_min") >= 0.08,
        answer: () => "The peaks become too narrow: the histogram stands above the data. What is finer than σ_min has been averaged away.",
        move: { sigma_min: 0.1 },
      },
      {
        text: "How many steps are worth it? The front says what known solvers reach for each number of evaluations.",
        question: "Move N until the star lies below an RMS error of 0.01.",
        start: { room: "sampler", ...PRESETS["eight on a ring (2-D)"], "a.num_steps": 10 },
        done: (get, n) => n?.a?.rms < 0.01,
        answer: (n) => `${n.a.nfe} evaluations: RMS ${short(n.a.rms)}.`,
        move: { "a.num_steps": 26 },
      },
    ],
  },
  {
    id: "churn",
    title: "What does churn repair, and what does it spoil?",
    claim: "Adding and removing noise corrects errors made earlier, at the cost of more steps, and of detail if the denoiser errs.",
    steps: [
      {
        text: "Something went wrong at the start: every sample is moved by half of σ_max. The ODE follows its lines faithfully, to the wrong modes in the wrong shares.",
        question: "Look at “Where the samples end”, then set S_churn to 40. What happens to the distance of the distribution?",
        start: { room: "sampler", shift: 0.5, "a.num_steps": 40 },
        done: (get) => get("a.S_churn") >= 20,
        answer: (n, first) => `It falls from ${short(first.a.distance)} to ${short(n.a.distance)}; of as many exact samples it is about ${short(n.distance)}. Noise lets the samples forget where they came from.`,
        move: { "a.S_churn": 40 },
      },
      {
        text: "Churn goes up before each step down: dotted lines lift x to a higher noise level, the step leads down from there.",
        question: "Take the steps one by one with “a step on”. Which way does each step begin?",
        start: { room: "sampler", "a.S_churn": 12, "a.num_steps": 16, tracks: 3, step: 9 },
        done: (get) => get("step") >= 11 && get("step") < 16,
        answer: () => "Up by fresh noise, then down to the next level. A sample may change to another mode on its way.",
        move: { step: 12 },
      },
      {
        text: "Now nothing is wrong at the start. Heun with 18 steps follows the flow well, without noise.",
        question: "Set S_churn to 10. Does churn help where there is nothing to repair?",
        start: { room: "sampler", "a.num_steps": 18 },
        done: (get) => get("a.S_churn") >= 7,
        answer: (n, first) => `No. The spread of the samples was ${percent(first.a.spread)} of the data’s, and is ${percent(n.a.spread)}: each step begins higher up and has a longer way to go, and 18 are too few for it.`,
        move: { "a.S_churn": 10 },
      },
      {
        text: "Churn needs more steps: each one removes the noise that it has added, too.",
        question: "Raise N until the spread is within 2 % of the data’s.",
        start: { room: "sampler", "a.num_steps": 18, "a.S_churn": 10 },
        done: (get, n) => n?.a && Math.abs(n.a.spread - 1) < 0.02 && n.a.adds_noise,
        answer: (n) => `${n.a.nfe} evaluations for ${percent(n.a.spread)}. That is the price of noise.`,
        move: { "a.num_steps": 60 },
      },
      {
        text: "Networks err. This denoiser pulls each answer a little (3 %) towards the mean of the data, as networks do; the samples lie too close together.",
        question: "Raise S_churn to 10. Does it repair this, too?",
        start: { room: "sampler", shrink: 0.03, "a.num_steps": 18 },
        done: (get) => get("a.S_churn") >= 7,
        answer: (n, first) => `No, it spoils more: the spread falls from ${percent(first.a.spread)} to ${percent(n.a.spread)}. Each noising asks the wrong denoiser once more. This is the loss of detail that the paper mends with S_noise slightly above 1.`,
        move: { "a.S_churn": 10 },
      },
    ],
  },
  {
    id: "preconditioning",
    title: "Why is c_skip not 1?",
    claim: "A network whose input, output and errors have the same size at every noise level learns better.",
    steps: [
      {
        text: "A network that predicts the noise: c_skip = 1 and c_out = −σ, so D = x − σ·F. Whatever F gets wrong reaches D multiplied by σ.",
        question: "Choose EDM as preconditioning. How large does c_out get now at high noise?",
        start: { room: "training", "t.prediction": "ε" },
        done: (get) => get("t.prediction") === "EDM",
        answer: (n) => `At most σ_data = ${short(n.sigma_data)}, instead of σ = 80: where there is much noise, c_skip goes to 0, and F gives the signal itself.`,
        move: { "t.prediction": "EDM" },
      },
      {
        text: "The other extreme: c_skip = 0, D = F. Now the network has to give the whole signal, even where x is almost clean.",
        question: "Train this x₀-prediction, then EDM, and compare “How fast it learns”.",
        start: { room: "training", "t.prediction": "x₀" },
        done: (get, n, room) => losses(room, "x₀", "EDM"),
        answer: (n, first, room) => `${told(losses(room, "x₀", "EDM"))} The attainable loss is ${short(n.exact.attainable_loss, 3)}. At low noise x₀-prediction has to learn what x shows already.`,
        move: { "t.runs": "x₀,own,EDM,,400,64,0;EDM,own,EDM,,400,64,0" },
      },
      {
        text: "And noise prediction, trained. At low noise it does well: there the noise is what is small.",
        question: "Train ε-prediction and EDM, and compare.",
        start: { room: "training", "t.prediction": "ε" },
        done: (get, n, room) => losses(room, "ε", "EDM"),
        answer: (n, first, room) => `${told(losses(room, "ε", "EDM"))} Look at “The loss by σ”: noise prediction loses at high noise, where its errors are multiplied.`,
        move: { "t.runs": "ε,own,EDM,,400,64,0;EDM,own,EDM,,400,64,0" },
      },
      {
        text: "EDM’s functions follow from three wishes: F’s input has variance 1, F’s target has variance 1, and c_out is as small as can be.",
        question: "Choose VE, which has c_skip = 1 and c_in = 1. What is the variance of F’s input now at high noise?",
        start: { room: "training" },
        done: (get) => get("t.prediction") === "VE",
        answer: (n) => {
          const largest = Math.max(...n.curves.VE.input.filter(Number.isFinite));
          return `Up to ${Math.round(largest)}: the network sees numbers of the size of ${Math.round(Math.sqrt(largest))}, and of the size of the data at low noise. With EDM the variance is 1 at all σ.`;
        },
        move: { "t.prediction": "VE" },
      },
      {
        text: "σ_data says where c_skip goes from 1 to 0. By default the page uses the deviation of the data.",
        question: "Give a σ_data of your own, 4 or more. Where is c_skip = ½ now, and what is the variance of F’s target?",
        start: { room: "training" },
        done: (get) => get("t.own_sigma") && get("t.sigma_data") >= 4,
        answer: (n) => `c_skip = ½ at σ = σ_data = ${short(n.sigma_data)}, and the target’s variance is no longer 1: the network is told to expect data ${short(n.sigma_data / n.deviation)} times as wide as they are. Train it to see what that costs.`,
        move: { "t.own_sigma": true, "t.sigma_data": 8 },
      },
    ],
  },
  {
    id: "levels",
    title: "Which noise levels should one train on?",
    claim: "Training effort belongs where something can be learnt: in the middle.",
    steps: [
      {
        text: "“The loss by σ” shows the loss of a network that has learnt nothing, and the attainable one of the exact denoiser. Between them is what can be learnt.",
        question: "p_train is far up at high noise here. Drag it, or move P_mean, to where the two curves are far apart.",
        start: { room: "training", "t.draws": "lognormal", "t.P_mean": 3, "t.P_std": 0.6 },
        done: (get) => get("t.P_mean") > -2.2 && get("t.P_mean") < 0.8,
        answer: () => "In the middle. At high noise nobody can do better than the mean of the data, at low noise x is nearly the answer: there is little to learn at either end.",
        move: { "t.P_mean": -0.5 },
      },
      {
        text: "A training at high noise only, where there is nothing to learn.",
        question: "Train with P_mean = 3, P_std = 0.6, then with EDM’s noise levels, and compare.",
        start: { room: "training", "t.draws": "lognormal", "t.P_mean": 3, "t.P_std": 0.6 },
        done: (get, n, room) => losses(room, "EDM", "EDM"),
        answer: (n, first, room) => `${told(losses(room, "EDM", "EDM"))} The attainable loss is ${short(n.exact.attainable_loss, 3)}.`,
        move: { "t.runs": "EDM,own,lognormal:3:0.6,,400,64,0;EDM,own,EDM,,400,64,0" },
      },
      {
        text: "Too narrow is bad, too: here all noise levels are about the same.",
        question: "Train this one and EDM’s, then look at “The loss by σ” of the narrow one.",
        start: { room: "training", "t.draws": "lognormal", "t.P_mean": -0.5, "t.P_std": 0.2 },
        done: (get, n, room) => losses(room, "EDM", "EDM"),
        answer: (n, first, room) => `${told(losses(room, "EDM", "EDM"))} A network that has never seen a noise level guesses there.`,
        move: { "t.runs": "EDM,own,lognormal:-0.5:0.2,,400,64,0;EDM,own,EDM,,400,64,0" },
      },
      {
        text: "λ(σ) weighs the noise levels, too. EDM’s is 1/c_out², so that λ·c_out², the weight of F’s own errors, is 1 at every level.",
        question: "Choose the weight 1. How does λ·c_out² differ between the levels now?",
        start: { room: "training" },
        done: (get) => get("t.weighting") === "uniform",
        answer: (n) => {
          const weight = Array.from(n.curves.EDM.weight).filter(Number.isFinite);
          return `From ${short(Math.min(...weight), 1)} to ${short(Math.max(...weight), 1)}: low noise counts for nothing, as if it were not trained.`;
        },
        move: { "t.weighting": "uniform" },
      },
      {
        text: "Two ways to say the same? p_train·λ is what a level counts in all, but p_train also decides where the samples, and so the accuracy, are.",
        question: "Train EDM with the weight 1 and with its own, and compare.",
        start: { room: "training", "t.weighting": "uniform" },
        done: (get, n, room) => losses(room, "EDM", "EDM"),
        answer: (n, first, room) => `${told(losses(room, "EDM", "EDM"))} The attainable loss is ${short(n.exact.attainable_loss, 3)}.`,
        move: { "t.runs": "EDM,uniform,EDM,,400,64,0;EDM,own,EDM,,400,64,0" },
      },
    ],
  },
];

const place = () => {
  const [id, step] = state.get("tour").split(".");
  const tour = TOURS.find((each) => each.id === id);
  const k = Number(step) - 1;
  return tour && tour.steps[k] ? { tour, k, step: tour.steps[k] } : null;
};

/** Begin a step: its state, and its place in the address. */
export function go(id, k) {
  const tour = TOURS.find((each) => each.id === id);
  state.reset({ ...tour.steps[k].start, tour: `${id}.${k + 1}` }, { step: true });
  document.querySelector("#tour .text")?.focus();
}

export function chooseTour() {
  const dialog = openDialog("Guided tours", h("p", {}, "Five steps each. Every step asks something that you find out by moving a control."), h("div", { class: "list", style: "margin-top:.6rem" }, TOURS.map((tour) => button([tour.title, h("small", {}, tour.claim)], () => {
    dialog.close();
    go(tour.id, 0);
  }))));
}

let drawn = "";
let answered = false;
let first = null; // the numbers that the step began with

/** Show where the tour is, and whether its question is answered by the picture that is shown. */
export function showTour(room) {
  const panel = document.getElementById("tour");
  const now = place();
  panel.hidden = !now;
  if (!now) {
    drawn = "";
    return;
  }
  const { tour, k, step } = now;
  if (drawn !== state.get("tour")) {
    drawn = state.get("tour");
    answered = false;
    first = null;
    const last = k === tour.steps.length - 1;
    panel.replaceChildren(h("div", { class: "inside" },
      h("div", {}, h("h2", {}, `${tour.title} · ${k + 1} of ${tour.steps.length}`), h("p", { class: "text", tabindex: -1 }, step.text), h("p", { class: "question" }, step.question), h("p", { class: "answer", role: "status" })),
      h("div", { class: "row" },
        button("Show me", () => state.set(step.move), { class: "small" }),
        button("Back", () => go(tour.id, k - 1), { disabled: k === 0, class: "small" }),
        button(last ? "Other tours" : "Next", () => (last ? chooseTour() : go(tour.id, k + 1)), { class: "small primary next" }),
        button("End", () => state.set({ tour: "" }), { class: "small" }))));
  }
  const numbers = room?.id === state.get("room") && room.drawn ? room.numbers : null;
  first ??= numbers;
  if (!answered && numbers && step.done(state.get, numbers, room)) {
    answered = true;
    panel.querySelector(".answer").textContent = `✓ ${step.answer(numbers, first, room)}`;
  }
}

state.declare({ tour: "" });
