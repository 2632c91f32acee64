import type { AuditStore } from '../audit/audit-store.ts';
import type { ApiKeys } from '../auth/api-keys.ts';
import type { CredentialInput } from '../credentials/prepared-credential.ts';
import type { CredentialKeeper } from '../credentials/credential-keeper.ts';
import { askingAws } from '../domain/audit.ts';
import type { Actor } from '../domain/audit.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
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

export interface OnboardingParts {
  database: Pick<Database, 'asTenant'>;
  audit: Pick<AuditStore, 'appendSystem'>;
  merchants: MerchantStore;
  apiKeys: ApiKeys;
  credentials: Pick<CredentialKeeper, 'prepare'>;
}

/** A merchant, its first API key and its first credential: all of it or nothing. */
export class Onboarding {
  readonly #parts: OnboardingParts;

  constructor(parts: OnboardingParts) {
    this.#parts = parts;
  }

  /**
   * The credential is checked with AWS and sealed first, because that can fail; then one transaction writes everything.
   * @throws ServiceError merchant.already_exists | credential.refused_by_aws | vault.unavailable | ledger.unavailable; nothing is left then.
   */
  async onboard(actor: Actor, request: OnboardingRequest): Promise<Onboarded> {
    const { database, merchants, apiKeys, credentials } = this.#parts;
    const merchantId = request.merchant.id;
    const prepared =
      request.credential &&
      (await credentials.prepare(merchantId, request.credential, () =>
        this.#recordQuestion(actor, merchantId),
      ));
    try {
      const apiKey = await database.asTenant(merchantId, async (tx) => {
        await merchants.insert(tx, actor, request.merchant);
        await prepared?.commit(tx, actor);
        return apiKeys.create(actor, merchantId, request.apiKey, tx);
      });
      return { merchantId, apiKey, credentialId: prepared?.id };
    } catch (error) {
      await prepared?.abandon(error);
      throw error;
    }
  }

  /** On the operators' chain: the merchant has none yet, or the id is another's. */
  #recordQuestion(actor: Actor, merchantId: MerchantId): Promise<void> {
    const asking = askingAws(actor, 'identity', { source: 'stored' });
    return this.#parts.audit.appendSystem({ ...asking, resource: `merchant/${merchantId}` });
  }
}
