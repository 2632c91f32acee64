import { randomUUID } from 'node:crypto';
import { createApp } from './app.ts';
import { AuditStore } from './audit/audit-store.ts';
import { ApiKeyStore } from './auth/api-key-store.ts';
import { ApiKeys } from './auth/api-keys.ts';
import { newBearerVerifier } from './auth/bearer.ts';
import { newJwtVerifier } from './auth/jwt.ts';
import { TokenHasher } from './auth/token-hash.ts';
import type { Pepper } from './auth/token-hash.ts';
import { BedrockModels } from './bedrock/models-aws.ts';
import { BedrockRuntime } from './bedrock/runtime-aws.ts';
import type { Secrets } from './config/secrets.ts';
import type { Config } from './config/settings.ts';
import { CredentialStore } from './credentials/credential-store.ts';
import { AwsIdentityCheck } from './credentials/identity-aws.ts';
import { OpenedCache } from './credentials/opened-cache.ts';
import { CredentialResolver } from './credentials/resolve.ts';
import { Sessions } from './credentials/sessions.ts';
import { AwsSecretVault } from './credentials/vault-aws.ts';
import { Vault } from './credentials/vault.ts';
import { systemClock } from './domain/clock.ts';
import type { Clock } from './domain/clock.ts';
import { Admission } from './gateway/admission.ts';
import { Gateway } from './gateway/gateway.ts';
import { Onboarding } from './gateway/onboarding.ts';
import { BodyBudget } from './http/body-budget.ts';
import { openApiDocument } from './http/openapi.ts';
import { ROUTES } from './http/routes.ts';
import { serverOptions } from './http/server-settings.ts';
import { createServer } from './http/server.ts';
import type { Services } from './http/services.ts';
import { authenticate } from './http/steps/authenticate.ts';
import { LimitStore } from './ledger/limit-store.ts';
import { LedgerStore } from './ledger/ledger-store.ts';
import { Ledger } from './ledger/ledger.ts';
import { PriceStore } from './ledger/price-store.ts';
import { Prices } from './ledger/prices.ts';
import { UsageStore } from './ledger/usage-store.ts';
import { WebhookDeliverer } from './ledger/webhook-deliverer.ts';
import { WebhookSecrets } from './ledger/webhook-secrets.ts';
import { WebhookSender } from './ledger/webhook-sender-out.ts';
import { WebhookStore } from './ledger/webhook-store.ts';
import { Webhooks } from './ledger/webhooks.ts';
import { MerchantStore } from './merchants/merchant-store.ts';
import { Merchants } from './merchants/merchants.ts';
import { errorFields, newLogger } from './observability/logger.ts';
import type { Logger } from './observability/logger.ts';
import { Database } from './persistence/database.ts';
import { assertSafeLogin, isSchemaReady } from './persistence/readiness.ts';
import { Service } from './service.ts';

/** What tests replace. Everything else is always the real thing. */
export interface Overrides {
  clock?: Clock;
  logger?: Logger;
}

/**
 * Every `new` of the system, in the order of who needs whom.
 * @throws Error when the database cannot be reached, is not migrated, or the login may do more than it should.
 */
export async function build(config: Config, secrets: Secrets, overrides: Overrides = {}): Promise<Service> {
  const { clock = systemClock, logger = newLogger(config.logLevel) } = overrides;
  const database = new Database({
    url: secrets.databaseUrl,
    connectionsMax: config.databaseConnectionsMax,
    statementTimeoutMs: config.databaseTimeoutMs,
    onPoolError: (error) => {
      logger.warn('database connection lost', errorFields(error));
    },
  });
  try {
    await assertSafeLogin(database);
    return await assemble(config, secrets, { clock, logger, database });
  } catch (error) {
    await database[Symbol.asyncDispose]();
    throw error;
  }
}

/** Batches of holds, and of settlements, that may be on their way to Postgres at one time. */
const LEDGER_LANES = 2;

type Base = Required<Overrides> & { database: Database };

async function assemble(config: Config, secrets: Secrets, base: Base): Promise<Service> {
  const { logger, database } = base;
  const { closers, ...credentials } = buildCredentials(config, secrets, base);
  const merchantStore = new MerchantStore(database);
  const merchants = new Merchants(merchantStore, { clock: base.clock, max: config.rememberedMax });
  const apiKeyStore = new ApiKeyStore(database);
  const apiKeys = buildApiKeys(config, secrets, { store: apiKeyStore, clock: base.clock });
  const ledgerStore = new LedgerStore(database, { processId: randomUUID(), lanes: LEDGER_LANES });
  const prices = new Prices(new PriceStore(database), base.clock);
  await Promise.all([ledgerStore.makePartitions(12), prices.refresh()]);
  const { runtime, models } = buildBedrock(config, base);
  const { webhooks, deliverer } = buildWebhooks(config, secrets, base);
  const services: Services = {
    apiKeys,
    apiKeyStore,
    audit: new AuditStore(database),
    bodyBudget: new BodyBudget(config.inFlightBodyBytesMax),
    gateway: new Gateway(
      new Admission({
        ...config,
        ...credentials,
        ledger: buildLedger(ledgerStore, logger),
        merchants,
        prices,
      }),
      runtime,
      config,
    ),
    health: { shuttingDown: false, databaseReady: () => isSchemaReady(database) },
    limits: { ...config, stallTimeoutMs: config.idleTimeoutMs },
    limitStore: new LimitStore(database),
    logger,
    merchants,
    merchantStore,
    models,
    openApi: openApiDocument(ROUTES),
    onboarding: new Onboarding(database, merchantStore, apiKeys, credentials.vault),
    ...credentials,
    usage: new UsageStore(database),
    webhooks,
  };
  const verify = newBearerVerifier({
    apiKeys,
    ...buildJwt(config, secrets, base),
    devTokens: config.authDevTokens,
  });
  return new Service({
    config,
    server: createServer(
      createApp(services, (how) => authenticate(verify, how)),
      serverOptions(config, logger),
    ),
    services,
    ledgerStore,
    prices,
    deliverer,
    closers: [deliverer, runtime, models, ...closers, merchants, database],
  });
}

