/** The laboratory page: its state, its controls, and what happens when they are moved. */

import { colour, drawCurves, drawPicture, drawRing, drawSpectrum } from "./drawing.mjs";
import { Engine, latest } from "./engine.mjs";
import { decode, encode } from "./link.mjs";
import { complement, painted, radialEnergy, sector, share } from "./spectra.mjs";
import { readPicture } from "./upload.mjs";

const MOST_STEPS = 3000;
const MOST_COMPARED = 4;
const OWN = "own";
const element = (name) => document.getElementById(name);
const percent = (value) => (100 * value).toFixed(1);

/** What the page shows now; `half` is the mask, `pixels` the picture before any attack. */
const state = { world: null, picture: null, pixels: null, own: null, half: null, attacked: null, kept: [] };
let engine;
let worlds;
let seen = {}; // the worker's last answers: amplitude, plain, filtered, behind
let cursor = null; // of the keyboard, in canvas pixels

const say = (message) => (element("laboratory-status").textContent = message);
function warn(message) {
  element("laboratory-message").textContent = message;
  element("laboratory-message").hidden = !message;
}
const shown = () => state.attacked ?? state.pixels;
const ones = () => new Float32Array(state.world.size * (state.world.size / 2 + 1)).fill(1);

// ---------------------------------------------------------------------------------------------- drawing

function drawAnswers() {
  const cell = (probabilities, n) => {
    const best = probabilities[n] === Math.max(...probabilities);
    return `<td class="${best ? "best" : ""}" style="--part: ${percent(probabilities[n])}%">${percent(probabilities[n])}</td>`;
  };
  const rows = state.world.classes.map((name, n) => {
    const cells = ["N", "A"].map((regime) => cell(seen.plain[regime], n) + cell(seen.behind[regime], n));
    return `<tr><th scope="row">${name}</th>${cells.join("")}</tr>`;
  });
  element("answers").tBodies[0].innerHTML = rows.join("");
}

function drawMask() {
  const { size } = state.world;
  const context = drawSpectrum(element("spectrum"), seen.amplitude, size, state.half);
  if (cursor) drawRing(context, cursor.x, cursor.y, (element("size").value * element("spectrum").width) / size);
  element("share").textContent = `${percent(share(state.half, size))}% kept.`;
  drawEnergies();
}

function drawEnergies() {
  const masks = [...state.kept, { title: "the mask shown", half: state.half }];
  const curves = masks.map(({ half }, n) => ({ values: radialEnergy(half, state.world.size), colour: colour(n) }));
  drawCurves(element("energies"), curves, Math.max(...curves.flatMap(({ values }) => [...values]), 0.01));
  element("energies-says").innerHTML = masks
    .map(
      ({ title, half }, n) =>
        `<li><span class="laboratory-key" style="--key: ${colour(n)}"></span> ${title}: ${percent(share(half, state.world.size))}% kept</li>`,
    )
    .join("");
}

// ---------------------------------------------------------------------------------------------- asking the worker

const look = latest(async () => {
  const name = state.world.name;
  Object.assign(seen, await engine.ask("look", { name, pixels: shown() }));
  await filter();
});

const filter = latest(async () => {
  const { world, half } = state;
  const found = await engine.ask("filter", { name: world.name, pixels: shown(), half });
  if (world !== state.world) return; // another picture has been chosen meanwhile
  Object.assign(seen, found);
  drawPicture(element("filtered"), seen.filtered, world.size);
  if (seen.amplitude.length !== world.size ** 2) return;
  drawMask();
  drawAnswers();
  element("laboratory").dataset.answered = Number(element("laboratory").dataset.answered ?? 0) + 1;
});

/** Another mask; stops a fit that is under way. */
function lay(half) {
  stopLearning();
  state.half = Float32Array.from(half);
  drawMask();
  filter();
}

function showPicture() {
  drawPicture(element("original"), shown(), state.world.size);
  element("original-says").textContent = state.attacked ? `${state.title}, attacked` : state.title;
  element("undo").disabled = !state.attacked;
  return look();
}

// ---------------------------------------------------------------------------------------------- pictures

/** Enter a world: its masks and networks into the lists, its attack into the slider. */
function enter(world) {
  if (state.world === world) return;
  Object.assign(state, { world, half: null, kept: [] });
  state.half = ones();
  const option = (value, title) => new Option(title, value);
  element("learned").replaceChildren(...world.masks.map(({ name, title }) => option(name, title)));
  for (const list of ["network", "victim"])
    element(list).replaceChildren(...world.networks.map(({ regime, title }) => option(regime, `${regime}, ${title}`)));
  element("epsilon").value = world.attack.epsilon;
  sayNumbers();
}

