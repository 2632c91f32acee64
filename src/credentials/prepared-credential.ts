import type { Actor } from '../domain/audit.ts';
import type { AwsCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import type { CredentialStore, CredentialTx, NewCredential } from './credential-store.ts';
import type { Leftovers } from './leftovers.ts';

/** What a merchant hands in. Its shape was checked by the caller. */
export interface CredentialInput {
  /** The merchant's own words, shown back. */
  name: string;
  region: string;
  /** A role is named when it is activated, because it cannot be made before its ExternalId is known. */
  material: AwsCredential | { kind: 'assume-role' };
  /** Use it from now on where a request names no credential. */
  makeDefault: boolean;
}

interface PreparedParts {
  store: CredentialStore;
  leftovers: Pick<Leftovers, 'remove'>;
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** A credential that is sealed (or has nothing to seal yet) and waits for its row. Until `commit` is committed, nothing can open it: its key is only here. */
export class PreparedCredential {
  readonly id: CredentialId;
  readonly accountId: string | undefined;
  readonly #merchantId: MerchantId;
  readonly #row: NewCredential;
  readonly #makeDefault: boolean;
  readonly #parts: PreparedParts;

  constructor(merchantId: MerchantId, row: NewCredential, makeDefault: boolean, parts: PreparedParts) {
    this.id = row.id;
    this.accountId = row.accountId;
    this.#merchantId = merchantId;
    this.#row = row;
    this.#makeDefault = makeDefault;
    this.#parts = parts;
  }

  /** Writes rows and audit records in the caller's transaction, which must be of this merchant. */
  async commit(tx: CredentialTx, actor: Actor): Promise<void> {
    const { store } = this.#parts;
    await store.insert(this.#merchantId, tx, actor, this.#row);
    if (this.#makeDefault) await store.setDefault(this.#merchantId, tx, actor, this.id);
  }

  /**
   * Removes the ciphertext after the transaction failed. Never throws.
   * @param cause what the transaction failed with. After `ledger.unavailable` nobody knows whether it was committed, so the
   * ciphertext stays: either the row needs it, or it is noise without its key, which a sweep removes. `onLeftover` is told.
   */
  async abandon(cause: unknown): Promise<void> {
    const { leftovers, onLeftover } = this.#parts;
    if (this.#row.sealed === undefined) return;
    const { secretName } = this.#row.sealed;
    if (cause instanceof ServiceError && cause.code === 'ledger.unavailable') {
      onLeftover(secretName, cause);
      return;
    }
    await leftovers.remove({ merchantId: this.#merchantId, secretName });
  }
}