function buildLedger(store: LedgerStore, logger: Logger): Ledger {
  return new Ledger(store, {
    settleRetryDelaysMs: [50, 200, 1_000, 3_000],
    onUnsettled: (callId, error) => {
      logger.error('call not settled: it becomes unknown at its deadline', { callId, ...errorFields(error) });
    },
  });
}

function buildWebhooks(config: Config, secrets: Secrets, { clock, logger, database }: Base) {
  const store = new WebhookStore(database);
  const sealing = new WebhookSecrets([secrets.sessionKey, secrets.sessionKeyPrevious]);
  const rules = { plainLoopback: config.environment !== 'production' };
  const parts = { store, secrets: sealing, sender: new WebhookSender({ rules }), rules, clock, logger };
  return { webhooks: new Webhooks(parts), deliverer: new WebhookDeliverer(parts) };
}

function buildApiKeys(
  config: Config,
  secrets: Secrets,
  parts: { store: ApiKeyStore; clock: Clock },
): ApiKeys {
  const previous = secrets.tokenPepperPrevious;
  const peppers: [Pepper, ...Pepper[]] = [{ version: config.tokenPepperVersion, key: secrets.tokenPepper }];
  if (previous) peppers.push({ version: config.tokenPepperVersion - 1, key: previous });
  return new ApiKeys({
    ...parts,
    hasher: new TokenHasher(peppers),
    rememberedMax: config.rememberedMax,
    environment: config.environment === 'production' ? 'live' : 'test',
  });
}

function buildJwt(config: Config, secrets: Secrets, { clock }: Base) {
  const { jwtAlgorithm: algorithm, jwtIssuer: issuer, jwtAudience: audience, jwtJwksUrl: jwksUrl } = config;
  if (algorithm === undefined || issuer === undefined || audience === undefined) return {};
  return {
    jwt: newJwtVerifier({
      algorithm,
      issuer,
      audience,
      merchantClaim: config.jwtMerchantClaim,
      scopeClaim: config.jwtScopeClaim,
      clock,
      ...(secrets.jwtSecret && { secret: secrets.jwtSecret }),
      ...(jwksUrl !== undefined && { jwksUrl }),
    }),
  };
}

function buildCredentials(config: Config, secrets: Secrets, { clock, logger, database }: Base) {
  const {
    endpointSts: sts,
    endpointBedrock: bedrock,
    endpointKms: kms,
    endpointSecretsManager: secretsManager,
  } = config;
  const identity = new AwsIdentityCheck({
    regions: config.enabledRegions,
    endpoints: { ...(sts && { sts }), ...(bedrock && { bedrock }) },
  });
  const sealed = new AwsSecretVault({
    region: config.awsRegion,
    environment: config.deployment,
    kmsKeyId: config.vaultKmsKeyId,
    endpoints: { ...(kms && { kms }), ...(secretsManager && { secretsManager }) },
    ...(secrets.serviceCredential && { serviceCredentials: secrets.serviceCredential }),
  });
  const opened = new OpenedCache({
    clock,
    max: config.openedCredentialsMax,
    ttlMs: config.openedCredentialsTtlMs,
  });
  const vault = new Vault({
    store: new CredentialStore(database),
    secrets: sealed,
    identity,
    opened,
    clock,
    onLeftover: (secretName, cause) => {
      logger.warn('ciphertext left behind in Secrets Manager: check before removing it', {
        secretName,
        ...errorFields(cause),
      });
    },
  });
  const sessions = new Sessions({
    key: secrets.sessionKey,
    ...(secrets.sessionKeyPrevious && { previousKeys: [secrets.sessionKeyPrevious] }),
    clock,
  });
  const { serviceDefaultRegion: region } = config;
  const resolver = new CredentialResolver({
    vault,
    sessions,
    identity,
    clock,
    regions: config.enabledRegions,
    ...(config.serviceDefaultsEnabled &&
      secrets.serviceDefault &&
      region && { serviceDefault: { accessKey: secrets.serviceDefault, region } }),
  });
  return { vault, sessions, resolver, closers: [resolver, opened, sealed] };
}

/** Questions about models are small and quick, unlike paid calls. */
const CONTROL_PLANE_LIMITS = { socketsMax: 64, connectMs: 3_000, firstByteMs: 10_000, totalMs: 15_000 };

function buildBedrock(config: Config, { clock }: Base) {
  return {
    runtime: new BedrockRuntime({
      connectMs: config.connectTimeoutMs,
      firstByteMs: config.firstByteTimeoutMs,
      totalMs: config.totalTimeoutMs,
      socketsMax: config.upstreamSocketsMax,
      endpoint: config.endpointBedrockRuntime,
      clientsMax: config.clientPoolMax,
      clientIdleMs: 60_000,
      clock,
    }),
    models: new BedrockModels({ ...CONTROL_PLANE_LIMITS, endpoint: config.endpointBedrock }),
  };
}
