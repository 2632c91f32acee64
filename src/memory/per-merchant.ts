import type { Clock } from '../domain/clock.ts';
import type { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';

export interface PerMerchantOptions {
  /** Most at a time, of one merchant. */
  max: number;
  /** A place is free again this long after its work was done, well or badly: what is short can be asked for very often. Default: at once. */
  rest?: { ms: number; clock: Clock };
}

/**
 * Work of which a merchant may have so much at a time, in this process. For what is no paid call and spends what all merchants share: quotas
 * that AWS has for this service. Nobody waits, so nothing piles up. Where places rest, keeps a few bytes for each merchant that ever asked.
 */
export class PerMerchant {
  readonly #options: PerMerchantOptions;
  readonly #places = new Map<MerchantId, { freeAt: number }[]>();

  constructor(options: PerMerchantOptions) {
    this.#options = options;
  }

  /** Takes a place. @returns how to leave it, to be called once; undefined where there is none. */
  enter(merchantId: MerchantId): (() => void) | undefined {
    const { max, rest } = this.#options;
    const now = (): number => rest?.clock.now() ?? 0;
    const taken = this.#takenAt(merchantId, now());
    if (taken.length >= max) return undefined;
    const place = { freeAt: Infinity };
    this.#places.set(merchantId, [...taken, place]);
    return () => {
      place.freeAt = now() + (rest?.ms ?? 0);
      if (this.#takenAt(merchantId, now()).length === 0) this.#places.delete(merchantId);
    };
  }

  /** @throws what `tooMany` makes, and then nothing was done; what the work throws. */
  async run<T>(merchantId: MerchantId, work: () => Promise<T>, tooMany: () => ServiceError): Promise<T> {
    const leave = this.enter(merchantId);
    if (leave === undefined) throw tooMany();
    try {
      return await work();
    } finally {
      leave();
    }
  }

  #takenAt(merchantId: MerchantId, now: number): { freeAt: number }[] {
    return (this.#places.get(merchantId) ?? []).filter(({ freeAt }) => freeAt > now);
  }
}
