/** Links that hold the state of the page after the "#", which is not sent to any server. */

/** Letters of a link, and bytes of what it unpacks to, at most. */
const LONGEST = 4e6;

async function through(bytes, stream) {
  const flow = new Blob([bytes]).stream().pipeThrough(stream);
  const parts = [];
  let length = 0;
  for (const reader = flow.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    length += value.length;
    if (length > LONGEST) throw new Error("The link holds too much.");
  }
}

/** Bytes -> text that a link may hold. */
export async function packed(bytes) {
  const small = await through(bytes, new CompressionStream("deflate-raw"));
  const text = btoa(Array.from(small, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** What `packed` was given. */
export async function unpacked(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return through(
    Uint8Array.from(letters, (letter) => letter.charCodeAt(0)),
    new DecompressionStream("deflate-raw"),
  );
}

/**
 * The part of a link after "#".
 * @param {{dataset: string, picture: string, network: string, epsilon: string, attacked: boolean, half: Float32Array,
 * own: Uint8Array | null}} state own: pixels of the reader's picture
 */
export async function encode({ dataset, picture, network, epsilon, attacked, half, own }) {
  const fields = new URLSearchParams({ dataset, picture, network, epsilon, attacked: attacked ? "yes" : "no" });
  fields.set("mask", await packed(new Uint8Array(Uint16Array.from(half, (value) => Math.round(65535 * value)).buffer)));
  if (own) fields.set("own", await packed(own));
  return fields.toString();
}

/** The state that a link holds, or null if it holds none. Throws if the link is damaged. */
export async function decode(text) {
  if (text.length > LONGEST) throw new Error("The link is too long.");
  const fields = new URLSearchParams(text.replace(/^#/, ""));
  if (!fields.has("mask")) return null;
  const names = ["dataset", "picture", "network", "epsilon"];
  const state = Object.fromEntries(names.map((name) => [name, fields.get(name)]));
  state.attacked = fields.get("attacked") === "yes";
  const levels = new Uint16Array((await unpacked(fields.get("mask"))).buffer);
  state.half = Float32Array.from(levels, (value) => value / 65535);
  state.own = fields.has("own") ? await unpacked(fields.get("own")) : null;
  return state;
}
