/**
 * A classifier of one gray picture: its logits, and the gradient of its loss with respect to the pixels.
 *
 * Planes are Float64Array with the channels last: value (y, x, c) lies at (y * side + x) * channels + c. Every layer
 * is an object with `forward(values)` and `backward(gradient)`; backward belongs to the last forward.
 */

/** 3 x 3 convolution with a border of zeros, from `side * side * inward` to `side * side * outward` values. */
function correlate(values, weights, side, inward, outward, result) {
  // The non-zero values of one place, and where their weights begin; filled up with zeros to a multiple of four, as
  // adding four products at a time to the result takes fewer loads and stores than one.
  const factors = new Float64Array(inward + 3);
  const rows = new Int32Array(inward + 3);
  result.fill(0);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      let count = 0;
      for (let i = 0; i < inward; i++) {
        const value = values[(y * side + x) * inward + i];
        if (value === 0) continue; // half of what ReLU leaves, most of what flows back through a maximum
        factors[count] = value;
        rows[count++] = i * outward;
      }
      while (count % 4) factors[count++] = 0;
      for (let dy = -1; dy <= 1; dy++) {
        if (y - dy < 0 || y - dy >= side) continue;
        for (let dx = -1; dx <= 1; dx++) {
          if (x - dx < 0 || x - dx >= side) continue;
          const to = ((y - dy) * side + x - dx) * outward;
          const tap = (3 * (dy + 1) + dx + 1) * inward * outward;
          for (let n = 0; n < count; n += 4) {
            const [fa, fb, fc, fd] = [factors[n], factors[n + 1], factors[n + 2], factors[n + 3]];
            const [a, b, c, d] = [tap + rows[n], tap + rows[n + 1], tap + rows[n + 2], tap + rows[n + 3]];
            for (let o = 0; o < outward; o++)
              result[to + o] += fa * weights[a + o] + fb * weights[b + o] + fc * weights[c + o] + fd * weights[d + o];
          }
        }
      }
    }
  }
  return result;
}

function convolution({ weights, scale, shape }, side) {
  const [outward, inward] = shape;
  const ahead = new Float32Array(9 * inward * outward); // tap, inward, outward
  const back = new Float32Array(9 * inward * outward); // mirrored tap, outward, inward
  for (let o = 0; o < outward; o++)
    for (let i = 0; i < inward; i++)
      for (let tap = 0; tap < 9; tap++) {
        const weight = weights[(o * inward + i) * 9 + tap] * scale[o];
        ahead[(tap * inward + i) * outward + o] = weight;
        back[((8 - tap) * outward + o) * inward + i] = weight;
      }
  const output = new Float64Array(side * side * outward);
  const returned = new Float64Array(side * side * inward);
  return {
    side,
    channels: outward,
    forward: (values) => correlate(values, ahead, side, inward, outward, output),
    backward: (gradient) => correlate(gradient, back, side, outward, inward, returned),
  };
}

/** The largest of each 2 x 2 values; the gradient goes to the first of them. */
function pool(_, side, channels) {
  const half = side / 2;
  const output = new Float64Array(half * half * channels);
  const chosen = new Int32Array(output.length);
  const returned = new Float64Array(side * side * channels);
  return {
    side: half,
    channels,
    forward(values) {
      for (let y = 0, o = 0; y < half; y++)
        for (let x = 0; x < half; x++)
          for (let c = 0; c < channels; c++, o++) {
            const first = (2 * y * side + 2 * x) * channels + c;
            let best = first;
            for (const other of [first + channels, first + side * channels, first + (side + 1) * channels])
              if (values[other] > values[best]) best = other;
            chosen[o] = best;
            output[o] = values[best];
          }
      return output;
    },
    backward(gradient) {
      returned.fill(0);
      for (let o = 0; o < gradient.length; o++) returned[chosen[o]] = gradient[o];
      return returned;
    },
  };
}

/** Batch normalisation in eval mode: a scale and a shift for each channel. */
function affine({ scale, shift }, side, channels) {
  const output = new Float64Array(side * side * channels);
  const returned = new Float64Array(output.length);
  return {
    side,
    channels,
    forward(values) {
      for (let n = 0; n < values.length; n++) output[n] = values[n] * scale[n % channels] + shift[n % channels];
      return output;
    },
    backward(gradient) {
      for (let n = 0; n < gradient.length; n++) returned[n] = gradient[n] * scale[n % channels];
      return returned;
    },
  };
}

function relu(_, side, channels) {
  const output = new Float64Array(side * side * channels);
  const returned = new Float64Array(output.length);
  return {
    side,
    channels,
    forward(values) {
      for (let n = 0; n < values.length; n++) output[n] = values[n] > 0 ? values[n] : 0;
      return output;
    },
    backward(gradient) {
      for (let n = 0; n < gradient.length; n++) returned[n] = output[n] > 0 ? gradient[n] : 0;
      return returned;
    },
  };
}

/** The mean of each channel over the plane. */
function mean(_, side, channels) {
  const places = side * side;
  return {
    side: 1,
    channels,
    forward(values) {
      const output = new Float64Array(channels);
      values.forEach((value, n) => (output[n % channels] += value / places));
      return output;
    },
    backward: (gradient) => new Float64Array(places * channels).map((_, n) => gradient[n % channels] / places),
  };
}

function linear({ weights, scale, bias, shape }) {
  const [outward, inward] = shape;
  const matrix = Float32Array.from(weights, (weight, n) => weight * scale[Math.floor(n / inward)]);
  return {
    side: 1,
    channels: outward,
    forward(values) {
      const output = Float64Array.from(bias);
      for (let o = 0; o < outward; o++)
        for (let i = 0; i < inward; i++) output[o] += matrix[o * inward + i] * values[i];
      return output;
    },
    backward(gradient) {
      const returned = new Float64Array(inward);
      for (let o = 0; o < outward; o++)
        for (let i = 0; i < inward; i++) returned[i] += matrix[o * inward + i] * gradient[o];
      return returned;
    },
  };
}

const LAYERS = { convolution, pool, affine, relu, mean, linear };

/** Probabilities of logits. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - top));
  const sum = weights.reduce((total, weight) => total + weight);
  return weights.map((weight) => weight / sum);
}

/** A trained network. */
export class Network {
  /**
   * @param {object[]} layers as in the file; @param {number} size side of the picture
   * @param {number} centre gray level that is subtracted from every pixel; @param {number} spread then divided by
   */
  constructor(layers, size, centre, spread) {
    this.centre = centre;
    this.spread = spread;
    let form = { side: size, channels: 1 };
    this.layers = layers.map((layer) => (form = LAYERS[layer.kind](layer, form.side, form.channels)));
  }

  /** @param {Float64Array} pixels in [0, 1]; @returns {Float64Array} a logit for each class */
  logits(pixels) {
    const start = pixels.map((pixel) => (pixel - this.centre) / this.spread);
    return this.layers.reduce((values, layer) => layer.forward(values), start);
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
    const start = slopes.map((slope) => slope / this.spread);
    return this.layers.reduceRight((values, layer) => layer.backward(values), start);
  }
}
