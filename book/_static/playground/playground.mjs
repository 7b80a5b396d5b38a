/** The playground page: its state and its controls. */

import { colour, drawCurves, drawPicture, drawRing, drawSpectrum } from "./drawing.mjs";
import { Client, latest } from "./client.mjs";
import { decode, encode } from "./link.mjs";
import { complement, painted, radialEnergy, sector, share } from "./spectra.mjs";
import { readPicture } from "./upload.mjs";

const MAX_COMPARED = 4;
const MAX_CLASSES = 10; // of more classes, as many are shown
const OWN = "own";
const CANVASES = { spectrum: 384, original: 384, filtered: 384, change: 192, "change-spectrum": 192 }; // about how wide
const element = (name) => document.getElementById(name);
const ALL = "all frequencies"; // the name of the mask that keeps everything
const BAND = { inner: 0, outer: 1, direction: 90, width: 90 }; // the sliders of a band that keeps everything
const percent = (value) => (100 * value).toFixed(1);
const escaped = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
const channels = (dataset) => dataset.mean.length;

/** What the page shows; `half` is the mask, `name` says what it is, `pixels` is the picture before any attack. */
const state = { dataset: null, picture: null, pixels: null, own: null, attacked: null, half: null, name: "", kept: [] };
let client;
let datasets;
let latestResult = {}; // of the worker: amplitude, unmasked, filtered, masked
let cursor = null; // of the keyboard, in canvas pixels

const say = (message) => (element("playground-status").textContent = message);
function warn(message) {
  element("playground-message").textContent = message;
  element("playground-message").hidden = !message;
  if (message) element("playground-message").scrollIntoView({ block: "nearest" });
}
const shown = () => state.attacked ?? state.pixels;
const ones = () => new Float32Array(state.dataset.size * (state.dataset.size / 2 + 1)).fill(1);

// ---------------------------------------------------------------------------------------------- drawing

/** The head of the table of probabilities: two columns for each network. */
function drawHead() {
  const { networks, classes } = state.dataset;
  const titles = networks.map(({ title }) => `<th colspan="2" scope="colgroup">${escaped(title)}</th>`).join("");
  const columns = '<th scope="col">unmasked</th><th scope="col">masked</th>'.repeat(networks.length);
  const table = element("answers");
  table.tHead.innerHTML = `<tr><th rowspan="2" scope="col">class</th>${titles}</tr><tr>${columns}</tr>`;
  table.querySelector("colgroup").innerHTML = "<col>".repeat(1 + 2 * networks.length);
  const some = classes.length > MAX_CLASSES ? `; the ${MAX_CLASSES} most probable of ${classes.length} classes` : "";
  table.caption.textContent = `Probabilities, in percent; a full bar is 100%${some}`;
}

/** The numbers of the classes that the table shows: all, or those with the largest probabilities. */
function shownClasses(answers) {
  const { classes } = state.dataset;
  const numbers = classes.map((_, n) => n);
  if (classes.length <= MAX_CLASSES) return numbers;
  const largest = (n) => Math.max(...answers.map((probabilities) => probabilities[n]));
  const [first] = answers;
  return numbers
    .sort((a, b) => largest(b) - largest(a))
    .slice(0, MAX_CLASSES)
    .sort((a, b) => first[b] - first[a]);
}

function drawAnswers() {
  const { unmasked, masked } = latestResult;
  const answers = state.dataset.networks.flatMap(({ regime }) => [unmasked[regime], masked[regime]]);
  const tops = answers.map((probabilities) => Math.max(...probabilities));
  const cell = (value, top) =>
    `<td class="${value === top ? "best" : ""}" style="--part: ${percent(value)}%">${percent(value)}</td>`;
  const rows = shownClasses(answers).map((n) => {
    const cells = answers.map((probabilities, answer) => cell(probabilities[n], tops[answer]));
    return `<tr><th scope="row">${escaped(state.dataset.classes[n])}</th>${cells.join("")}</tr>`;
  });
  element("answers").tBodies[0].innerHTML = rows.join("");
  drawSummary(unmasked, masked);
}

