/** Convolutions of planes with the channels last, and their transposes. */

/** The number of taps of a kernel, and which places of the input and the output each tap connects. */
function connections([height, width], [outHeight, outWidth], { kernel, stride, padding }) {
  const taps = kernel[0] * kernel[1];
  const ahead = new Int32Array(height * width * taps).fill(-1); // input place, tap -> output place, or -1
  const back = new Int32Array(outHeight * outWidth * taps).fill(-1); // output place, tap -> input place, or -1
  for (let row = 0, to = 0; row < outHeight; row++)
    for (let column = 0; column < outWidth; column++, to++)
      for (let tap = 0; tap < taps; tap++) {
        const y = row * stride[0] - padding[0] + Math.floor(tap / kernel[1]);
        const x = column * stride[1] - padding[1] + (tap % kernel[1]);
        if (y < 0 || y >= height || x < 0 || x >= width) continue;
        ahead[(y * width + x) * taps + tap] = to;
        back[to * taps + tap] = y * width + x;
      }
  return { taps, ahead, back };
}

/** Fills the result with the bias of each channel, or with zeros. */
function begin(result, bias) {
  if (!bias) return result.fill(0);
  for (let n = 0; n < result.length; n += bias.length) result.set(bias, n);
  return result;
}

/**
 * Adds each value, times its weights, to the places that its taps lead to.
 * @param weights (group, tap, inward, outward); @param targets (place, tap)
 * @param {{groups: number, taps: number, inward: number, outward: number}} form channels of one group
 */
function scatter(values, weights, targets, { groups, taps, inward, outward }, result) {
  // The non-zero values of one place, and where their weights begin; filled up with zeros to a multiple of four, as
  // adding four products at a time to the result takes fewer loads and stores than one.
  const factors = new Float64Array(inward + 3);
  const rows = new Int32Array(inward + 3);
  const size = inward * outward;
  for (let place = 0, from = 0; from < values.length; from += inward, place++) {
    const group = place % groups;
    const first = ((place - group) / groups) * taps;
    let count = 0;
    for (let i = 0; i < inward; i++) {
      const value = values[from + i];
      if (value === 0) continue; // half of what ReLU leaves, most of what flows back through a maximum
      factors[count] = value;
      rows[count++] = i * outward;
    }
    while (count % 4) factors[count++] = 0;
    for (let tap = 0; tap < taps; tap++) {
      if (targets[first + tap] < 0) continue;
      const to = (targets[first + tap] * groups + group) * outward;
      const base = (group * taps + tap) * size;
      for (let n = 0; n < count; n += 4) {
        const [fa, fb, fc, fd] = [factors[n], factors[n + 1], factors[n + 2], factors[n + 3]];
        const [a, b, c, d] = [base + rows[n], base + rows[n + 1], base + rows[n + 2], base + rows[n + 3]];
        for (let o = 0; o < outward; o++)
          result[to + o] += fa * weights[a + o] + fb * weights[b + o] + fc * weights[c + o] + fd * weights[d + o];
      }
    }
  }
  return result;
}

function general({ weights, bias, groups }, { taps, ahead, back }, [outward, inward], sizes) {
  const form = { groups, taps, inward, outward: outward / groups };
  const forth = new Float32Array(weights.length); // group, tap, inward, outward
  const reverse = new Float32Array(weights.length); // group, tap, outward, inward
  for (let o = 0, n = 0; o < outward; o++) {
    const [group, own] = [Math.floor(o / form.outward), o % form.outward];
    for (let i = 0; i < inward; i++)
      for (let tap = 0; tap < taps; tap++, n++) {
        forth[((group * taps + tap) * inward + i) * form.outward + own] = weights[n];
        reverse[((group * taps + tap) * form.outward + own) * inward + i] = weights[n];
      }
  }
  const [output, returned] = sizes.map((size) => new Float64Array(size));
  const turned = { groups, taps, inward: form.outward, outward: inward };
  return {
    forward: (values) => scatter(values, forth, ahead, form, begin(output, bias)),
    backward: (gradient) => [scatter(gradient, reverse, back, turned, returned.fill(0))],
  };
}

/** Adds to each place what its taps lead to, each channel by itself; weights (tap, channel). */
function gather(values, weights, sources, taps, channels, result) {
  for (let place = 0, to = 0; to < result.length; place++, to += channels)
    for (let tap = 0; tap < taps; tap++) {
      if (sources[place * taps + tap] < 0) continue;
      const from = sources[place * taps + tap] * channels;
      const base = tap * channels;
      for (let c = 0; c < channels; c++) result[to + c] += values[from + c] * weights[base + c];
    }
  return result;
}

