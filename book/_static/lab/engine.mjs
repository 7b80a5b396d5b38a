/** The page's side of the worker: questions and their answers. */

export class Engine {
  /** @param {string} address of the worker's module; @param {(message: string) => void} failed if it cannot start */
  constructor(address, failed) {
    this.waiting = new Map();
    this.asked = 0;
    this.worker = new Worker(address, { type: "module" });
    this.worker.onerror = () => failed("The laboratory's worker does not start in this browser.");
    this.worker.onmessage = ({ data: { id, seen, done, error } }) => {
      const { resolve, reject, report } = this.waiting.get(id);
      if (seen) return report(seen);
      this.waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(done);
    };
  }

  /** @returns {Promise<object>} what the worker's handler of this kind returns; `report` gets looks on the way */
  ask(kind, rest = {}, report = () => {}) {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, report });
      this.worker.postMessage({ id, kind, ...rest });
    });
  }
}

/** Runs `work` as often as asked, never twice at once, and never for what a later call has overtaken. */
export function latest(work) {
  let running = false;
  let again = false;
  return async function run() {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await work();
      }
    } finally {
      running = false;
    }
  };
}