/** One line for each network, which a narrow page shows beside the pictures. */
function drawSummary(unmasked, masked) {
  const { networks, classes } = state.dataset;
  const top = (probabilities) => {
    const most = Math.max(...probabilities);
    return `${escaped(classes[probabilities.indexOf(most)])} ${Math.round(100 * most)}%`;
  };
  const short = (title) => title.match(/\((.)\)$/)?.[1] ?? title; // "standard (N)": N
  const lines = networks.map(
    ({ regime, title }) =>
      `<li>${escaped(short(title))}: ${top(unmasked[regime])}, masked ${top(masked[regime])}</li>`,
  );
  element("answers-says").innerHTML = lines.join("");
}

function drawMask() {
  const { size } = state.dataset;
  const context = drawSpectrum(element("spectrum"), latestResult.amplitude, size, state.half);
  if (cursor) drawRing(context, cursor.x, cursor.y, (element("size").value * element("spectrum").width) / size);
  element("share").textContent = `${percent(share(state.half, size))}% kept.`;
  drawEnergies();
}

function drawEnergies() {
  const masks = [...state.kept, { title: `${state.name} (the mask shown)`, half: state.half }];
  const curves = masks.map(({ half }, n) => ({ values: radialEnergy(half, state.dataset.size), colour: colour(n) }));
  const top = Math.max(...curves.flatMap(({ values }) => [...values]), 0.01);
  drawCurves(element("energies"), curves, top);
  element("energies-top").textContent = top.toFixed(2);
  const lines = masks.map(({ title, half }, n) => {
    const key = `<span class="playground-key" style="--key: ${colour(n)}"></span>`;
    return `<li>${key} ${escaped(title)}: ${percent(share(half, state.dataset.size))}% kept</li>`;
  });
  element("energies-says").innerHTML = lines.join("");
}

// ---------------------------------------------------------------------------------------------- asking the worker

const inspect = latest(async () => {
  const name = state.dataset.name;
  Object.assign(latestResult, await client.ask("inspect", { name, pixels: shown() }));
  await filter();
});

const filter = latest(async () => {
  const { dataset, half } = state;
  const found = await client.ask("filter", { name: dataset.name, pixels: shown(), half });
  if (dataset !== state.dataset) return; // another picture has been chosen meanwhile
  Object.assign(latestResult, found);
  drawPicture(element("filtered"), latestResult.filtered, dataset.size);
  if (latestResult.amplitude.length !== dataset.size ** 2) return;
  drawMask();
  drawAnswers();
  element("playground").dataset.answered = Number(element("playground").dataset.answered ?? 0) + 1;
});

/** Replaces the mask; stops learning if it is under way, and clears what was said about the mask before. */
function setMask(half, name, isBand = false) {
  if (!stopLearning()) say("");
  clearLearning();
  if (!isBand) clearBand();
  Object.assign(state, { half: Float32Array.from(half), name });
  drawMask();
  filter();
}

function showPicture() {
  drawPicture(element("original"), shown(), state.dataset.size);
  element("original-says").textContent = state.attacked ? `${state.title}, attacked` : state.title;
  element("undo").disabled = !state.attacked;
  return inspect();
}

// ---------------------------------------------------------------------------------------------- pictures

/** Changes the data set: fills the lists with its masks and networks, and sets the slider to its attack. */
function enter(dataset) {
  if (state.dataset === dataset) return;
  Object.assign(state, { dataset, half: null, name: ALL, kept: [] });
  state.half = ones();
  clearBand();
  drawHead();
  const option = (value, title) => new Option(title, value);
  element("learned").replaceChildren(...dataset.masks.map(({ name, title }) => option(name, title)));
  element("dataset-masks").hidden = !dataset.masks.length;
  for (const list of ["network", "victim"]) {
    element(list).replaceChildren(...dataset.networks.map(({ regime, title }) => option(regime, title)));
    element(list).parentElement.hidden = dataset.networks.length === 1;
  }
  for (const [name, width] of Object.entries(CANVASES)) {
    const side = dataset.size * Math.max(Math.round(width / dataset.size), 1); // whole pixels of the picture
    Object.assign(element(name), { width: side, height: side });
  }
  element("size").max = Math.max(10, dataset.size / 8);
  element("epsilon").value = dataset.attack.epsilon;
  sayNumbers();
}

