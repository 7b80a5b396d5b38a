/**
 * The playground's computations, in a worker: answers each message {id, kind, ...} with {id, result} or {id, error},
 * and while it learns with {id, update}.
 */

import { projectedGradient } from "./attacks.mjs";
import { readFile } from "./file.mjs";
import { MinimalMask } from "./masks.mjs";
import { Network, softmax } from "./network.mjs";
import { Fourier, amplitudes, filtered } from "./spectra.mjs";

const SHOWN_EVERY = 5; // steps between two updates while a mask is learned, unless the data set has another number

let datasets;
const opened = new Map(); // networks and transforms, by data set
let learning = 0; // number of the solution that may continue

function dataset(name) {
  if (!opened.has(name)) {
    const { size, mean, std, networks } = datasets.find((one) => one.name === name);
    const ready = Object.entries(networks).map(([regime, { nodes }]) => [regime, new Network(nodes, mean, std)]);
    opened.set(name, { fourier: new Fourier(size), networks: Object.fromEntries(ready), centre: mean });
  }
  return opened.get(name);
}

/** Probabilities of every network of a data set, for one picture. */
const probabilities = ({ networks }, pixels) =>
  Object.fromEntries(Object.entries(networks).map(([regime, one]) => [regime, [...softmax(one.logits(pixels))]]));

/** The picture with a mask applied, and the networks' probabilities for it. */
function applyMask(place, pixels, half) {
  const picture = filtered(place.fourier, place.fourier.spectrum(pixels, place.centre), half, place.centre);
  return { filtered: picture, masked: probabilities(place, picture) };
}

const HANDLERS = {
  /** Read the file; returns the datasets without their networks' weights. */
  open({ binary }) {
    datasets = readFile(binary);
    return {
      datasets: datasets.map(({ networks, ...rest }) => ({
        ...rest,
        networks: Object.entries(networks).map(([regime, { title }]) => ({ regime, title })),
      })),
    };
  },

  /** A picture's amplitude spectrum, about the level that its networks see as zero, and the networks' probabilities. */
  inspect({ name, pixels }) {
    const place = dataset(name);
    const amplitude = amplitudes(place.fourier.spectrum(pixels, place.centre));
    return { amplitude, unmasked: probabilities(place, pixels) };
  },

  filter({ name, pixels, half }) {
    return applyMask(dataset(name), pixels, half);
  },

  /** The logits of one network, the loss of a label and its gradient, and the probabilities. */
  gradient({ name, regime, pixels, label }) {
    const { loss, logits, gradient } = dataset(name).networks[regime].lossAndGradient(pixels, label);
    return { logits, loss, gradient, probabilities: softmax(logits) };
  },

  attack({ name, regime, pixels, options }) {
    const place = dataset(name);
    const network = place.networks[regime];
    const logits = network.logits(pixels);
    const attacked = projectedGradient(network, pixels, logits.indexOf(Math.max(...logits)), options);
    const change = attacked.map((value, n) => value - pixels[n]);
    return { attacked, change, amplitude: amplitudes(place.fourier.spectrum(change, place.centre.map(() => 0))) };
  },

  /** Learn a mask until it is done or stopped; `report` gets accepted masks, and the result is the best one. */
  async learn({ name, regime, pixels, options }, report) {
    const place = dataset(name);
    const solution = new MinimalMask(place.networks[regime], place.fourier, pixels, options);
    const number = ++learning;
    const curve = [];
    const update = () => {
      const { half, share, change, kept } = solution.done ? solution.best : solution.accepted;
      const applied = applyMask(place, pixels, half);
      return { half, share, change, kept, steps: solution.steps, curve: curve.splice(0), ...applied };
    };
    while (number === learning && !solution.done) {
      const { share, change } = solution.step();
      curve.push({ share, change });
      if (solution.done || solution.steps % (options.every ?? SHOWN_EVERY)) continue;
      report(update());
      await new Promise((resolve) => setTimeout(resolve)); // lets messages in
    }
    return update();
  },

  stop() {
    learning += 1;
    return {};
  },
};

addEventListener("message", async ({ data: { id, kind, ...rest } }) => {
  try {
    const report = (update) => postMessage({ id, update });
    postMessage({ id, result: await HANDLERS[kind](rest, report) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
