/**
 * Learning the minimal mask of one picture by sequential convex steps, as in `fmlib.core.minimal_masks`.
 *
 * d(M) is the change of the loss under the mask M, and a(M) its L1 share. The solver minimises g(d) + penalty * a.
 */

import { amplitudes, eachHalf, filtered, share } from "./spectra.mjs";

// The constants of fmlib.core.minimal_masks.
const BISECTIONS = 24; // halvings of the interval in which knapsackStep looks for its threshold
const DECAY = 0.01; // share of the radius that is left at the last step
const LOOSE = 0.5; // the |d| that is always accepted in the first step
const TOLERANCE = 0.01; // and in the last
const EXPONENT = 0.25; // by which the reach of a frequency falls with the picture's amplitude
const FACTORS = [0.05, 20]; // the least and the largest reach, in units of the radius
const RESTORED = 0.5; // share of the margin without a mask that a step restores where the label is lost

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** g(d) = exp(d^2) for |d| up to clip, its tangent beyond. */
export function clippedExpSquare(difference, clip) {
  const size = Math.min(Math.abs(difference), clip);
  return Math.exp(size ** 2) * (1 + 2 * size * (Math.abs(difference) - size));
}

/**
 * The step D that minimises (change + gradient . D)^2 + penalty * weights . D, with |D| <= reach and mask + D in
 * [0, 1]: a knapsack.
 *
 * Every entry starts at its lower bound. Entries are raised to their upper bounds in descending order of their benefit
 * over their weight while that pays, the marginal ones partly.
 */
export function knapsackStep(mask, gradient, change, weights, reach, penalty) {
  const lower = mask.map((value, n) => Math.max(-value, -reach[n]));
  const range = mask.map((value, n) => Math.min(1 - value, reach[n]) - lower[n]);
  const lack = -change - gradient.reduce((sum, slope, n) => sum + slope * lower[n], 0);
  const benefit = gradient.map((slope) => Math.sign(lack) * slope); // positive where raising the entry helps
  const ratio = benefit.map((value, n) => value / weights[n]);
  const amount = benefit.map((value, n) => Math.max(value, 0) * range[n]);
  const gained = (low, high = Infinity) => {
    let sum = 0;
    for (let n = 0; n < amount.length; n++) if (ratio[n] > low && ratio[n] <= high) sum += amount[n];
    return sum;
  };
  const missing = (threshold) => Math.abs(lack) - penalty / (2 * Math.max(threshold, 1e-30)) - gained(threshold);
  let low = 0;
  let high = ratio.reduce((most, value) => Math.max(most, value), 0);
  for (let count = 0; count < BISECTIONS; count++) {
    const middle = (low + high) / 2;
    if (missing(middle) <= 0) low = middle;
    else high = middle;
  }
  const part = clamp(missing(high) / Math.max(gained(low, high), 1e-30), 0, 1);
  return lower.map((value, n) => value + (ratio[n] > high ? 1 : ratio[n] > low ? part : 0) * range[n]);
}

/** The class with the largest logit among those other than the label. */
function rivalOf(logits, label) {
  const others = logits.map((value, number) => (number === label ? -Infinity : value));
  return others.indexOf(Math.max(...others));
}

/** Learns a mask that keeps the loss of the network's own prediction. */
export class MinimalMask {
  /** @param {{penalty: number, steps: number, radius: number, clip: number}} options as in `MinimalMaskSpec` */
  constructor(network, fourier, pixels, options) {
    Object.assign(this, { network, fourier, options, radius: options.radius, steps: 0 });
    const logits = network.logits(pixels);
    this.label = logits.indexOf(Math.max(...logits));
    this.reference = network.lossAndGradient(pixels, this.label).loss;
    this.wanted = RESTORED * (logits[this.label] - logits[rivalOf(logits, this.label)]);
    this.spectrum = fourier.spectrum(pixels, network.centre);
    const side = fourier.side;
    this.next = new Float64Array(side * (side / 2 + 1)).fill(1);
    this.weights = new Float64Array(this.next.length);
    eachHalf(side, (place, row, column, weight) => (this.weights[place] = weight / side ** 2));
    this.factors = this.reach();
    this.accepted = null; // the iterate from which the next step starts
    this.best = null; // the iterate of the lowest objective among those that keep the label, or among all
  }