async function choose(world, picture) {
  stopLearning();
  enter(world);
  const found =
    picture === OWN
      ? { title: "Your picture", pixels: state.own }
      : world.pictures.find(({ name }) => name === picture);
  Object.assign(state, { picture, title: found.title, attacked: null });
  state.pixels = Float64Array.from(found.pixels, (value) => value / 255);
  element("picture").value = `${world.name} ${picture}`;
  for (const name of ["change", "change-spectrum"]) element(name).getContext("2d").clearRect(0, 0, 192, 192);
  await showPicture();
}

function ownPicture(pixels) {
  state.own = pixels;
  if (!element("picture").querySelector(`[value="photographs ${OWN}"]`))
    element("picture").append(new Option("Your picture", `photographs ${OWN}`));
  return choose(
    worlds.find(({ name }) => name === "photographs"),
    OWN,
  );
}

// ---------------------------------------------------------------------------------------------- painting

/** Paint around a place of the canvas, in canvas pixels. */
function paint({ x, y }) {
  const { size } = state.world;
  const cycles = (at) => (at / element("spectrum").width) * size - size / 2 - 0.5;
  const value = Number(document.querySelector("input[name=brush]:checked").value);
  lay(painted(state.half, size, { x: cycles(x), y: cycles(y) }, Number(element("size").value), value));
}

