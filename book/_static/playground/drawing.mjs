/** Drawing on canvases: pictures, spectra with a mask applied, curves. */

import { fullPlane } from "./spectra.mjs";

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]; // Okabe and Ito

/** Colour number n of a palette for colour-blind readers. */
export const colour = (n) => COLOURS[n % COLOURS.length];

/** A plane of pixels on a canvas, without smoothing; `paint(n)` gives red, green and blue of pixel n, 0 to 255. */
function drawPlane(canvas, side, paint) {
  const small = new OffscreenCanvas(side, side);
  const data = new ImageData(side, side);
  for (let n = 0; n < side * side; n++) data.data.set([...paint(n), 255], 4 * n);
  small.getContext("2d").putImageData(data, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return context;
}

/** A picture, gray or in colour; values from `low` (black) to `high` (white). */
export function drawPicture(canvas, values, side, low = 0, high = 1) {
  const step = values.length === side * side ? 0 : side * side; // between the planes of its channels
  drawPlane(canvas, side, (n) => [0, 1, 2].map((c) => (255 * (values[n + c * step] - low)) / (high - low)));
}

const centred = (n, side) => {
  const [row, column] = [Math.floor(n / side), n % side];
  return ((row + side / 2) % side) * side + ((column + side / 2) % side);
};

/** The logarithm of an amplitude spectrum, DC in the middle; blue where a mask removes it. */
export function drawSpectrum(canvas, amplitude, side, half = null) {
  const logs = amplitude.map((value) => Math.log1p(value));
  const top = logs.reduce((most, value) => Math.max(most, value)) || 1;
  const mask = half && fullPlane(half, side);
  return drawPlane(canvas, side, (n) => {
    const place = centred(n, side);
    const light = 255 * (logs[place] / top);
    const kept = mask ? mask[place] : 1;
    return [12 + 0.1 * light, 40 + 0.22 * light, 105 + 0.35 * light].map((blue) => kept * light + (1 - kept) * blue);
  });
}

/** A ring around the place where the brush would paint. */
export function drawRing(context, x, y, radius) {
  for (const [style, width] of [
    ["black", 4],
    ["white", 2],
  ]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** Curves from left to right, each {values, colour}, on one scale from 0 to `top`; `length` values fill the width. */
export function drawCurves(canvas, curves, top, length = 0) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  context.strokeStyle = "#767676";
  context.lineWidth = 1;
  context.strokeRect(0.5, 0.5, width - 1, height - 1);
  context.lineWidth = 2.5;
  for (const { values, colour } of curves) {
    context.strokeStyle = colour;
    context.beginPath();
    values.forEach((value, n) => {
      const x = (n / Math.max(Math.max(length, values.length) - 1, 1)) * (width - 6) + 3;
      context.lineTo(x, height - 3 - Math.min(value / top, 1) * (height - 6));
    });
    context.stroke();
  }
}
