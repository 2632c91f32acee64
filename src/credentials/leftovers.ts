import type { LeftoverStore } from './leftover-store.ts';
import type { SecretVault } from './secret-vault.ts';

export interface LeftoversParts {
  store: LeftoverStore;
  secrets: Pick<SecretVault, 'discard'>;
  /** How long storing a credential can take at the very most, and much more than that. Milliseconds. */
  afterMs: number;
  /** Told of those that could not be removed; they are tried again. */
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** At once: each costs a call to Secrets Manager. */
const SWEPT_MAX = 50;

/** Removes ciphertexts whose credential was never committed: their keys are lost, so they are a cost and no danger. */
export class Leftovers {
  readonly #parts: LeftoversParts;

  constructor(parts: LeftoversParts) {
    this.#parts = parts;
  }

  /** @returns how many were removed. @throws ServiceError ledger.unavailable */
  async sweep(): Promise<number> {
    const { store, secrets, afterMs, onLeftover } = this.#parts;
    let removed = 0;
    for (const leftover of await store.take(afterMs, SWEPT_MAX)) {
      try {
        await secrets.discard(leftover.secretName, 'now');
        await store.forget(leftover);
        removed += 1;
      } catch (error) {
        onLeftover(leftover.secretName, error);
      }
    }
    return removed;
  }
}
