/** A reader's own picture, made gray and square. */

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
 * The middle square of a picture file, gray, `side` pixels wide.
 * @returns {Promise<Uint8Array>} side * side values
 * @throws {Error} if the file is no picture, or too large
 */
export async function readPicture(file, side) {
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
  return Uint8Array.from({ length: side * side }, (_, n) =>
    Math.round(0.299 * data[4 * n] + 0.587 * data[4 * n + 1] + 0.114 * data[4 * n + 2]),
  );
}
