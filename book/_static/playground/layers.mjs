/**
 * The layers of a network, by kind.
 *
 * Planes are Float64Array with the channels last: value (y, x, c) lies at (y * width + x) * channels + c. A layer is
 * made from its node in the file and the forms of its inputs, [channels, height, width]. It has `forward(...values)`,
 * and `backward(gradient)`, which returns one gradient for each input and belongs to the last forward.
 */

import { convolution, restored } from "./convolutions.mjs";

const sizeOf = ([channels, height, width]) => channels * height * width;

/** A scale and a shift for each channel, such as batch normalisation in eval mode. */
function affine({ scale, shift, form }) {
  const [channels] = form;
  const output = new Float64Array(sizeOf(form));
  const returned = new Float64Array(output.length);
  return {
    forward(values) {
      for (let n = 0; n < values.length; n++) output[n] = values[n] * scale[n % channels] + shift[n % channels];
      return output;
    },
    backward(gradient) {
      for (let n = 0; n < gradient.length; n++) returned[n] = gradient[n] * scale[n % channels];
      return [returned];
    },
  };
}

/** Values limited to an interval: ReLU and ReLU6. */
function clip({ low, high, form }) {
  const output = new Float64Array(sizeOf(form));
  const returned = new Float64Array(output.length);
  const most = high ?? Infinity;
  return {
    forward(values) {
      for (let n = 0; n < values.length; n++) {
        const value = values[n];
        output[n] = value > low ? (value < most ? value : most) : low;
      }
      return output;
    },
    backward(gradient) {
      for (let n = 0; n < gradient.length; n++) returned[n] = output[n] > low && output[n] < most ? gradient[n] : 0;
      return [returned];
    },
  };
}

/** A function of each value, by the function and its derivative. */
const elementwise =
  (value, slope) =>
  ({ form }) => {
    const output = new Float64Array(sizeOf(form));
    const returned = new Float64Array(output.length);
    let inputs;
    return {
      forward(values) {
        inputs = values;
        for (let n = 0; n < values.length; n++) output[n] = value(values[n]);
        return output;
      },
      backward(gradient) {
        for (let n = 0; n < gradient.length; n++) returned[n] = gradient[n] * slope(inputs[n]);
        return [returned];
      },
    };
  };

const logistic = (x) => 1 / (1 + Math.exp(-x));
const sigmoid = elementwise(logistic, (x) => logistic(x) * (1 - logistic(x)));
const silu = elementwise(
  (x) => x * logistic(x),
  (x) => logistic(x) * (1 + x * (1 - logistic(x))),
);
const hardsigmoid = elementwise(
  (x) => Math.min(Math.max(x / 6 + 0.5, 0), 1),
  (x) => (x > -3 && x < 3 ? 1 / 6 : 0),
);
const hardswish = elementwise(
  (x) => x * Math.min(Math.max(x / 6 + 0.5, 0), 1),
  (x) => (x >= 3 ? 1 : x > -3 ? x / 3 + 0.5 : 0),
);

/** Calls `visit(output place, input places, divisor)` for each window of a pooling layer. */
function eachWindow({ rows, columns }, width, visit) {
  let place = 0;
  for (const [top, bottom, high] of rows)
    for (const [left, right, wide] of columns) {
      const places = [];
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) places.push(y * width + x);
      visit(place++, places, high * wide);
    }
}

/** The largest value of each window; the gradient goes to the first of them. */
function maximum(node, [form]) {
  const [channels, , width] = form;
  const windows = [];
  eachWindow(node, width, (_, places) => windows.push(Int32Array.from(places, (place) => place * channels)));
  const output = new Float64Array(sizeOf(node.form));
  const chosen = new Int32Array(output.length);
  const returned = new Float64Array(sizeOf(form));
  return {
    forward(values) {
      for (let window = 0, o = 0; window < windows.length; window++)
        for (let c = 0; c < channels; c++, o++) {
          const places = windows[window];
          let best = places[0] + c;
          for (let n = 1; n < places.length; n++) if (values[places[n] + c] > values[best]) best = places[n] + c;
          chosen[o] = best;
          output[o] = values[best];
        }
      return output;
    },
    backward(gradient) {
      returned.fill(0);
      for (let o = 0; o < gradient.length; o++) returned[chosen[o]] += gradient[o];
      return [returned];
    },
  };
}

