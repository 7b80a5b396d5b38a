/** The laboratory's computing, away from the page: answers messages {id, kind, ...} with {id, ...} or {id, error}. */

import { projectedGradient } from "./attacks.mjs";
import { readFile } from "./file.mjs";
import { MaskFit } from "./masks.mjs";
import { Network, softmax } from "./network.mjs";
import { Fourier, filtered } from "./spectra.mjs";

const SHOWN_EVERY = 100; // milliseconds between two looks at a mask that is being learned

let worlds;
const made = new Map(); // networks and transforms, by world
let learning = 0; // number of the fit that may go on

function world(name) {
  if (!made.has(name)) {
    const { size, mean, std, networks } = worlds.find((one) => one.name === name);
    const ready = Object.entries(networks).map(([regime, { layers }]) => [
      regime,
      new Network(layers, size, mean, std),
    ]);
    made.set(name, { fourier: new Fourier(size), networks: Object.fromEntries(ready), centre: mean });
  }
  return made.get(name);
}

/** Probabilities of every network of a world, for one picture. */
const answers = ({ networks }, pixels) =>
  Object.fromEntries(Object.entries(networks).map(([regime, one]) => [regime, [...softmax(one.logits(pixels))]]));

const spectrum = ({ fourier, centre }, pixels) => fourier.forward(pixels.map((pixel) => pixel - centre));

/** The picture behind a mask, and what the networks say of it. */
function behind(place, pixels, half) {
  const picture = filtered(place.fourier, spectrum(place, pixels), half, place.centre);
  return { filtered: picture, behind: answers(place, picture) };
}

const amplitudes = ({ real, imaginary }) => real.map((value, n) => Math.hypot(value, imaginary[n]));

const HANDLERS = {
  /** Read the file; returns the worlds without their networks' weights. */
  open({ binary }) {
    worlds = readFile(binary);
    return {
      worlds: worlds.map(({ networks, ...rest }) => ({
        ...rest,
        networks: Object.entries(networks).map(([regime, { title }]) => ({ regime, title })),
      })),
    };
  },

  /** A picture's amplitude spectrum, about the gray level of its world, and what the networks say of it. */
  look({ name, pixels }) {
    const place = world(name);
    return { amplitude: amplitudes(spectrum(place, pixels)), plain: answers(place, pixels) };
  },

  filter({ name, pixels, half }) {
    return behind(world(name), pixels, half);
  },

  /** The loss of a label, its gradient and the probabilities, of one network. */
  slope({ name, regime, pixels, label }) {
    const { loss, logits, gradient } = world(name).networks[regime].slope(pixels, label);
    return { loss, gradient, probabilities: softmax(logits) };
  },

  attack({ name, regime, pixels, options }) {
    const place = world(name);
    const network = place.networks[regime];
    const logits = network.logits(pixels);
    const attacked = projectedGradient(network, pixels, logits.indexOf(Math.max(...logits)), options);
    const change = attacked.map((value, n) => value - pixels[n]);
    return { attacked, change, amplitude: amplitudes(place.fourier.forward(change)) };
  },

  /** Learn a mask until it is done, stopped or `most` steps old; `report` gets looks at it on the way. */
  async learn({ name, regime, pixels, options, most }, report) {
    const place = world(name);
    const fit = new MaskFit(place.networks[regime], place.fourier, pixels, options);
    const number = ++learning;
    const curve = [];
    const begun = performance.now();
    let shown = begun;
    const seen = () => ({
      half: Float32Array.from(fit.half),
      curve: curve.splice(0),
      steps: fit.steps,
      pace: fit.steps / ((performance.now() - begun) / 1000),
      done: fit.done,
      ...behind(place, pixels, fit.half),
    });
    while (number === learning && !fit.done && fit.steps < most) {
      curve.push(fit.step());
      if (performance.now() - shown < SHOWN_EVERY) continue;
      report(seen());
      await new Promise((resolve) => setTimeout(resolve)); // let messages in
      shown = performance.now();
    }
    return seen();
  },

  stop() {
    learning += 1;
    return {};
  },
};

addEventListener("message", async ({ data: { id, kind, ...rest } }) => {
  try {
    const report = (seen) => postMessage({ id, seen });
    postMessage({ id, done: await HANDLERS[kind](rest, report) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
