/**
 * How many bytes of request bodies the process holds at once. One per process: it is what keeps
 * many bodies of the largest size from exhausting memory (docs/security.md: 256 MiB).
 */
export class BodyBudget {
  readonly #bytesMax: number;
  #bytesInUse = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get inUse(): number {
    return this.#bytesInUse;
  }

  /** Reserves `bytes`, or returns false and reserves nothing. Never waits: a queue of bodies would be memory too. */
  tryTake(bytes: number): boolean {
    if (this.#bytesInUse + bytes > this.#bytesMax) return false;
    this.#bytesInUse += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#bytesInUse = Math.max(0, this.#bytesInUse - bytes);
  }
}

const EMPTY = Buffer.alloc(0);

/** A body and its share of the budget. `using` gives both back; afterwards `bytes` is empty. */
export class BodyLease implements Disposable {
  readonly #budget: BodyBudget;
  readonly #bytesTaken: number;
  #bytes: Buffer | undefined;

  constructor(bytes: Buffer, budget: BodyBudget, bytesTaken: number) {
    this.#bytes = bytes;
    this.#budget = budget;
    this.#bytesTaken = bytesTaken;
  }

  get bytes(): Buffer {
    return this.#bytes ?? EMPTY;
  }

  [Symbol.dispose](): void {
    if (this.#bytes === undefined) return;
    this.#bytes = undefined;
    this.#budget.release(this.#bytesTaken);
  }
}
