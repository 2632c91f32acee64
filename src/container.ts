import { createApp } from './app.ts';
import { AuditStore } from './audit/audit-store.ts';
import { BedrockModels } from './bedrock/models-aws.ts';
import { BedrockRuntime } from './bedrock/runtime-aws.ts';
import type { Secrets } from './config/secrets.ts';
import type { Config } from './config/settings.ts';
import type { Base } from './container/base.ts';
import { buildAudit } from './container/audit.ts';
import { buildCallers } from './container/callers.ts';
import { buildCalls } from './container/calls.ts';
import { buildCredentials } from './container/credentials.ts';
import { buildLedger, buildReports, buildWebhooks } from './container/ledger.ts';
import { buildMerchants } from './container/merchants.ts';
import { buildReconciler } from './container/reconciler.ts';
import { monotonicClock, systemClock } from './domain/clock.ts';
import { ModelsBehind } from './gateway/models-behind.ts';
import { Sharpening } from './gateway/sharpen.ts';
import { BodyBudget } from './http/body-budget.ts';
import { openApiDocument } from './http/openapi.ts';
import { ROUTES } from './http/routes.ts';
import { serverOptions } from './http/server-settings.ts';
import { createServer } from './http/server.ts';
import type { Services } from './http/services.ts';
import { authenticate } from './http/steps/authenticate.ts';
import { SingleFlightCache } from './memory/single-flight-cache.ts';
import { errorFields, newLogger } from './observability/logger.ts';
import { Database } from './persistence/database.ts';
import { assertSafeLogin, isSchemaReady } from './persistence/readiness.ts';
import { Service } from './service.ts';

/** What tests replace. Everything else is always the real thing. */
export type Overrides = Partial<Pick<Base, 'clock' | 'monotonic' | 'logger'>>;

/**
 * Every `new` of the system, in the order of who needs whom; container/ has the rooms with more than a few.
 * @throws Error when the database cannot be reached, is not migrated, or the login may do more than it should.
 */
export async function build(config: Config, secrets: Secrets, overrides: Overrides = {}): Promise<Service> {
  const { clock = systemClock, monotonic = monotonicClock, logger = newLogger(config.logLevel) } = overrides;
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
    const audit = new AuditStore(database);
    return await assemble(config, secrets, { clock, monotonic, logger, database, audit });
  } catch (error) {
    await database[Symbol.asyncDispose]();
    throw error;
  }
}

async function assemble(config: Config, secrets: Secrets, base: Base): Promise<Service> {
  const { clock, logger, database, audit } = base;
  const { closers, leftovers, rotationWorker, ...credentials } = buildCredentials(config, secrets, base);
  const { apiKeyStore, apiKeys, rehash, verify } = buildCallers(config, secrets, base);
  const { merchants, ...keeping } = buildMerchants(config, base, { ...credentials, apiKeys });
  const { ledger, ...books } = await buildLedger(config, secrets, base);
  const { webhooks, deliverer } = buildWebhooks(config, secrets, base);
  const bedrock = buildBedrock(config, base);
  const parts = { ...credentials, ...bedrock, ...books, ledger, merchants };
  const { checkpoints, checkpointer, auditing } = buildAudit(config, secrets, base);
  const { probes, watch, calls } = buildCalls(config, base, { ...parts, audit });
  const { unknown, reconciler, reconciling } = buildReconciler(config, base, parts);
  const services: Services = {
    apiKeys,
    apiKeyStore,
    audit,
    checkpoints,
    clock,
    health: healthOf(base, books.spool),
    logger,
    merchants,
    models: bedrock.models,
    openApi: Buffer.from(JSON.stringify(openApiDocument(ROUTES))),
    ...buildReports(base),
    ...buildRequestLimits(config),
    ...keeping,
    ...calls,
    ...credentials,
    unknown,
    webhooks,
  };
  const app = createApp(services, (how) => authenticate(verify, how), config);
  return new Service({
    config,
    server: createServer(app, serverOptions(config, logger)),
    services,
    ...books,
    leftovers,
    reconciler,
    rotationWorker,
    deliverer,
    watch,
    checkpointer,
    // These before the database: they try once more to write what waits.
    closers: [
      watch,
      ...reconciling,
      deliverer,
      ...auditing,
      ...books.lastTries,
      bedrock.runtime,
      bedrock.modelsBehind,
      bedrock.models,
      probes,
      ...closers,
      rehash,
      merchants,
      database,
    ],
  });
}

function buildRequestLimits(config: Config): Pick<Services, 'bodyBudget' | 'limits'> {
  const {
    inFlightBodyBytesMax: all,
    inFlightBodySharePercent: share,
    wireBodyBytesMax,
    jsonBodyBytesMax,
  } = config;
  // A merchant's part holds the largest body at least.
  const part = Math.max((all * share) / 100, wireBodyBytesMax, jsonBodyBytesMax);
  return {
    bodyBudget: new BodyBudget(all, part),
    limits: { ...config, stallTimeoutMs: config.idleTimeoutMs },
  };
}

/** Anybody may ask for readiness, and paid calls want the same connections: so many who ask cause one question a second. */
const READY_KEPT_MS = 1_000;

function healthOf(
  { database, monotonic }: Pick<Base, 'database' | 'monotonic'>,
  spool: { full: boolean } | undefined,
): Services['health'] {
  const asked = new SingleFlightCache<boolean>({
    max: 1,
    ttlMs: READY_KEPT_MS,
    idleMs: Infinity,
    clock: monotonic,
  });
  return {
    shuttingDown: false,
    databaseReady: () => asked.get('', () => isSchemaReady(database)),
    spoolReady: () => spool?.full !== true,
  };
}

/** Questions about models are small and quick, unlike paid calls. */
const CONTROL_PLANE_LIMITS = { socketsMax: 64, connectMs: 3_000, firstByteMs: 10_000, totalMs: 15_000 };

function buildBedrock(config: Config, { clock, audit }: Pick<Base, 'clock' | 'audit'>) {
  const runtime = new BedrockRuntime({
    connectMs: config.connectTimeoutMs,
    firstByteMs: config.firstByteTimeoutMs,
    totalMs: config.totalTimeoutMs,
    socketsMax: config.upstreamSocketsMax,
    endpoint: config.endpointBedrockRuntime,
    privateNames: config.privateEndpoints,
    clientsMax: config.clientPoolMax,
    clientIdleMs: 60_000,
    clock,
  });
  const models = new BedrockModels({
    ...CONTROL_PLANE_LIMITS,
    endpoint: config.endpointBedrock,
    privateNames: config.privateEndpoints,
  });
  return {
    runtime,
    models,
    modelsBehind: new ModelsBehind({ models, clock, audit }),
    sharpening: new Sharpening(runtime, audit),
  };
}
