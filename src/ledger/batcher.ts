import { ServiceError } from '../domain/errors.ts';

interface Waiting<In, Out> {
  item: In;
  resolve: (out: Out) => void;
  reject: (error: unknown) => void;
}

export interface BatcherOptions<In, Out> {
  /** Runs a batch and answers in the order of its items. One commit. */
  run: (items: readonly In[]) => Promise<readonly Out[]>;
  /** Batches that may be on their way at one time. Items of one key always share a lane, in their order. */
  lanes: number;
  sizeMax: number;
}

/**
 * Group commit without timers: what comes while a batch is on its way is the next batch. So a lone call waits for nobody, and a crowd
 * shares its commits.
 */
export class Batcher<In, Out> {
  readonly #options: BatcherOptions<In, Out>;
  readonly #lanes: { queue: Waiting<In, Out>[]; busy: boolean }[];

  constructor(options: BatcherOptions<In, Out>) {
    this.#options = options;
    this.#lanes = Array.from({ length: options.lanes }, () => ({ queue: [], busy: false }));
  }

  /** @throws what `run` throws for a batch of this item alone; a batch that Postgres could not take at all fails as a whole. */
  add(key: string, item: In): Promise<Out> {
    const lane = this.#lanes[hash(key) % this.#lanes.length];
    if (lane === undefined) throw new TypeError('a batcher needs a lane');
    return new Promise((resolve, reject) => {
      lane.queue.push({ item, resolve, reject });
      if (lane.busy) return;
      lane.busy = true;
      // What the same turn of the event loop brings belongs together.
      queueMicrotask(() => void this.#work(lane));
    });
  }

  async #work(lane: { queue: Waiting<In, Out>[]; busy: boolean }): Promise<void> {
    while (lane.queue.length > 0) await this.#flush(lane.queue.splice(0, this.#options.sizeMax));
    lane.busy = false;
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

/** FNV-1a. Only spreads keys over lanes. */
function hash(key: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < key.length; index += 1) {
    value = Math.imul(value ^ key.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}
