/** Reading the playground's file, written by `fmlib.publishing.playground.pack`. */

const MAGIC = "FMPLAY03";
const ARRAYS = { float32: Float32Array, int16: Int16Array, uint8: Uint8Array };

const REMAINDERS = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

/** The CRC-32 of bytes, as zlib's. */
function checksum(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = (rest >>> 8) ^ REMAINDERS[(rest ^ byte) & 255];
  return (rest ^ 0xffffffff) >>> 0;
}

/**
 * The data sets of the page, with arrays in place of their names.
 * @param {ArrayBuffer} buffer
 * @returns {object[]} datasets; nodes that have weights hold `weights`, their `shape` and `scale`
 * @throws {Error} if the file is of another kind, damaged, or cut short
 */
export function readFile(buffer) {
  const advice = "Load the page again; if that does not help, build the page again.";
  const start = new TextDecoder("latin1").decode(buffer.slice(0, 8));
  if (start !== MAGIC) throw new Error(`The file of networks is of another kind. ${advice}`);
  const cut = new Error(`The file of networks is cut short. ${advice}`);
  if (buffer.byteLength < 20) throw cut;
  const [total, sum, length] = [8, 12, 16].map((offset) => new DataView(buffer).getUint32(offset, true));
  if (buffer.byteLength < total) throw cut;
  if (checksum(new Uint8Array(buffer, 16)) !== sum) throw new Error(`The file of networks is damaged. ${advice}`);
  const base = 20 + length;
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));

  const array = (name) => {
    const { type, shape, offset } = header.arrays[name];
    return new ARRAYS[type](
      buffer,
      base + offset,
      shape.reduce((product, side) => product * side, 1),
    );
  };
  const node = ({ arrays, ...rest }) => {
    const read = Object.entries(arrays).map(([part, name]) => [part, array(name)]);
    return { ...rest, shape: header.arrays[arrays.weights]?.shape, ...Object.fromEntries(read) };
  };
  return header.datasets.map((dataset) => ({
    ...dataset,
    networks: Object.fromEntries(
      Object.entries(dataset.networks).map(([regime, { title, nodes }]) => [regime, { title, nodes: nodes.map(node) }]),
    ),
    masks: dataset.masks.map((mask) => ({ ...mask, half: array(mask.half) })),
    pictures: dataset.pictures.map((picture) => ({ ...picture, pixels: array(picture.pixels) })),
  }));
}