/** The mean of each window, or its sum over a given divisor. */
function mean(node, [form]) {
  const [channels, , width] = form;
  const output = new Float64Array(sizeOf(node.form));
  const returned = new Float64Array(sizeOf(form));
  return {
    forward(values) {
      output.fill(0);
      eachWindow(node, width, (to, places, divisor) => {
        for (const from of places)
          for (let c = 0; c < channels; c++) output[to * channels + c] += values[from * channels + c] / divisor;
      });
      return output;
    },
    backward(gradient) {
      returned.fill(0);
      eachWindow(node, width, (from, places, divisor) => {
        for (const to of places)
          for (let c = 0; c < channels; c++) returned[to * channels + c] += gradient[from * channels + c] / divisor;
      });
      return [returned];
    },
  };
}

function sum({ form }) {
  const output = new Float64Array(sizeOf(form));
  return {
    forward(one, other) {
      for (let n = 0; n < output.length; n++) output[n] = one[n] + other[n];
      return output;
    },
    backward: (gradient) => [gradient, gradient],
  };
}

/** The product of two planes, the second of the same form or with one value for each channel. */
function product({ form }, forms) {
  const output = new Float64Array(sizeOf(form));
  const returned = forms.map((one) => new Float64Array(sizeOf(one)));
  const size = returned[1].length; // n % size is the channel where it has one value for each
  let factors;
  return {
    forward(one, other) {
      factors = [one, other];
      for (let n = 0; n < output.length; n++) output[n] = one[n] * other[n % size];
      return output;
    },
    backward(gradient) {
      const [one, other] = factors;
      returned[1].fill(0);
      for (let n = 0; n < gradient.length; n++) {
        returned[0][n] = gradient[n] * other[n % size];
        returned[1][n % size] += gradient[n] * one[n];
      }
      return returned;
    },
  };
}

/** The channels of several planes, one after the other. */
function concatenation({ form }, forms) {
  const [channels] = form;
  const places = form[1] * form[2];
  const output = new Float64Array(sizeOf(form));
  const returned = forms.map((one) => new Float64Array(sizeOf(one)));
  const eachPart = (visit) =>
    forms.reduce((start, [count], part) => {
      for (let place = 0; place < places; place++) visit(part, place * count, place * channels + start, count);
      return start + count;
    }, 0);
  return {
    forward(...parts) {
      eachPart((part, from, to, count) => output.set(parts[part].subarray(from, from + count), to));
      return output;
    },
    backward(gradient) {
      eachPart((part, to, from, count) => returned[part].set(gradient.subarray(from, from + count), to));
      return returned;
    },
  };
}

/** Planes as one vector, channel by channel. */
function flatten(_, [form]) {
  const [channels, height, width] = form;
  const output = new Float64Array(sizeOf(form));
  const returned = new Float64Array(output.length);
  const places = height * width;
  const other = (n) => (n % channels) * places + Math.floor(n / channels);
  return {
    forward(values) {
      for (let n = 0; n < values.length; n++) output[other(n)] = values[n];
      return output;
    },
    backward(gradient) {
      for (let n = 0; n < gradient.length; n++) returned[n] = gradient[other(n)];
      return [returned];
    },
  };
}

function linear(node) {
  const { bias, shape } = node;
  const [outward, inward] = shape;
  const matrix = restored(node, inward);
  return {
    forward(values) {
      const output = new Float64Array(outward);
      for (let o = 0; o < outward; o++) {
        let total = bias ? bias[o] : 0;
        for (let i = 0; i < inward; i++) total += matrix[o * inward + i] * values[i];
        output[o] = total;
      }
      return output;
    },
    backward(gradient) {
      const returned = new Float64Array(inward);
      for (let o = 0; o < outward; o++)
        for (let i = 0; i < inward; i++) returned[i] += matrix[o * inward + i] * gradient[o];
      return [returned];
    },
  };
}

export const LAYERS = {
  ...{ convolution, linear, affine, clip, sigmoid, silu, hardsigmoid, hardswish },
  ...{ maximum, mean, sum, product, concatenation, flatten },
};
