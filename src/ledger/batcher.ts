import { ServiceError } from '../domain/errors.ts';

interface Waiting<In, Out> {
  item: In;
  resolve: (out: Out) => void;
  reject: (error: unknown) => void;
}

export interface BatcherOptions<In, Out> {
  /** Runs a batch and answers in the order of its items. One commit. */
  run: (items: readonly In[]) => Promise<readonly Out[]>;
  sizeMax: number;
}

/**
 * Group commit without timers: what comes while a batch is on its way is the next batch. So a lone call waits for nobody, and a crowd
 * shares its commits. One batch at a time: two halves, side by side, cost Postgres more than one whole (docs/performance.md).
 */
export class Batcher<In, Out> {
  readonly #options: BatcherOptions<In, Out>;
  readonly #queue: Waiting<In, Out>[] = [];
  #busy = false;

  constructor(options: BatcherOptions<In, Out>) {
    this.#options = options;
  }

  /** @throws what `run` throws for a batch of this item alone; a batch that Postgres could not take at all fails as a whole. */
  add(item: In): Promise<Out> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, resolve, reject });
      if (this.#busy) return;
      this.#busy = true;
      // What the same turn of the event loop brings belongs together.
      queueMicrotask(() => void this.#work());
    });
  }

  async #work(): Promise<void> {
    while (this.#queue.length > 0) await this.#flush(this.#queue.splice(0, this.#options.sizeMax));
    this.#busy = false;
  }

  async #flush(batch: readonly Waiting<In, Out>[]): Promise<void> {
    try {
      const answers = await this.#options.run(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => {
        resolve(answers[index] as Out);
      });
    } catch (error) {
      const unavailable = error instanceof ServiceError && error.code === 'ledger.unavailable';
      // One bad item must not fail its neighbours, who may be other merchants.
      if (unavailable || batch.length === 1) for (const { reject } of batch) reject(error);
      else for (const waiting of batch) await this.#flush([waiting]);
    }
  }
}
