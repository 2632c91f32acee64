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
  /** Whose an item is: of those that wait, each owner has an equal part of the next batch. Without it: first come, first served. */
  ownerOf?: (item: In) => string;
}

/**
 * Group commit without timers: what comes while a batch is on its way is the next batch. So a lone call waits for nobody, and a crowd
 * shares its commits. One batch at a time: two halves, side by side, cost Postgres more than one whole (docs/performance.md).
 * One owner's flood fills no batch that others wait for; what one owner adds stays in its order.
 */
export class Batcher<In, Out> {
  readonly #options: BatcherOptions<In, Out>;
  /** By owner, none of them empty; who was served goes to the end. */
  readonly #queues = new Map<string, Waiting<In, Out>[]>();
  #busy = false;

  constructor(options: BatcherOptions<In, Out>) {
    this.#options = options;
  }

  /** @throws what `run` throws for a batch of this item alone; a batch that Postgres could not take at all fails as a whole. */
  add(item: In): Promise<Out> {
    return new Promise((resolve, reject) => {
      const owner = this.#options.ownerOf?.(item) ?? '';
      const queue = this.#queues.get(owner);
      if (queue === undefined) this.#queues.set(owner, [{ item, resolve, reject }]);
      else queue.push({ item, resolve, reject });
      if (this.#busy) return;
      this.#busy = true;
      // What the same turn of the event loop brings belongs together.
      queueMicrotask(() => void this.#work());
    });
  }

  async #work(): Promise<void> {
    while (this.#queues.size > 0) await this.#flush(this.#take());
    this.#busy = false;
  }

  /** The next batch: rounds over all owners, each round an equal part of the room that is left. */
  #take(): Waiting<In, Out>[] {
    const batch: Waiting<In, Out>[] = [];
    for (let room = this.#options.sizeMax; room > 0 && this.#queues.size > 0;) {
      const part = Math.max(1, Math.floor(room / this.#queues.size));
      for (const [owner, queue] of [...this.#queues]) {
        if (batch.length === this.#options.sizeMax) break;
        batch.push(...queue.splice(0, part));
        this.#queues.delete(owner);
        if (queue.length > 0) this.#queues.set(owner, queue);
      }
      room = this.#options.sizeMax - batch.length;
    }
    return batch;
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