function place(event) {
  const canvas = element("spectrum");
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

function paintByKey(event) {
  const canvas = element("spectrum");
  const step = canvas.width / state.world.size;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  cursor ??= { x: canvas.width / 2 + step / 2, y: canvas.height / 2 + step / 2 };
  if (event.key in moves) {
    const [dx, dy] = moves[event.key];
    cursor = {
      x: Math.min(Math.max(cursor.x + dx, 0), canvas.width),
      y: Math.min(Math.max(cursor.y + dy, 0), canvas.height),
    };
    drawMask();
  } else if (event.key === " " || event.key === "Enter") paint(cursor);
  else return;
  event.preventDefault();
}

// ---------------------------------------------------------------------------------------------- learning and attacking

let learning = null; // the fit under way, an object of its own

function stopLearning() {
  if (!learning) return;
  learning = null;
  element("learn").textContent = "Learn the mask";
  engine.ask("stop");
}

async function learn() {
  if (learning) return stopLearning();
  const { world } = state;
  const options = { ...world.learning, penalty: penalty(), rate: Number(element("rate").value) };
  const curves = [
    { values: [], colour: colour(0) },
    { values: [], colour: colour(1) },
  ];
  const mine = (learning = {});
  const show = ({ half, curve, steps, pace, done, ...rest }) => {
    if (learning !== mine) return;
    state.half = half;
    Object.assign(seen, rest);
    for (const one of curve) {
      curves[0].values.push(one.share);
      curves[1].values.push(one.invariance - 1);
    }
    drawCurves(element("curve"), curves, 1);
    drawPicture(element("filtered"), seen.filtered, world.size);
    drawMask();
    drawAnswers();
    const last = curve.at(-1);
    if (last)
      say(
        `${done ? "Done at step" : "Step"} ${steps}, ${pace.toFixed(0)} a second: ${percent(last.share)}% kept, objective ${last.objective.toFixed(4)}.`,
      );
  };
  element("learn").textContent = "Stop learning";
  const name = world.name;
  const regime = element("network").value;
  show(await engine.ask("learn", { name, regime, pixels: shown(), options, most: MOST_STEPS }, show));
  if (learning === mine) stopLearning();
}

async function attack() {
  stopLearning();
  const { world } = state;
  const epsilon = Number(element("epsilon").value);
  const { step, steps } = world.attack;
  const options = { epsilon, step: (step / world.attack.epsilon) * epsilon, steps, seed: 1 };
  const found = await engine.ask("attack", {
    name: world.name,
    regime: element("victim").value,
    pixels: state.pixels,
    options,
  });
  if (world !== state.world) return;
  state.attacked = found.attacked;
  drawPicture(element("change"), found.change, world.size, -epsilon, epsilon);
  drawSpectrum(element("change-spectrum"), found.amplitude, world.size);
  await showPicture();
  say(`Attacked ${element("victim").value} within ${epsilon.toFixed(4)} of every pixel.`);
}

async function undo() {
  state.attacked = null;
  await showPicture();
}

// ---------------------------------------------------------------------------------------------- controls

const penalty = () => 10 ** Number(element("penalty").value);
const band = () =>
  Object.fromEntries(["inner", "outer", "direction", "width"].map((name) => [name, Number(element(name).value)]));

function sayNumbers() {
  element("penalty-says").textContent = penalty().toFixed(3);
  element("epsilon-says").textContent = `${Number(element("epsilon").value).toFixed(4)} of the gray scale`;
  const { inner, outer, direction, width } = band();
  element("band").textContent =
    `${percent(inner)} to ${percent(outer)}% of the corner's radius; ${direction}° ± ${width}°`;
}

async function remember() {
  const { world, picture, own, half, attacked } = state;
  const fields = { world: world.name, picture, half, attacked: attacked !== null, own: picture === OWN ? own : null };
  const text = await encode({ ...fields, network: element("network").value, epsilon: element("epsilon").value });
  history.replaceState(null, "", `#${text}`);
}

async function recall() {
  let found;
  try {
    found = await decode(location.hash);
  } catch {
    return warn("This link is damaged: the laboratory starts afresh.");
  }
  const world = found && worlds.find(({ name }) => name === found.world);
  const known =
    world &&
    (found.picture === OWN
      ? found.own?.length === world.size ** 2
      : world.pictures.some(({ name }) => name === found.picture));
  if (!found) return;
  if (!known || found.half.length !== world.size * (world.size / 2 + 1))
    return warn("This link is of another edition of the book: the laboratory starts afresh.");
  if (found.picture === OWN) await ownPicture(found.own);
  else await choose(world, found.picture);
  for (const name of ["network", "victim"]) element(name).value = found.network;
  element("epsilon").value = found.epsilon;
  sayNumbers();
  if (found.attacked) await attack();
  lay(found.half);
}

function listen() {
  const press = (name, act) =>
    element(name).addEventListener("click", () => Promise.resolve(act()).catch((error) => warn(error.message)));
  const learned = () => state.world.masks.find(({ name }) => name === element("learned").value).half;
  press("all", () => lay(ones()));
  press("none", () => lay(ones().fill(0)));
  press("invert", () => lay(state.half.map((value) => 1 - value)));
  press("lay", () => lay(learned()));
  press("lay-complement", () => lay(complement(learned())));
  press("learn", learn);
  press("attack", attack);
  press("undo", undo);
  press("keep", () => {
    state.kept = [...state.kept, { title: `mask ${state.kept.length + 1}`, half: Float32Array.from(state.half) }].slice(
      -MOST_COMPARED,
    );
    drawEnergies();
  });
  press("forget", () => {
    state.kept = [];
    drawEnergies();
  });
  press("link", async () => {
    await remember();
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
  });
  for (const name of Object.keys(band()))
    element(name).addEventListener("input", () => (sayNumbers(), lay(sector(state.world.size, band()))));
  for (const name of ["penalty", "epsilon"]) element(name).addEventListener("input", sayNumbers);
  element("picture").addEventListener("change", ({ target }) => {
    const [name, picture] = target.value.split(" ");
    choose(
      worlds.find((world) => world.name === name),
      picture,
    ).catch((error) => warn(error.message));
  });
  element("upload").addEventListener("change", ({ target }) => {
    warn("");
    if (target.files.length)
      readPicture(target.files[0], worlds[0].size)
        .then(ownPicture)
        .catch((error) => warn(error.message));
  });

  const canvas = element("spectrum");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    paint(place(event));
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && paint(place(event)));
  canvas.addEventListener("keydown", paintByKey);
}

/** Begin: `worker` is the address of the worker's module, `binary` gets the file of networks. */
export async function start(worker, binary) {
  if (typeof Worker === "undefined")
    throw new Error("The laboratory needs Web Workers, which this browser lacks. The rest of the book works.");
  engine = new Engine(worker, warn);
  ({ worlds } = await engine.ask("open", { binary: await binary() }));
  for (const { name, title, pictures } of worlds) {
    const group = document.createElement("optgroup");
    group.label = title;
    group.append(...pictures.map((one) => new Option(one.title, `${name} ${one.name}`)));
    element("picture").append(group);
  }
  listen();
  await choose(worlds[0], worlds[0].pictures[0].name);
  warn("");
  element("laboratory").hidden = false;
  element("figure-laboratory").hidden = true;
  await recall();
}
