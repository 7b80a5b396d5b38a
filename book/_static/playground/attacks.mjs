/** Projected gradient ascent of the loss within an l-infinity ball: Madry et al. (2018). */

/** Seeded random numbers in [0, 1) (Marsaglia's xorshift). */
function randomNumbers(seed) {
  let state = seed * 2654435761 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * The attacked picture, its pixels in [0, 1] and within `epsilon` of those of the picture.
 * @param {{epsilon: number, step: number, steps: number, seed: number}} options in pixel units
 */
export function projectedGradient(network, pixels, label, { epsilon, step, steps, seed }) {
  const random = randomNumbers(seed);
  const within = (value, n) => Math.min(Math.max(value, pixels[n] - epsilon, 0), pixels[n] + epsilon, 1);
  let attacked = pixels.map((pixel, n) => within(pixel + epsilon * (2 * random() - 1), n));
  for (let count = 0; count < steps; count++) {
    const { gradient } = network.lossAndGradient(attacked, label);
    attacked = attacked.map((value, n) => within(value + step * Math.sign(gradient[n]), n));
  }
  return attacked;
}
