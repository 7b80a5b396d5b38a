/**
 * Spectra of square pictures, and masks on them; with the conventions of `fmlib.core.spectra`.
 *
 * The side is a power of two. A *half* mask has side * (side / 2 + 1) entries in rows, DC first; interior columns
 * stand for two frequencies. A *full* plane has side * side entries, DC first.
 */

/** Fourier transforms of pictures of one side. */
export class Fourier {
  constructor(side) {
    this.side = side;
    this.cos = Float64Array.from({ length: side / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / side));
    this.sin = Float64Array.from({ length: side / 2 }, (_, k) => Math.sin((2 * Math.PI * k) / side));
    const bits = Math.log2(side);
    this.reversed = Uint16Array.from({ length: side }, (_, n) =>
      parseInt(n.toString(2).padStart(bits, "0").split("").reverse().join(""), 2),
    );
  }

  /** The spectrum of real values over the full plane: {real, imaginary}. */
  forward(values) {
    const plane = { real: Float64Array.from(values), imaginary: new Float64Array(values.length) };
    this.transform(plane, -1);
    return plane;
  }

  /** The real part of the inverse transform. */
  inverse({ real, imaginary }) {
    const plane = { real: Float64Array.from(real), imaginary: Float64Array.from(imaginary) };
    this.transform(plane, 1);
    return plane.real.map((value) => value / plane.real.length);
  }

  /** In place, rows and then columns; sign of the exponent: -1 or 1. */
  transform({ real, imaginary }, sign) {
    for (let n = 0; n < this.side; n++) this.line(real, imaginary, n * this.side, 1, sign);
    for (let n = 0; n < this.side; n++) this.line(real, imaginary, n, this.side, sign);
  }

  /** One row or column: values start, start + step, ... (Cooley and Tukey, radix 2). */
  line(real, imaginary, start, step, sign) {
    const { side, cos, sin, reversed } = this;
    const swap = (values, a, b) => ([values[a], values[b]] = [values[b], values[a]]);
    for (let n = 0; n < side; n++) {
      if (n >= reversed[n]) continue;
      swap(real, start + n * step, start + reversed[n] * step);
      swap(imaginary, start + n * step, start + reversed[n] * step);
    }
    for (let half = 1; half < side; half *= 2) {
      for (let first = 0; first < side; first += 2 * half) {
        for (let k = 0; k < half; k++) {
          const turn = (k * side) / (2 * half);
          const a = start + (first + k) * step;
          const b = a + half * step;
          const re = real[b] * cos[turn] - sign * imaginary[b] * sin[turn];
          const im = imaginary[b] * cos[turn] + sign * real[b] * sin[turn];
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
  }
}

/** Calls `visit(place in the half plane, row, column, weight)` for each entry; weight: frequencies it stands for. */
export function eachHalf(side, visit) {
  const columns = side / 2 + 1;
  for (let row = 0, place = 0; row < side; row++)
    for (let column = 0; column < columns; column++, place++)
      visit(place, row, column, column === 0 || column === side / 2 ? 1 : 2);
}

/** Row or column number -> frequency in cycles per picture, from -side / 2 on. */
export const frequency = (number, side) => (number < side / 2 ? number : number - side);

/** The full plane of a half mask, by M(-f) = M(f). */
export function fullPlane(half, side) {
  const columns = side / 2 + 1;
  const full = new Float64Array(side * side);
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++)
      full[row * side + column] =
        column < columns ? half[row * columns + column] : half[((side - row) % side) * columns + side - column];
  return full;
}

/** The picture centre + F^-1(M * F(picture - centre)), from the spectrum of picture - centre. */
export function filtered(fourier, spectrum, half, centre) {
  const full = fullPlane(half, fourier.side);
  const times = (values) => values.map((value, n) => value * full[n]);
  return fourier
    .inverse({ real: times(spectrum.real), imaginary: times(spectrum.imaginary) })
    .map((value) => value + centre);
}

/** The mean of the mask over the full plane: its L1 norm as a share of the all-ones mask's. */
export function share(half, side) {
  let sum = 0;
  eachHalf(side, (place, row, column, weight) => (sum += weight * half[place]));
  return sum / side ** 2;
}

/** 1 where the mask is below the threshold, else 0. */
export const complement = (half, threshold = 1e-8) => half.map((value) => (value < threshold ? 1 : 0));

/** Radius of a frequency as a fraction of the corner's, and its direction in degrees, from 0 to below 180. */
export function polar(row, column, side) {
  const [y, x] = [frequency(row, side), frequency(column, side)];
  const degrees = (Math.atan2(y, x) * 180) / Math.PI;
  return { radius: Math.hypot(x, y) / Math.hypot(side / 2, side / 2), direction: (degrees + 360) % 180 };
}

/**
 * The mask that keeps radii from `inner` to `outer` (fractions of the corner's) within `width` degrees of `direction`.
 * DC has no direction and counts by its radius alone.
 */
export function sector(side, { inner, outer, direction, width }) {
  const half = new Float32Array(side * (side / 2 + 1));
  eachHalf(side, (place, row, column) => {
    const found = polar(row, column, side);
    const apart = Math.abs(found.direction - direction) % 180;
    const near = found.radius === 0 || Math.min(apart, 180 - apart) <= width;
    half[place] = near && found.radius >= inner && found.radius <= outer ? 1 : 0;
  });
  return half;
}

/**
 * The mask with `value` at all frequencies within `reach` of one, and at their mirrors.
 * @param {{x: number, y: number}} centre cycles per picture
 */
export function painted(half, side, { x, y }, reach, value) {
  const result = Float32Array.from(half);
  // At the border a frequency of half the side stands for both of its signs.
  const apart = (d, at) => Math.min(Math.abs(d - at), d === -side / 2 ? Math.abs(side / 2 - at) : Infinity);
  eachHalf(side, (place, row, column) => {
    const [dy, dx] = [frequency(row, side), frequency(column, side)];
    const near = (sign) => Math.hypot(apart(dy, sign * y), apart(dx, sign * x)) <= reach;
    if (near(1) || near(-1)) result[place] = value;
  });
  return result;
}

/** L2 norm of the mask, scaled to norm 1, in rings of equal width from DC to the corner. */
export function radialEnergy(half, side, bands = 24) {
  const energy = new Float64Array(bands);
  eachHalf(side, (place, row, column, weight) => {
    const band = Math.min(Math.floor(polar(row, column, side).radius * bands), bands - 1);
    energy[band] += weight * half[place] ** 2;
  });
  const whole = energy.reduce((sum, part) => sum + part, 0);
  return energy.map((part) => Math.sqrt(part / Math.max(whole, 1e-30)));
}