  get done() {
    return this.steps >= this.options.steps;
  }

  /** The reach of each entry in units of the radius. */
  reach() {
    const full = amplitudes(this.spectrum);
    const amplitude = new Float64Array(this.next.length);
    const { side } = this.fourier;
    eachHalf(side, (place, row, column) => (amplitude[place] = full[row * side + column]));
    const mean = amplitude.reduce((sum, value) => sum + value, 0) / amplitude.length;
    return amplitude.map((value) => clamp((Math.max(mean, 1e-30) / Math.max(value, 1e-30)) ** EXPONENT, ...FACTORS));
  }

  /**
   * A mask, its change of the loss, its L1 share and objective, and whether it keeps the label; `aim`, what the step is
   * to undo: the change, or what the margin lacks where the label is lost; and the gradient of the aim.
   */
  evaluate(half) {
    const { network, fourier, spectrum, label, options } = this;
    const picture = filtered(fourier, spectrum, half, network.centre);
    const { loss, logits, gradient: ofLoss } = network.lossAndGradient(picture, label);
    const rival = rivalOf(logits, label);
    const kept = logits[label] > logits[rival];
    const change = loss - this.reference;
    const aim = kept ? change : this.wanted - (logits[label] - logits[rival]);
    const slopes = logits.map((value, number) => (number === rival) - (number === label));
    const back = fourier.spectrum(kept ? ofLoss : network.backward(slopes), spectrum.map(() => 0));
    const gradient = new Float64Array(half.length);
    eachHalf(fourier.side, (place, row, column) => {
      const n = row * fourier.side + column;
      let along = 0;
      for (let c = 0; c < back.length; c++)
        along += spectrum[c].real[n] * back[c].real[n] + spectrum[c].imaginary[n] * back[c].imaginary[n];
      gradient[place] = this.weights[place] * along;
    });
    const l1Share = share(half, fourier.side);
    const objective = clippedExpSquare(change, options.clip) + options.penalty * l1Share;
    return { half, change, aim, gradient, share: l1Share, objective, kept };
  }

  /** Whether `iterate` is better than the best so far. */
  improves({ kept, objective }) {
    const { best } = this;
    return !best || (kept === best.kept ? objective < best.objective : kept);
  }

  /** Whether the next step starts from `iterate` in place of the accepted one; `part` of the steps are done. */
  passes({ kept, change, objective }, part) {
    const last = this.accepted;
    if (!last || (kept && !last.kept)) return true;
    const always = LOOSE * (TOLERANCE / LOOSE) ** part;
    return Math.abs(change) <= Math.max(Math.abs(last.change), always) || objective < last.objective;
  }

  /** One step: evaluates an iterate, accepts it or not, and proposes the next. Returns the iterate. */
  step() {
    const { radius, steps } = this.options;
    const iterate = this.evaluate(this.next);
    if (this.improves(iterate)) this.best = iterate;
    const part = this.steps / Math.max(steps - 1, 1);
    const passes = this.passes(iterate, part);
    if (passes) this.accepted = iterate;
    this.radius = Math.min(passes ? 1.25 * this.radius : this.radius / 2, radius * DECAY ** part);
    const { half, gradient, aim } = this.accepted;
    const reach = this.factors.map((factor) => factor * this.radius);
    const move = knapsackStep(half, gradient, aim, this.weights, reach, this.options.penalty);
    this.next = half.map((value, n) => clamp(value + move[n], 0, 1));
    this.steps += 1;
    return iterate;
  }
}
