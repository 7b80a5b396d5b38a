/** Projected gradient ascent of the loss within an l-infinity ball: Madry et al. (2018). */

/** Numbers in [0, 1) that follow from a seed (Marsaglia's xorshift). */
function draws(seed) {
  let state = seed * 2654435761 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * The attacked picture, its pixels in [0, 1] and within `epsilon` of the picture's.
 * @param {{epsilon: number, step: number, steps: number, seed: number}} options in pixel units
 */
export function projectedGradient(network, pixels, label, { epsilon, step, steps, seed }) {
  const draw = draws(seed);
  const within = (value, n) => Math.min(Math.max(value, pixels[n] - epsilon, 0), pixels[n] + epsilon, 1);
  let attacked = pixels.map((pixel, n) => within(pixel + epsilon * (2 * draw() - 1), n));
  for (let number = 0; number < steps; number++) {
    const { gradient } = network.slope(attacked, label);
    attacked = attacked.map((value, n) => within(value + step * Math.sign(gradient[n]), n));
  }
  return attacked;
}
