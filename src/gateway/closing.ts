import { merchantNotFound } from '../auth/permissions.ts';
import type { CredentialKeeper } from '../credentials/credential-keeper.ts';
import type { Vault } from '../credentials/vault.ts';
import type { Actor } from '../domain/audit.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { ClosedMerchant, MerchantStore } from '../merchants/merchant-store.ts';

/** The end of a merchant, in every room at once. */
export class Closing {
  readonly #merchants: Pick<MerchantStore, 'close'>;
  readonly #vault: Pick<Vault, 'forget'>;
  readonly #credentials: Pick<CredentialKeeper, 'discard'>;

  constructor(
    merchants: Pick<MerchantStore, 'close'>,
    vault: Pick<Vault, 'forget'>,
    credentials: Pick<CredentialKeeper, 'discard'>,
  ) {
    this.#merchants = merchants;
    this.#vault = vault;
    this.#credentials = credentials;
  }

  /**
   * Closes a merchant. Once the database has committed, its secrets are beyond anyone's reach; then the ciphertexts are removed as far as AWS
   * lets us, and else by a sweep, within hours. Closing it again tries that at once.
   * @throws ServiceError merchant.not_found | ledger.unavailable
   */
  async close(actor: Actor, merchantId: MerchantId, reason?: string): Promise<ClosedMerchant> {
    const closed = await this.#merchants.close(actor, merchantId, reason);
    if (closed === undefined) throw merchantNotFound();
    this.#vault.forget(merchantId);
    await this.#credentials.discard(merchantId, closed.secrets);
    return closed;
  }
}