function depthwise({ weights, bias }, { taps, ahead, back }, [channels], sizes) {
  const turned = weights.map((_, n) => weights[(n % channels) * taps + Math.floor(n / channels)]);
  const [output, returned] = sizes.map((size) => new Float64Array(size));
  return {
    forward: (values) => gather(values, turned, back, taps, channels, begin(output, bias)),
    backward: (gradient) => [gather(gradient, turned, ahead, taps, channels, returned.fill(0))],
  };
}

/** A matrix, (outward, inward), in blocks of four rows that are read together: (block, inward, 4). */
function blocks(matrix, outward, inward, value) {
  const packed = new Float32Array(Math.ceil(outward / 4) * 4 * inward);
  for (let o = 0; o < outward; o++)
    for (let i = 0; i < inward; i++) packed[((o >> 2) * inward + i) * 4 + (o & 3)] = value(matrix, o, i);
  return packed;
}

/** The matrix times the values of each place, two places and four outputs at a time. */
function multiply(values, packed, inward, outward, bias, result) {
  for (let o = 0; o < outward; o += 4) {
    const rest = Math.min(outward - o, 4);
    const [s0, s1, s2, s3] = [0, 1, 2, 3].map((n) => (bias && n < rest ? bias[o + n] : 0));
    for (let from = 0, to = o; from < values.length; from += 2 * inward, to += 2 * outward) {
      const pair = from + inward < values.length;
      const next = pair ? from + inward : from;
      let a0 = s0;
      let a1 = s1;
      let a2 = s2;
      let a3 = s3;
      let b0 = s0;
      let b1 = s1;
      let b2 = s2;
      let b3 = s3;
      for (let i = 0, w = o * inward; i < inward; i++, w += 4) {
        const a = values[from + i];
        const b = values[next + i];
        const w0 = packed[w];
        const w1 = packed[w + 1];
        const w2 = packed[w + 2];
        const w3 = packed[w + 3];
        a0 += a * w0;
        a1 += a * w1;
        a2 += a * w2;
        a3 += a * w3;
        b0 += b * w0;
        b1 += b * w1;
        b2 += b * w2;
        b3 += b * w3;
      }
      result[to] = a0;
      if (rest > 1) result[to + 1] = a1;
      if (rest > 2) result[to + 2] = a2;
      if (rest > 3) result[to + 3] = a3;
      if (!pair) continue;
      result[to + outward] = b0;
      if (rest > 1) result[to + outward + 1] = b1;
      if (rest > 2) result[to + outward + 2] = b2;
      if (rest > 3) result[to + outward + 3] = b3;
    }
  }
  return result;
}

function pointwise({ weights, bias }, [outward, inward], sizes) {
  const forth = blocks(weights, outward, inward, (matrix, o, i) => matrix[o * inward + i]);
  const reverse = blocks(weights, inward, outward, (matrix, i, o) => matrix[o * inward + i]);
  const [output, returned] = sizes.map((size) => new Float64Array(size));
  return {
    forward: (values) => multiply(values, forth, inward, outward, bias, output),
    backward: (gradient) => [multiply(gradient, reverse, outward, inward, null, returned)],
  };
}

/** The weights of a node, `size` for each output: rounded ones have a scale for each. */
export function restored({ weights, scale }, size) {
  return scale ? Float32Array.from(weights, (weight, n) => weight * scale[Math.floor(n / size)]) : weights;
}

/**
 * A convolution: one pixel wide, of each channel by itself, or any other.
 * @param node with `weights`, `shape`, `stride`, `padding` and `groups`
 */
export function convolution(node, [[channels, height, width]]) {
  const [outward, inward, ...kernel] = node.shape;
  const [, outHeight, outWidth] = node.form;
  const size = inward * kernel[0] * kernel[1];
  const weights = restored(node, size);
  const ready = { weights, bias: node.bias, groups: node.groups };
  const sizes = [outHeight * outWidth * outward, height * width * channels];
  const plain = size === inward && outHeight === height && outWidth === width && node.groups === 1;
  if (plain && node.stride.every((step) => step === 1)) return pointwise(ready, node.shape, sizes);
  const taps = connections([height, width], [outHeight, outWidth], { ...node, kernel });
  const single = inward === 1 && outward === node.groups && channels === outward;
  return (single ? depthwise : general)(ready, taps, node.shape, sizes);
}