/** Removes the perturbation of an attack from its canvases. */
function clearChange() {
  for (const name of ["change", "change-spectrum"])
    element(name).getContext("2d").clearRect(0, 0, element(name).width, element(name).height);
}

async function choose(dataset, picture) {
  stopLearning();
  clearLearning();
  say("");
  warn("");
  if (picture !== OWN) element("upload").value = "";
  enter(dataset);
  const found =
    picture === OWN
      ? { title: "Your picture", pixels: state.own }
      : dataset.pictures.find(({ name }) => name === picture);
  Object.assign(state, { picture, title: found.title, attacked: null });
  state.pixels = Float64Array.from(found.pixels, (value) => value / 255);
  element("picture").value = `${dataset.name} ${picture}`;
  clearChange();
  await showPicture();
}

function ownPicture(pixels) {
  const [dataset] = datasets;
  state.own = pixels;
  if (!element("picture").querySelector(`[value="${dataset.name} ${OWN}"]`))
    element("picture").append(new Option("Your picture", `${dataset.name} ${OWN}`));
  return choose(dataset, OWN);
}

// ---------------------------------------------------------------------------------------------- painting

/** Paints around a place of the canvas, in canvas pixels. */
function paint({ x, y }) {
  const { size } = state.dataset;
  const cycles = (at) => (at / element("spectrum").width) * size - size / 2 - 0.5;
  const value = Number(document.querySelector("input[name=brush]:checked").value);
  setMask(painted(state.half, size, { x: cycles(x), y: cycles(y) }, Number(element("size").value), value), "painted");
}

