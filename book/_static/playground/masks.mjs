/** Learning the essential mask of one picture: the objective and the steps of `fmlib.core.masks`. */

import { eachHalf, filtered, share } from "./spectra.mjs";

/** g(d) = exp(d^2) for |d| up to clip, its tangent beyond; and the derivative. */
export function clippedExpSquare(difference, clip) {
  const size = Math.abs(difference);
  const top = Math.exp(Math.min(size, clip) ** 2);
  const tangent = 2 * Math.min(size, clip) * top;
  return { value: top + Math.max(size - clip, 0) * tangent, derivative: Math.sign(difference) * tangent };
}

/** Learns a mask: minimises g(L(f(M(x)), y) - L(f(x), y)) + penalty * mean(M), where y is the network's prediction. */
export class MaskFit {
  /**
   * @param {{penalty: number, clip: number, beta2: number, lr: number, patience: number, share_tol: number,
   * loss_tol: number}} options as in fmlib.core.config.ImageMaskSpec
   */
  constructor(network, fourier, pixels, options) {
    Object.assign(this, { network, fourier, options });
    const logits = network.logits(pixels);
    this.label = logits.indexOf(Math.max(...logits));
    this.reference = network.lossAndGradient(pixels, this.label).loss;
    this.spectrum = fourier.forward(pixels.map((pixel) => pixel - network.centre));
    this.half = new Float64Array(fourier.side * (fourier.side / 2 + 1)).fill(1);
    this.expAvg = new Float64Array(this.half.length); // Adam's running means of the gradient and of its square
    this.expAvgSq = new Float64Array(this.half.length);
    this.steps = 0;
    this.stableSteps = 0; // in a row
    this.lastInvariance = Infinity; // the last step's invariance cost
  }

  /** Whether the authors' stop rule is met. */
  get done() {
    return this.stableSteps >= this.options.patience;
  }

  /** One step of Adam, clamped to [0, 1]. Returns the objective and its parts before the step, and the share after. */
  step() {
    const { network, fourier, half, options, spectrum } = this;
    const side = fourier.side;
    const picture = filtered(fourier, spectrum, half, network.centre);
    const outer = (loss) => clippedExpSquare(loss - this.reference, options.clip);
    const { loss, logits, gradient } = network.lossAndGradient(picture, this.label, (value) => outer(value).derivative);
    const invariance = outer(loss).value;
    const before = share(half, side);
    const back = fourier.forward(gradient);

    this.steps += 1;
    const [correction1, correction2] = [1 - 0.9 ** this.steps, 1 - options.beta2 ** this.steps];
    eachHalf(side, (place, row, column, weight) => {
      const n = row * side + column;
      const along = spectrum.real[n] * back.real[n] + spectrum.imaginary[n] * back.imaginary[n];
      const grad = (weight * (along + options.penalty)) / side ** 2;
      this.expAvg[place] = 0.9 * this.expAvg[place] + 0.1 * grad;
      this.expAvgSq[place] = options.beta2 * this.expAvgSq[place] + (1 - options.beta2) * grad ** 2;
      const adamStep = this.expAvg[place] / correction1 / (Math.sqrt(this.expAvgSq[place] / correction2) + 1e-8);
      half[place] = Math.min(Math.max(half[place] - options.lr * adamStep, 0), 1);
    });
    const kept = logits.indexOf(Math.max(...logits)) === this.label;
    const after = share(half, side);
    const shareStable = Math.abs(after - before) <= options.share_tol;
    const lossStable = Math.abs(invariance - this.lastInvariance) <= options.loss_tol;
    this.stableSteps = shareStable && lossStable && kept ? this.stableSteps + 1 : 0;
    this.lastInvariance = invariance;
    return { objective: invariance + options.penalty * before, invariance, share: after, kept };
  }
}
