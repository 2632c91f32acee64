import type { Clock } from '../domain/clock.ts';
import { PriceBook } from './price-book.ts';
import type { Profile, StoredPrice, Tier } from './price.ts';
import type { PriceStore } from './price-store.ts';

/**
 * The price book as this process knows it, read anew every few seconds. A call is charged by the price that its admission named, so a new
 * book can be a moment late and never wrong.
 */
export class Prices {
  readonly #store: Pick<PriceStore, 'all'>;
  readonly #clock: Clock;
  #book = new PriceBook<StoredPrice>([]);

  constructor(store: Pick<PriceStore, 'all'>, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** @throws ServiceError ledger.unavailable: the book stays as it was. */
  async refresh(): Promise<void> {
    this.#book = new PriceBook(await this.#store.all());
  }

  /** The price in force now; undefined: unpriced. */
  find(query: { modelId: string; profile: Profile; region: string; tier: Tier }): StoredPrice | undefined {
    return this.#book.find(query, this.#clock.now());
  }
}
