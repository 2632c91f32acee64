/** What is still running, so that a shutdown can wait for it and then cut it. */
export class InFlight {
  readonly #running = new Set<Promise<unknown>>();
  readonly #cut = new AbortController();

  /** Fires when running work must end now. */
  get cut(): AbortSignal {
    return this.#cut.signal;
  }

  get size(): number {
    return this.#running.size;
  }

  /** Counts `work` until it ends, however it ends. */
  track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    const forget = () => void this.#running.delete(work);
    work.then(forget, forget);
    return work;
  }

  /** Waits until nothing runs. After `graceMs` it cuts what does, and waits for that to end. */
  async drain(graceMs: number): Promise<void> {
    const timer = setTimeout(() => {
      this.#cut.abort();
    }, graceMs);
    while (this.#running.size > 0) await Promise.allSettled([...this.#running]);
    clearTimeout(timer);
  }
}
