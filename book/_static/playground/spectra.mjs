/**
 * Spectra of square pictures, and masks on them; with the conventions of `fmlib.core.spectra`.
 *
 * The side is even. A *half* mask has side * (side / 2 + 1) entries in rows, DC first; interior columns
 * stand for two frequencies. A *full* plane has side * side entries, DC first.
 */

/** Prime factors in ascending order. */
function factors(number) {
  for (let prime = 2; prime <= number; prime++)
    if (number % prime === 0) return [prime, ...factors(number / prime)];
  return [];
}

/** Fourier transforms of pictures of one side, fastest for powers of two. */
export class Fourier {
  constructor(side) {
    this.side = side;
    this.factors = factors(side);
    this.cos = Float64Array.from({ length: side }, (_, k) => Math.cos((2 * Math.PI * k) / side));
    this.sin = Float64Array.from({ length: side }, (_, k) => Math.sin((2 * Math.PI * k) / side));
  }

  /** The spectrum of real values over the full plane: {real, imaginary}. */
  forward(values) {
    return this.transform({ real: Float64Array.from(values), imaginary: new Float64Array(values.length) }, -1);
  }

  /** The real part of the inverse transform. */
  inverse(plane) {
    const { real } = this.transform(plane, 1);
    return real.map((value) => value / real.length);
  }

  /** The spectrum of each channel of a picture about a level. */
  spectrum(pixels, centre) {
    const places = this.side ** 2;
    return centre.map((level, c) =>
      this.forward(pixels.subarray(c * places, (c + 1) * places).map((pixel) => pixel - level)),
    );
  }

  /** Columns and then rows; sign of the exponent: -1 or 1. */
  transform(plane, sign) {
    return this.transposed(this.columns(this.transposed(this.columns(plane, sign)), sign));
  }

  transposed({ real, imaginary }) {
    const { side } = this;
    const turned = { real: new Float64Array(real.length), imaginary: new Float64Array(real.length) };
    for (let row = 0, n = 0; row < side; row++)
      for (let column = 0; column < side; column++, n++) {
        turned.real[column * side + row] = real[n];
        turned.imaginary[column * side + row] = imaginary[n];
      }
    return turned;
  }

  /** Every column (Stockham's order: each factor of the side is one pass from one pair of arrays to another). */
  columns(plane, sign) {
    const empty = () => ({ real: new Float64Array(plane.real.length), imaginary: new Float64Array(plane.real.length) });
    let [from, to, spare] = [plane, empty(), empty()]; // the plane that was given stays as it is
    let length = this.side;
    for (const factor of this.factors) {
      if (factor === 2) this.halve(from, to, length, sign);
      else this.pass(from, to, factor, length, sign);
      length /= factor;
      [from, to, spare] = [to, spare, to];
    }
    return from;
  }

  /** One pass of `columns`: transforms of `factor` values, `length` / `factor` rows apart. */
  pass(from, to, factor, length, sign) {
    const { side, cos, sin } = this;
    const rows = length / factor;
    const stride = (side / length) * side;
    to.real.fill(0);
    to.imaginary.fill(0);
    for (let row = 0; row < rows; row++)
      for (let out = 0; out < factor; out++)
        for (let part = 0; part < factor; part++) {
          // exp(sign 2 pi i (part * out / factor + row * out / length))
          const turn = ((part * out * side) / factor + (row * out * side) / length) % side;
          const re = cos[turn];
          const im = sign * sin[turn];
          const start = (factor * row + out) * stride;
          const begin = (row + rows * part) * stride;
          for (let n = 0; n < stride; n++) {
            to.real[start + n] += from.real[begin + n] * re - from.imaginary[begin + n] * im;
            to.imaginary[start + n] += from.real[begin + n] * im + from.imaginary[begin + n] * re;
          }
        }
  }

  /** `pass` for a factor of 2, with a quarter of the products. */
  halve(from, to, length, sign) {
    const { side, cos, sin } = this;
    const stride = (side / length) * side;
    const other = (length / 2) * stride;
    for (let row = 0; row < length / 2; row++) {
      const re = cos[(row * side) / length];
      const im = sign * sin[(row * side) / length];
      for (let n = row * stride, start = 2 * row * stride; n < (row + 1) * stride; n++, start++) {
        const real = from.real[n] - from.real[n + other];
        const imaginary = from.imaginary[n] - from.imaginary[n + other];
        to.real[start] = from.real[n] + from.real[n + other];
        to.imaginary[start] = from.imaginary[n] + from.imaginary[n + other];
        to.real[start + stride] = real * re - imaginary * im;
        to.imaginary[start + stride] = real * im + imaginary * re;
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

/** The picture centre + F^-1(M * F(picture - centre)), one plane per channel, from `Fourier.spectrum`. */
export function filtered(fourier, spectrum, half, centre) {
  const full = fullPlane(half, fourier.side);
  const times = (values) => values.map((value, n) => value * full[n]);
  const picture = new Float64Array(full.length * centre.length);
  spectrum.forEach(({ real, imaginary }, c) => {
    const plane = fourier.inverse({ real: times(real), imaginary: times(imaginary) });
    picture.set(plane.map((value) => value + centre[c]), c * full.length);
  });
  return picture;
}

/** The amplitude of each frequency, over all channels. */
export function amplitudes(spectrum) {
  return spectrum[0].real.map((_, n) =>
    Math.sqrt(spectrum.reduce((sum, { real, imaginary }) => sum + real[n] ** 2 + imaginary[n] ** 2, 0)),
  );
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
