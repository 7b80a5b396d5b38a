/** A classifier: its logits, and the gradient of its loss with respect to the pixels. */

import { LAYERS } from "./layers.mjs";

/** Probabilities of logits. */
export function softmax(logits) {
  const top = logits.reduce((most, value) => Math.max(most, value));
  const weights = logits.map((logit) => Math.exp(logit - top));
  const sum = weights.reduce((total, weight) => total + weight);
  return weights.map((weight) => weight / sum);
}

/** A trained network: a graph of layers. */
export class Network {
  /**
   * @param {object[]} nodes as in the file: the first is the picture, the last the logits, and each names its inputs
   * @param {number[]} centre level of each channel that is subtracted from its pixels
   * @param {number[]} spread what they are then divided by
   */
  constructor(nodes, centre, spread) {
    Object.assign(this, { nodes, centre, spread });
    const forms = nodes.map(({ form }) => form);
    this.layers = nodes.map((node) => LAYERS[node.kind]?.(node, node.inputs.map((n) => forms[n])));
    this.sums = forms.map(() => null); // of the gradients of a value that several layers use
  }

  /** @param {Float64Array} pixels in [0, 1], one plane per channel; @returns {Float64Array} a logit for each class */
  logits(pixels) {
    const { centre, spread, nodes } = this;
    const channels = centre.length;
    const places = pixels.length / channels;
    const start = new Float64Array(pixels.length);
    for (let c = 0; c < channels; c++)
      for (let n = 0; n < places; n++) start[n * channels + c] = (pixels[c * places + n] - centre[c]) / spread[c];
    const values = [start];
    for (let n = 1; n < nodes.length; n++)
      values.push(this.layers[n].forward(...nodes[n].inputs.map((input) => values[input])));
    return Float64Array.from(values.at(-1));
  }

  /**
   * The cross-entropy of `label`, and its gradient with respect to the pixels.
   * @returns {{loss: number, logits: Float64Array, gradient: Float64Array}}
   */
  lossAndGradient(pixels, label) {
    const logits = this.logits(pixels);
    const probabilities = softmax(logits);
    const loss = -Math.log(Math.max(probabilities[label], Number.MIN_VALUE));
    const gradient = this.backward(probabilities.map((probability, n) => probability - (n === label)));
    return { loss, logits, gradient };
  }

  /** The gradient of slopes . logits with respect to the pixels of the last picture. */
  backward(slopes) {
    const { nodes, spread } = this;
    const gradients = nodes.map(() => null);
    gradients[nodes.length - 1] = slopes;
    for (let n = nodes.length - 1; n > 0; n--) {
      const parts = this.layers[n].backward(gradients[n]);
      nodes[n].inputs.forEach((input, part) => (gradients[input] = this.added(input, gradients[input], parts[part])));
    }
    const [start] = gradients;
    const channels = spread.length;
    const places = start.length / channels;
    const pixels = new Float64Array(start.length);
    for (let c = 0; c < channels; c++)
      for (let n = 0; n < places; n++) pixels[c * places + n] = start[n * channels + c] / spread[c];
    return pixels;
  }

  /** The sum of what layers return to one value, in an array of its own: theirs may be shared. */
  added(input, sum, part) {
    if (sum === null) return part;
    this.sums[input] ??= new Float64Array(part.length);
    const own = this.sums[input];
    for (let n = 0; n < own.length; n++) own[n] = sum[n] + part[n];
    return own;
  }
}
