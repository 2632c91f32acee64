import type { ApiKeys } from '../auth/api-keys.ts';
import type { CredentialInput } from '../credentials/prepared-credential.ts';
import type { CredentialKeeper } from '../credentials/credential-keeper.ts';
import type { Actor } from '../domain/audit.ts';
import type { CredentialId } from '../domain/ids.ts';
import type { MerchantScope } from '../domain/principal.ts';
import type { MerchantStore, NewMerchant } from '../merchants/merchant-store.ts';
import type { Database } from '../persistence/database.ts';

export interface OnboardingRequest {
  merchant: NewMerchant;
  apiKey: { name: string; scopes: readonly MerchantScope[]; expiresInDays: number };
  credential?: CredentialInput;
}

export interface Onboarded {
  merchantId: string;
  /** `token` is shown this one time; only its keyed hash is kept. */
  apiKey: { id: string; token: string; expiresAt: string };
  credentialId: CredentialId | undefined;
}

/** A merchant, its first API key and its first credential: all of it or nothing. */
export class Onboarding {
  readonly #database: Pick<Database, 'asTenant'>;
  readonly #merchants: MerchantStore;
  readonly #apiKeys: ApiKeys;
  readonly #credentials: Pick<CredentialKeeper, 'prepare'>;

  constructor(
    database: Pick<Database, 'asTenant'>,
    merchants: MerchantStore,
    apiKeys: ApiKeys,
    credentials: Pick<CredentialKeeper, 'prepare'>,
  ) {
    this.#database = database;
    this.#merchants = merchants;
    this.#apiKeys = apiKeys;
    this.#credentials = credentials;
  }

  /**
   * The credential is checked with AWS and sealed first, because that can fail; then one transaction writes everything.
   * @throws ServiceError merchant.already_exists | credential.refused_by_aws | vault.unavailable | ledger.unavailable; nothing is left then.
   */
  async onboard(actor: Actor, request: OnboardingRequest): Promise<Onboarded> {
    const merchantId = request.merchant.id;
    const prepared =
      request.credential === undefined
        ? undefined
        : await this.#credentials.prepare(merchantId, request.credential);
    try {
      const apiKey = await this.#database.asTenant(merchantId, async (tx) => {
        await this.#merchants.insert(tx, actor, request.merchant);
        await prepared?.commit(tx, actor);
        return this.#apiKeys.create(actor, merchantId, request.apiKey, tx);
      });
      return { merchantId, apiKey, credentialId: prepared?.id };
    } catch (error) {
      await prepared?.abandon(error);
      throw error;
    }
  }
}
