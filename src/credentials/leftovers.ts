import type { MerchantId } from '../domain/ids.ts';
import type { Leftover, LeftoverStore } from './leftover-store.ts';
import type { SecretVault } from './secret-vault.ts';

export interface LeftoversParts {
  store: LeftoverStore;
  secrets: Pick<SecretVault, 'discard'>;
  /** How long storing a credential can take at the very most, and much more than that. Milliseconds. */
  afterMs: number;
  /** Told of those that could not be removed; they are tried again. A cost, not a danger, because their keys are gone. */
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** At once: each costs a call to Secrets Manager. */
const SWEPT_MAX = 50;
/** So that a Secrets Manager that is silent is waited for a few times, and not once for each secret. */
const LANES = 4;

/**
 * Ciphertexts whose credential was never committed, or is deleted: their keys are gone. Each is written down by name, before it is made or
 * with the commit that makes it useless, and struck off when it is removed; what a crash or a failure leaves is removed by a sweep.
 */
export class Leftovers {
  readonly #parts: LeftoversParts;

  constructor(parts: LeftoversParts) {
    this.#parts = parts;
  }

  /** @throws ServiceError ledger.unavailable: then the secret must not be created. */
  announce(leftover: Leftover): Promise<void> {
    return this.#parts.store.announce(leftover);
  }

  /** Removes one as far as AWS lets us; else it is told, and left to the sweep. Never throws. @returns whether it is gone. */
  async remove(leftover: Leftover, when: 'in-7-days' | 'now' = 'now'): Promise<boolean> {
    const { store, secrets, onLeftover } = this.#parts;
    try {
      await secrets.discard(leftover.secretName, when);
      await store.forget(leftover);
      return true;
    } catch (error) {
      onLeftover(leftover.secretName, error);
      return false;
    }
  }

  /** The secrets of credentials that are deleted: for seven days AWS could still give the ciphertexts back. Never throws. */
  async retire(merchantId: MerchantId, secretNames: readonly string[]): Promise<void> {
    await this.#removeAll(
      secretNames.map((secretName) => ({ merchantId, secretName })),
      'in-7-days',
    );
  }

  /** @returns how many were removed. @throws ServiceError ledger.unavailable */
  async sweep(): Promise<number> {
    const { store, afterMs } = this.#parts;
    return this.#removeAll(await store.take(afterMs, SWEPT_MAX), 'now');
  }

  async #removeAll(leftovers: readonly Leftover[], when: 'in-7-days' | 'now'): Promise<number> {
    let removed = 0;
    const waiting = leftovers.values();
    const lane = async () => {
      for (const leftover of waiting) if (await this.remove(leftover, when)) removed += 1;
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return removed;
  }
}
