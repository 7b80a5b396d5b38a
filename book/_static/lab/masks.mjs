/** Learning the essential mask of one picture: the objective and the steps of `fmlib.masks`. */

import { eachHalf, filtered, share } from "./spectra.mjs";

/** g(d) = exp(d^2) up to |d| = guard, and its tangent beyond; with its derivative. */
export function guardedExpSquare(difference, guard) {
  const size = Math.abs(difference);
  const top = Math.exp(Math.min(size, guard) ** 2);
  const slope = 2 * Math.min(size, guard) * top;
  return { value: top + Math.max(size - guard, 0) * slope, slope: Math.sign(difference) * slope };
}

/** A fit under way: it minimises g(L(f(M(x)), y) - L(f(x), y)) + penalty * mean(M), y the network's own answer. */
export class MaskFit {
  /**
   * @param {{penalty: number, guard: number, memory: number, rate: number, patience: number, still: number,
   * calm: number}} options as in fmlib.config.ImageMaskSpec; rate: Adam's
   */
  constructor(network, fourier, pixels, options) {
    Object.assign(this, { network, fourier, options });
    const logits = network.logits(pixels);
    this.label = logits.indexOf(Math.max(...logits));
    this.reference = network.slope(pixels, this.label).loss;
    this.spectrum = fourier.forward(pixels.map((pixel) => pixel - network.centre));
    this.half = new Float64Array(fourier.side * (fourier.side / 2 + 1)).fill(1);
    this.first = new Float64Array(this.half.length); // Adam's running means of the gradient and of its square
    this.second = new Float64Array(this.half.length);
    this.steps = 0;
    this.stillSteps = 0; // in a row
    this.last = Infinity; // the last step's invariance cost
  }

  /** Whether the authors' stop rule is met. */
  get done() {
    return this.stillSteps >= this.options.patience;
  }

  /** One step of Adam, clamped to [0, 1]. Returns the objective and its parts before the step, and the share after. */
  step() {
    const { network, fourier, half, options, spectrum } = this;
    const side = fourier.side;
    const picture = filtered(fourier, spectrum, half, network.centre);
    const outer = (loss) => guardedExpSquare(loss - this.reference, options.guard);
    const { loss, logits, gradient } = network.slope(picture, this.label, (found) => outer(found).slope);
    const invariance = outer(loss).value;
    const before = share(half, side);
    const back = fourier.forward(gradient);

    this.steps += 1;
    const [early, late] = [1 - 0.9 ** this.steps, 1 - options.memory ** this.steps];
    eachHalf(side, (place, row, column, weight) => {
      const n = row * side + column;
      const along = spectrum.real[n] * back.real[n] + spectrum.imaginary[n] * back.imaginary[n];
      const slope = (weight * (along + options.penalty)) / side ** 2;
      this.first[place] = 0.9 * this.first[place] + 0.1 * slope;
      this.second[place] = options.memory * this.second[place] + (1 - options.memory) * slope ** 2;
      const move = this.first[place] / early / (Math.sqrt(this.second[place] / late) + 1e-8);
      half[place] = Math.min(Math.max(half[place] - options.rate * move, 0), 1);
    });
    const kept = logits.indexOf(Math.max(...logits)) === this.label;
    const after = share(half, side);
    const still = Math.abs(after - before) <= options.still && Math.abs(invariance - this.last) <= options.calm;
    this.stillSteps = still && kept ? this.stillSteps + 1 : 0;
    this.last = invariance;
    return { objective: invariance + options.penalty * before, invariance, share: after, kept };
  }
}
