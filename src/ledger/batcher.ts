import { ServiceError } from '../domain/errors.ts';

interface Waiting<In, Out> {
  item: In;
  resolve: (out: Out) => void;
  reject: (error: unknown) => void;
}

/** So long after the last item of another owner, others are about. Milliseconds. */
const ABOUT_MS = 1_000;

export interface BatcherOptions<In, Out> {
  /** Runs a batch and answers in the order of its items. One commit. */
  run: (items: readonly In[]) => Promise<readonly Out[]>;
  sizeMax: number;
  /** Without it: first come, first served. */
  turns?: Turns<In>;
  /** Milliseconds that never run backwards. */
  now?: () => number;
}

export interface Turns<In> {
  /** Whose an item is: of those that wait, each owner has an equal part of the next batch. */
  ownerOf: (item: In) => string;
  /** Of one owner in a batch while others are about: they wait for its end. */
  partMax: number;
}

/**
 * Group commit without timers: what comes while a batch is on its way is the next batch. So a lone call waits for nobody, and a crowd
 * shares its commits. One batch at a time: two halves, side by side, cost Postgres more than one whole (docs/performance.md).
 * One owner's flood fills no batch that others wait for, and while others are about makes no long ones either; what one owner adds stays
 * in its order.
 */
export class Batcher<In, Out> {
  readonly #options: BatcherOptions<In, Out>;
  readonly #now: () => number;
  /** By owner, none of them empty; who was served goes to the end. */
  readonly #queues = new Map<string, Waiting<In, Out>[]>();
  /** Whose the newest item was, and until when another owner counts as being about. Milliseconds of `#now`. */
  #newest: string | undefined;
  #sharedUntilMs = 0;
  #busy = false;

  constructor(options: BatcherOptions<In, Out>) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** @throws what `run` throws for a batch of this item alone; a batch that Postgres could not take at all fails as a whole. */
  add(item: In): Promise<Out> {
    return new Promise((resolve, reject) => {
      const owner = this.#ownerOf(item);
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

  #ownerOf(item: In): string {
    const owner = this.#options.turns?.ownerOf(item) ?? '';
    if (owner !== this.#newest) this.#sharedUntilMs = this.#now() + ABOUT_MS;
    this.#newest = owner;
    return owner;
  }

  /** The next batch: rounds over all owners, each round an equal part of the room that is left. */
  #take(): Waiting<In, Out>[] {
    const { sizeMax } = this.#options;
    const partMax = this.#partMax();
    const batch: Waiting<In, Out>[] = [];
    const taken = new Map<string, number>();
    const mayGive = () => [...this.#queues].filter(([owner]) => (taken.get(owner) ?? 0) < partMax);
    for (let givers = mayGive(); givers.length > 0 && batch.length < sizeMax; givers = mayGive()) {
      const part = Math.max(1, Math.floor((sizeMax - batch.length) / givers.length));
      for (const [owner, queue] of givers.slice(0, sizeMax - batch.length)) {
        const before = taken.get(owner) ?? 0;
        const items = queue.splice(0, Math.min(part, partMax - before));
        batch.push(...items);
        taken.set(owner, before + items.length);
        this.#queues.delete(owner);
        if (queue.length > 0) this.#queues.set(owner, queue);
      }
    }
    return batch;
  }

  #partMax(): number {
    const { sizeMax, turns } = this.#options;
    const alone = turns === undefined || this.#now() >= this.#sharedUntilMs;
    return alone ? sizeMax : turns.partMax;
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
