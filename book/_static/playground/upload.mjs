/** A reader's own picture, made square. */

const MOST_BYTES = 40e6;
const MOST_PIXELS = 60e6;

async function decoded(file) {
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () =>
        reject(new Error(`"${file.name}" is no picture that this browser can read: take a JPEG or PNG.`));
      image.src = address;
    });
    return image;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/**
 * The middle square of a picture file, `side` pixels wide, gray or with 3 channels.
 * @returns {Promise<Uint8Array>} channels * side * side values
 * @throws {Error} if the file is no picture, or too large
 */
export async function readPicture(file, side, channels) {
  const large = new Error(`"${file.name}" is too large: at most 40 MB and 60 million pixels.`);
  if (file.size > MOST_BYTES) throw large;
  const image = await decoded(file);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  if (width * height > MOST_PIXELS) throw large;
  const square = Math.min(width, height);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (width - square) / 2, (height - square) / 2, square, square, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  const places = side * side;
  if (channels === 3)
    return Uint8Array.from({ length: 3 * places }, (_, n) => data[4 * (n % places) + Math.floor(n / places)]);
  return Uint8Array.from({ length: places }, (_, n) =>
    Math.round(0.299 * data[4 * n] + 0.587 * data[4 * n + 1] + 0.114 * data[4 * n + 2]),
  );
}
