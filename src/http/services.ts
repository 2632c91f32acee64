import type { ApiKeys } from '../auth/api-keys.ts';
import type { ApiKeyStore } from '../auth/api-key-store.ts';
import type { AuditStore } from '../audit/audit-store.ts';
import type { CheckpointStore } from '../audit/checkpoint-store.ts';
import type { BedrockModels } from '../bedrock/models-aws.ts';
import type { RoleActivation } from '../credentials/role-activation.ts';
import type { CredentialResolver } from '../credentials/resolve.ts';
import type { Rotations } from '../credentials/rotation.ts';
import type { Sessions } from '../credentials/sessions.ts';
import type { CredentialKeeper } from '../credentials/credential-keeper.ts';
import type { Vault } from '../credentials/vault.ts';
import type { Clock } from '../domain/clock.ts';
import type { EnvironmentTest } from '../gateway/environment-test.ts';
import type { Closing } from '../gateway/closing.ts';
import type { Gateway } from '../gateway/gateway.ts';
import type { RoleKits } from '../gateway/role-kits.ts';
import type { Onboarding } from '../gateway/onboarding.ts';
import type { PermissionTest } from '../gateway/permission-test.ts';
import type { Watch } from '../gateway/watch.ts';
import type { LimitStore } from '../ledger/limit-store.ts';
import type { UnknownStore } from '../ledger/unknown-store.ts';
import type { PriceStore } from '../ledger/price-store.ts';
import type { UsageStore } from '../ledger/usage-store.ts';
import type { UsageVerifyStore } from '../ledger/usage-verify-store.ts';
import type { Webhooks } from '../ledger/webhooks.ts';
import type { MerchantStore } from '../merchants/merchant-store.ts';
import type { Merchants } from '../merchants/merchants.ts';
import type { Logger } from '../observability/logger.ts';
import type { BodyBudget } from './body-budget.ts';
import type { Health } from './health.ts';

/** The rooms, as handlers see them. Built in container.ts. */
export interface Services {
  apiKeys: ApiKeys;
  apiKeyStore: Pick<ApiKeyStore, 'list' | 'revoke' | 'scopesOf'>;
  audit: AuditStore;
  bodyBudget: BodyBudget;
  clock: Clock;
  environmentTest: EnvironmentTest;
  closing: Closing;
  checkpoints: Pick<CheckpointStore, 'read'>;
  gateway: Gateway;
  health: Health;
  limits: HttpLimits;
  limitStore: LimitStore;
  logger: Logger;
  merchants: Merchants;
  merchantStore: Pick<MerchantStore, 'list'>;
  models: BedrockModels;
  onboarding: Onboarding;
  /** The table of routes as OpenAPI, written once: anybody may ask for it. JSON. */
  openApi: Buffer;
  permissionTest: PermissionTest;
  priceStore: Pick<PriceStore, 'list'>;
  resolver: CredentialResolver;
  roleKits: RoleKits;
  roles: RoleActivation;
  rotations: Rotations;
  sessions: Sessions;
  unknown: Pick<UnknownStore, 'decide' | 'byMerchant'>;
  usage: UsageStore;
  usageVerify: UsageVerifyStore;
  vault: Vault;
  /** Ends answers that are long in coming when their right ends. */
  watch: Pick<Watch, 'begin'>;
  credentials: CredentialKeeper;
  webhooks: Webhooks;
}

export interface HttpLimits {
  wireBodyBytesMax: number;
  jsonBodyBytesMax: number;
  bodyTimeoutMs: number;
  /** How long a caller may take no bytes of a stream before it is cut. Milliseconds. */
  stallTimeoutMs: number;
}