function place(event) {
  const canvas = element("spectrum");
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

function paintByKey(event) {
  const canvas = element("spectrum");
  const step = canvas.width / state.dataset.size;
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

let learning = null; // the solution under way, an object of its own

function endLearning() {
  learning = null;
  element("learn").textContent = "Learn the mask";
}

/** Stops learning; whether it was under way. */
function stopLearning() {
  if (!learning) return false;
  endLearning();
  say("Learning is stopped.");
  client.ask("stop");
  return true;
}

/** Removes what the last learning showed: it is of another picture or mask. */
function clearLearning() {
  element("learning-says").textContent = "";
  element("learning-progress").value = 0;
  drawCurves(element("curve"), [], 1);
}

async function learn() {
  if (learning) return stopLearning();
  const { dataset, title } = state;
  const { steps } = dataset.learning;
  const network = element("network").selectedOptions[0].text;
  clearLearning();
  clearBand();
  warn("");
  element("curve-end").textContent = `step ${steps}`;
  const curves = [0, 1].map((n) => ({ values: [], colour: colour(n) }));
  const solution = (learning = {});
  const describe = ({ share, change, kept }) =>
    `L1 share ${(100 * share).toFixed(2)}%, absolute change in loss ${Math.abs(change).toFixed(4)}, ` +
    `prediction ${kept ? "kept" : "changed"}.`;
  const show = (found) => {
    if (learning !== solution) return;
    state.half = Float32Array.from(found.half);
    state.name = `learned, ${network}, ${title.split(",")[0]}`;
    Object.assign(latestResult, { filtered: found.filtered, masked: found.masked });
    for (const { share, change } of found.curve) {
      curves[0].values.push(share);
      curves[1].values.push(Math.abs(change));
    }
    drawCurves(element("curve"), curves, 1, steps);
    drawPicture(element("filtered"), latestResult.filtered, dataset.size);
    drawMask();
    drawAnswers();
    element("learning-progress").value = found.steps / steps;
    element("learning-says").textContent = `Step ${found.steps} of ${steps}: ${describe(found)}`;
  };
  element("learn").textContent = "Stop learning";
  // The status is read out by screen readers: it has the start and the end only.
  say(`Learning a mask in ${steps} steps.`);
  const request = { name: dataset.name, regime: element("network").value, pixels: shown(), options: dataset.learning };
  const found = await client.ask("learn", request, show);
  if (learning !== solution) return;
  show(found);
  endLearning();
  say(`Done after ${steps} steps: ${describe(found)}`);
}

async function attack() {
  stopLearning();
  say("");
  warn("");
  const { dataset, pixels } = state;
  const epsilon = Number(element("epsilon").value);
  const { step, steps } = dataset.attack;
  const options = { epsilon, step: (step / dataset.attack.epsilon) * epsilon, steps, seed: 1 };
  const found = await client.ask("attack", {
    name: dataset.name,
    regime: element("victim").value,
    pixels,
    options,
  });
  if (pixels !== state.pixels) return; // another picture has been chosen meanwhile
  state.attacked = found.attacked;
  drawPicture(element("change"), found.change, dataset.size, -epsilon, epsilon);
  drawSpectrum(element("change-spectrum"), found.amplitude, dataset.size);
  await showPicture();
  say(`Attacked ${element("victim").selectedOptions[0].text} within ${epsilon.toFixed(4)} of every pixel.`);
}

async function undo() {
  state.attacked = null;
  clearChange();
  await showPicture();
  say("The attack is undone.");
}

// ---------------------------------------------------------------------------------------------- controls

const band = () => Object.fromEntries(Object.keys(BAND).map((name) => [name, Number(element(name).value)]));

function sayNumbers() {
  const epsilon = Number(element("epsilon").value).toFixed(4);
  element("epsilon-says").textContent = `${epsilon} of the range from black to white`;
}

function sayBand(line, refused = false) {
  element("band").textContent = line;
  for (const name of ["inner", "outer"]) element(name).setAttribute("aria-invalid", refused);
}

/** Sets the sliders back: the mask is no band of theirs. */
function clearBand() {
  for (const [name, value] of Object.entries(BAND)) element(name).value = value;
  sayBand("");
}

/** Applies the band that the sliders ask for; one that ends before it begins is refused. */
function keepBand() {
  const asked = band();
  const { inner, outer, direction, width } = asked;
  const radii = `${percent(inner)} to ${percent(outer)}%`;
  if (inner > outer)
    return sayBand(`Refused: the radius would go from ${radii}. Set "from" below "to". The mask is unchanged.`, true);
  const directions = width < BAND.width ? `, ${direction}° ± ${width}°` : "";
  setMask(sector(state.dataset.size, asked), `band ${radii}${directions}`, true);
  sayBand(`${radii} of the corner's radius; ${direction}° ± ${width}°`);
}

/** Keeps the mask for comparison under its name, with a number if that name is taken. */
function keepMask() {
  const taken = new Set(state.kept.map(({ title }) => title));
  let title = state.name;
  for (let n = 2; taken.has(title); n++) title = `${state.name} (${n})`;
  state.kept = [...state.kept, { title, half: Float32Array.from(state.half) }].slice(-MAX_COMPARED);
  drawEnergies();
}

/** The name of the mask with kept and removed frequencies exchanged. */
const inverse = (name) => (name.startsWith("inverse of ") ? name.slice("inverse of ".length) : `inverse of ${name}`);

async function copyLink() {
  await remember();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
  } catch {
    say("This browser does not let the page copy: the link is in the address bar.");
  }
}

async function remember() {
  const { dataset, picture, own, half, attacked } = state;
  const fields = { dataset: dataset.name, picture, half, attacked: attacked !== null };
  fields.own = picture === OWN ? own : null;
  const text = await encode({ ...fields, network: element("network").value, epsilon: element("epsilon").value });
  history.replaceState(null, "", `#${text}`);
}

async function recall() {
  let found;
  try {
    found = await decode(location.hash);
  } catch {
    return warn("This link is damaged: the playground opens in its initial state.");
  }
  const dataset = found && datasets.find(({ name }) => name === found.dataset);
  const known =
    dataset &&
    (found.picture === OWN
      ? found.own?.length === channels(dataset) * dataset.size ** 2
      : dataset.pictures.some(({ name }) => name === found.picture));
  if (!found) return;
  if (!known || found.half.length !== dataset.size * (dataset.size / 2 + 1))
    return warn("This link is from another edition of this page: the playground opens in its initial state.");
  if (found.picture === OWN) await ownPicture(found.own);
  else await choose(dataset, found.picture);
  for (const name of ["network", "victim"]) element(name).value = found.network;
  element("epsilon").value = found.epsilon;
  sayNumbers();
  if (found.attacked) await attack();
  setMask(found.half, "from the link");
}

function listen() {
  const press = (name, act) =>
    element(name).addEventListener("click", () => Promise.resolve(act()).catch((error) => warn(error.message)));
  const learned = () => state.dataset.masks.find(({ name }) => name === element("learned").value);
  press("all", () => setMask(ones(), ALL));
  press("none", () => setMask(ones().fill(0), "no frequencies"));
  press("invert", () => setMask(state.half.map((value) => 1 - value), inverse(state.name)));
  const titled = () => `dataset mask, ${learned().title}`;
  press("apply", () => setMask(learned().half, titled()));
  press("apply-complement", () => setMask(complement(learned().half), `complement of the ${titled()}`));
  press("learn", learn);
  press("attack", attack);
  press("undo", undo);
  press("keep", keepMask);
  press("forget", () => {
    state.kept = [];
    drawEnergies();
  });
  press("link", copyLink);
  for (const name of Object.keys(BAND)) element(name).addEventListener("input", keepBand);
  element("epsilon").addEventListener("input", sayNumbers);
  element("picture").addEventListener("change", ({ target }) => {
    const [name, picture] = target.value.split(" ");
    choose(
      datasets.find((dataset) => dataset.name === name),
      picture,
    ).catch((error) => warn(error.message));
  });
  element("upload").addEventListener("change", ({ target }) => {
    warn("");
    if (target.files.length)
      readPicture(target.files[0], datasets[0].size, channels(datasets[0]))
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

/** Opens every group of controls where there is room, and passes the styles what covers the top of a narrow page. */
function arrange() {
  if (matchMedia("(min-width: 960px)").matches)
    for (const group of document.querySelectorAll(".playground-group")) group.open = true;
  const header = document.querySelector(".bd-header-article"); // of the book
  const top = document.querySelector(".playground-top");
  const place = () => {
    const height = header && getComputedStyle(header).position === "sticky" ? header.offsetHeight : 0;
    const { style } = element("playground");
    style.setProperty("--playground-header", `${height}px`);
    style.setProperty("--playground-covered", `${height + top.offsetHeight}px`);
  };
  new ResizeObserver(place).observe(top);
  addEventListener("resize", place);
}

/** Starts the page: `worker` is the address of the worker's module, `binary` fetches the file of networks. */
export async function start(worker, binary) {
  if (typeof Worker === "undefined")
    throw new Error("The playground needs Web Workers, which this browser lacks.");
  client = new Client(worker, warn);
  ({ datasets } = await client.ask("open", { binary: await binary() }));
  for (const { name, title, pictures } of datasets) {
    const group = document.createElement("optgroup");
    group.label = title;
    group.append(...pictures.map((one) => new Option(one.title, `${name} ${one.name}`)));
    element("picture").append(...(datasets.length > 1 ? [group] : group.children));
  }
  arrange();
  listen();
  await choose(datasets[0], datasets[0].pictures[0].name);
  warn("");
  element("playground").hidden = false;
  element("figure-playground")?.setAttribute("hidden", "");
  await recall();
}
