import { ServiceError } from '../domain/errors.ts';

/** What a body's memory is reserved from. */
export interface BodyMemory {
  /** Reserves `bytes`, or returns false and reserves nothing. @throws ServiceError limit.share_exceeded */
  tryTake(bytes: number): boolean;
  release(bytes: number): void;
}

/** Bodies are held for as long as an upload or a model call takes: seconds. */
const RETRY_AFTER_SECONDS = 2;

/**
 * How many bytes of request bodies the process holds at once. One per process: it is what keeps
 * many bodies of the largest size from exhausting memory (docs/security.md: 256 MiB).
 */
export class BodyBudget implements BodyMemory {
  readonly #bytesMax: number;
  readonly #perOwnerMax: number;
  /** Of those that hold any. */
  readonly #owners = new Map<string, number>();
  #bytesInUse = 0;

  /** @param perOwnerMax of the bytes, for one merchant or operator; at least the largest body, or it would never fit. */
  constructor(bytesMax: number, perOwnerMax = bytesMax) {
    this.#bytesMax = bytesMax;
    this.#perOwnerMax = perOwnerMax;
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

  /** The same budget for one owner, who may have a part of it. */
  shareOf(owner: string): BodyMemory {
    return {
      tryTake: (bytes) => {
        const held = this.#owners.get(owner) ?? 0;
        if (held + bytes > this.#perOwnerMax) throw shareExceeded();
        if (!this.tryTake(bytes)) return false;
        this.#owners.set(owner, held + bytes);
        return true;
      },
      release: (bytes) => {
        this.release(bytes);
        const left = (this.#owners.get(owner) ?? 0) - bytes;
        if (left > 0) this.#owners.set(owner, left);
        else this.#owners.delete(owner);
      },
    };
  }
}

function shareExceeded(): ServiceError {
  return new ServiceError(
    'limit.share_exceeded',
    'The bodies of this merchant that are being read or called with are as large together as they may be. Try again shortly.',
    { retryAfterSeconds: RETRY_AFTER_SECONDS },
  );
}

const EMPTY = Buffer.alloc(0);

/** A body and its share of the budget. `using` gives both back; afterwards `bytes` is empty. */
export class BodyLease implements Disposable {
  readonly #budget: BodyMemory;
  readonly #bytesTaken: number;
  #bytes: Buffer | undefined;

  constructor(bytes: Buffer, budget: BodyMemory, bytesTaken: number) {
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
