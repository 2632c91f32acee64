import type { Clock } from '../domain/clock.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { Merchant } from '../domain/merchant.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { MerchantStore } from './merchant-store.ts';

/** Long enough to spare a busy merchant its look-ups, short enough that idle ones leave memory soon. Milliseconds. */
const REMEMBERED_MS = 60_000;

/** Merchants, read anew or as this process remembers them. */
export class Merchants implements Disposable {
  readonly #store: Pick<MerchantStore, 'find'>;
  readonly #remembered: SingleFlightCache<Merchant | undefined>;

  constructor(store: Pick<MerchantStore, 'find'>, options: { clock: Clock; max: number }) {
    this.#store = store;
    this.#remembered = new SingleFlightCache({ ...options, ttlMs: REMEMBERED_MS });
  }

  /** As it is now, and remembered. Cost: one transaction. */
  async find(merchantId: MerchantId): Promise<Merchant | undefined> {
    this.#remembered.forget(merchantId);
    return this.remembered(merchantId);
  }

  /**
   * As it was at most a minute ago. Only for calls whose admission compares the revision: what changed since is noticed there.
   * A merchant that may make no call is never remembered.
   */
  async remembered(merchantId: MerchantId): Promise<Merchant | undefined> {
    const merchant = await this.#remembered.get(merchantId, () => this.#store.find(merchantId));
    if (merchant?.status !== 'active') this.#remembered.forget(merchantId);
    return merchant;
  }

  [Symbol.dispose](): void {
    this.#remembered[Symbol.dispose]();
  }
}
