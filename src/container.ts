import { randomUUID } from 'node:crypto';
import { createApp } from './app.ts';
import { AuditStore } from './audit/audit-store.ts';
import { ApiKeyStore } from './auth/api-key-store.ts';
import { ApiKeys } from './auth/api-keys.ts';
import { newBearerVerifier } from './auth/bearer.ts';
import { newJwtVerifier } from './auth/jwt.ts';
import { TokenHasher } from './auth/token-hash.ts';
import type { Pepper } from './auth/token-hash.ts';
import { LogBucket } from './bedrock/log-bucket-aws.ts';
import { LogGroup } from './bedrock/log-group-aws.ts';
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
import { Reconciler } from './gateway/reconciler.ts';
import type { ReconcilerParts } from './gateway/reconciler.ts';
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
import { UnknownStore } from './ledger/unknown-store.ts';
import { UsageStore } from './ledger/usage-store.ts';
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
  const audit = new AuditStore(database);
  const merchantStore = new MerchantStore(database);
  const merchants = new Merchants(merchantStore, { clock: base.clock, max: config.rememberedMax });
  const apiKeyStore = new ApiKeyStore(database);
  const apiKeys = buildApiKeys(config, secrets, { store: apiKeyStore, clock: base.clock });
  const ledgerStore = new LedgerStore(database, { processId: randomUUID(), lanes: LEDGER_LANES });
  await ledgerStore.makePartitions(12);
  const prices = new Prices(new PriceStore(database), base.clock);
  await prices.refresh();
  const { runtime, models } = buildBedrock(config, base);
  const ledger = new Ledger(ledgerStore, {
    settleRetryDelaysMs: [50, 200, 1_000, 3_000],
    onUnsettled: (callId, error) => {
      logger.error('call not settled: it becomes unknown at its deadline', { callId, ...errorFields(error) });
    },
  });
  const unknown = new UnknownStore(database);
  const services: Services = {
    apiKeys,
    apiKeyStore,
    audit,
    bodyBudget: new BodyBudget(config.inFlightBodyBytesMax),
    gateway: new Gateway(
      new Admission({ ...config, ...credentials, ledger, merchants, prices }),
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
    unknown,
    usage: new UsageStore(database),
  };
  const reconciling = buildReconciler(config, { ...credentials, ledger, merchants, unknown, logger });
  const verify = newBearerVerifier({
    apiKeys,
    ...buildJwt(config, secrets, base),
    devTokens: config.authDevTokens,
  });
  const server = createServer(
    createApp(services, (how) => authenticate(verify, how)),
    serverOptions(config, logger),
  );
  return new Service({
    config,
    server,
    services,
    ledgerStore,
    prices,
    reconciler: reconciling[0],
    closers: [...reconciling, runtime, models, ...closers, merchants, database],
  });
}

function buildApiKeys(
  config: Config,
  secrets: Secrets,
  parts: { store: ApiKeyStore; clock: Clock },
): ApiKeys {
  const previous = secrets.tokenPepperPrevious;
  const peppers: [Pepper, ...Pepper[]] = [{ version: config.tokenPepperVersion, key: secrets.tokenPepper }];
  if (previous) peppers.push({ version: config.tokenPepperVersion - 1, key: previous });
  const environment = config.environment === 'production' ? 'live' : 'test';
  return new ApiKeys({
    ...parts,
    hasher: new TokenHasher(peppers),
    rememberedMax: config.rememberedMax,
    environment,
  });
}

function buildJwt(config: Config, secrets: Secrets, { clock }: Base) {
  const { jwtAlgorithm: algorithm, jwtIssuer: issuer, jwtAudience: audience, jwtJwksUrl: jwksUrl } = config;
  if (algorithm === undefined || issuer === undefined || audience === undefined) return {};
  const jwt = newJwtVerifier({
    algorithm,
    issuer,
    audience,
    merchantClaim: config.jwtMerchantClaim,
    scopeClaim: config.jwtScopeClaim,
    clock,
    ...(secrets.jwtSecret && { secret: secrets.jwtSecret }),
    ...(jwksUrl !== undefined && { jwksUrl }),
  });
  return { jwt };
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

/** Reading logs is nobody's request: it may take its time, but few sockets. */
const LOG_LIMITS = { socketsMax: 16, connectMs: 3_000, firstByteMs: 30_000, totalMs: 60_000 };
const LOG_BYTES_MAX = 1_000_000_000;

/** The reconciler and the readers that it uses, in the order of their closing. */
function buildReconciler(
  { endpointCloudWatchLogs, endpointS3 }: Config,
  parts: Omit<ReconcilerParts, 'logGroup' | 'logBucket'>,
): [Reconciler, LogGroup, LogBucket] {
  const logGroup = new LogGroup({ ...LOG_LIMITS, endpoint: endpointCloudWatchLogs });
  const logBucket = new LogBucket({ ...LOG_LIMITS, endpoint: endpointS3, bytesMax: LOG_BYTES_MAX });
  return [new Reconciler({ ...parts, logGroup, logBucket }), logGroup, logBucket];
}

function buildBedrock(config: Config, { clock }: Base) {
  const limits = {
    connectMs: config.connectTimeoutMs,
    firstByteMs: config.firstByteTimeoutMs,
    totalMs: config.totalTimeoutMs,
    socketsMax: config.upstreamSocketsMax,
  };
  return {
    runtime: new BedrockRuntime({
      ...limits,
      endpoint: config.endpointBedrockRuntime,
      clientsMax: config.clientPoolMax,
      clientIdleMs: 60_000,
      clock,
    }),
    models: new BedrockModels({ ...CONTROL_PLANE_LIMITS, endpoint: config.endpointBedrock }),
  };
}
