import type { ApiKeys } from '../auth/api-keys.ts';
import type { Config } from '../config/settings.ts';
import type { RoleActivation } from '../credentials/role-activation.ts';
import type { CredentialKeeper } from '../credentials/credential-keeper.ts';
import type { Vault } from '../credentials/vault.ts';
import { Closing } from '../gateway/closing.ts';
import { Onboarding } from '../gateway/onboarding.ts';
import { RoleKits } from '../gateway/role-kits.ts';
import { rolePolicyFor } from '../gateway/role-policy.ts';
import { MerchantStore } from '../merchants/merchant-store.ts';
import { Merchants } from '../merchants/merchants.ts';
import type { Base } from './base.ts';

/** For whom: merchants, how they begin and end, and what they need to make a role for us. */
export function buildMerchants(
  config: Config,
  { clock, database, audit }: Base,
  {
    vault,
    credentials,
    roles,
    apiKeys,
  }: { vault: Vault; credentials: CredentialKeeper; roles: RoleActivation; apiKeys: ApiKeys },
) {
  const merchantStore = new MerchantStore(database);
  return {
    merchantStore,
    merchants: new Merchants(merchantStore, { clock, max: config.rememberedMax }),
    onboarding: new Onboarding({ database, audit, merchants: merchantStore, apiKeys, credentials }),
    closing: new Closing(merchantStore, vault, credentials),
    roleKits: new RoleKits(roles, rolePolicyFor),
  };
}
