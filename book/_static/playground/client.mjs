/** The page's side of the worker: sends requests and receives their results. */

export class Client {
  /** @param {string} address of the worker's module; @param {(message: string) => void} failed if it cannot start */
  constructor(address, failed) {
    this.waiting = new Map();
    this.requests = 0;
    this.worker = new Worker(address, { type: "module" });
    this.worker.onerror = () => failed("The playground's worker does not start in this browser.");
    this.worker.onmessage = ({ data: { id, update, result, error } }) => {
      const { resolve, reject, report } = this.waiting.get(id);
      if (update) return report(update);
      this.waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
  }

  /** @returns {Promise<object>} what the worker's handler of this kind returns; `report` gets intermediate results */
  ask(kind, rest = {}, report = () => {}) {
    const id = ++this.requests;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, report });
      this.worker.postMessage({ id, kind, ...rest });
    });
  }
}

/** Runs `work` once per call, never twice at a time; calls during a run lead to one further run. */
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
