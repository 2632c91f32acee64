import { createApp } from './app.ts';
import { AuditStore } from './audit/audit-store.ts';
import { BedrockModels } from './bedrock/models-aws.ts';
import { BedrockRuntime } from './bedrock/runtime-aws.ts';
import type { Secrets } from './config/secrets.ts';
import type { Config } from './config/settings.ts';
import type { Base } from './container/base.ts';
import { buildCallers } from './container/callers.ts';
import { buildCredentials } from './container/credentials.ts';
import { buildLedger, buildWebhooks } from './container/ledger.ts';
import { buildReconciler } from './container/reconciler.ts';
import { systemClock } from './domain/clock.ts';
import { Admission } from './gateway/admission.ts';
import { Gateway } from './gateway/gateway.ts';
import { ModelsBehind } from './gateway/models-behind.ts';
import { Onboarding } from './gateway/onboarding.ts';
import { Sharpening } from './gateway/sharpen.ts';
import { BodyBudget } from './http/body-budget.ts';
import { openApiDocument } from './http/openapi.ts';
import { ROUTES } from './http/routes.ts';
import { serverOptions } from './http/server-settings.ts';
import { createServer } from './http/server.ts';
import type { Services } from './http/services.ts';
import { authenticate } from './http/steps/authenticate.ts';
import { LimitStore } from './ledger/limit-store.ts';
import { PriceStore } from './ledger/price-store.ts';
import { UsageStore } from './ledger/usage-store.ts';
import { UsageVerifyStore } from './ledger/usage-verify-store.ts';
import { MerchantStore } from './merchants/merchant-store.ts';
import { Merchants } from './merchants/merchants.ts';
import { errorFields, newLogger } from './observability/logger.ts';
import { Database } from './persistence/database.ts';
import { assertSafeLogin, isSchemaReady } from './persistence/readiness.ts';
import { Service } from './service.ts';

/** What tests replace. Everything else is always the real thing. */
export type Overrides = Partial<Pick<Base, 'clock' | 'logger'>>;

/**
 * Every `new` of the system, in the order of who needs whom; container/ has the rooms with more than a few.
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

async function assemble(config: Config, secrets: Secrets, base: Base): Promise<Service> {
  const { clock, logger, database } = base;
  const { closers, rotationWorker, ...credentials } = buildCredentials(config, secrets, base);
  const { apiKeyStore, apiKeys, verify } = buildCallers(config, secrets, base);
  const merchantStore = new MerchantStore(database);
  const merchants = new Merchants(merchantStore, { clock, max: config.rememberedMax });
  const { answers, ledger, ...books } = await buildLedger(config, secrets, base);
  const { webhooks, deliverer } = buildWebhooks(config, secrets, base);
  const { runtime, models, ...bounds } = buildBedrock(config, base);
  const { prices, spool } = books;
  const admission = new Admission({ ...config, ...credentials, ...bounds, ledger, merchants, prices });
  const { unknown, reconciler, reconciling } = buildReconciler(config, base, {
    ...credentials,
    ledger,
    merchants,
  });
  const services: Services = {
    apiKeys,
    apiKeyStore,
    audit: new AuditStore(database),
    bodyBudget: new BodyBudget(config.inFlightBodyBytesMax),
    gateway: new Gateway(admission, runtime, answers, config),
    health: healthOf(database, spool),
    limits: { ...config, stallTimeoutMs: config.idleTimeoutMs },
    limitStore: new LimitStore(database),
    logger,
    merchants,
    merchantStore,
    models,
    openApi: openApiDocument(ROUTES),
    onboarding: new Onboarding(database, merchantStore, apiKeys, credentials.vault),
    priceStore: new PriceStore(database),
    ...credentials,
    unknown,
    usage: new UsageStore(database),
    usageVerify: new UsageVerifyStore(database),
    webhooks,
  };
  const app = createApp(services, (how) => authenticate(verify, how));
  return new Service({
    config,
    server: createServer(app, serverOptions(config, logger)),
    services,
    ...books,
    reconciler,
    rotationWorker,
    deliverer,
    // The spool before the database: it tries once more to write what waits.
    closers: [
      ...reconciling,
      deliverer,
      ...(spool ? [spool] : []),
      runtime,
      bounds.modelsBehind,
      models,
      ...closers,
      merchants,
      database,
    ],
  });
}

function healthOf(database: Database, spool: { full: boolean } | undefined): Services['health'] {
  return {
    shuttingDown: false,
    databaseReady: () => isSchemaReady(database),
    spoolReady: () => spool?.full !== true,
  };
}

/** Questions about models are small and quick, unlike paid calls. */
const CONTROL_PLANE_LIMITS = { socketsMax: 64, connectMs: 3_000, firstByteMs: 10_000, totalMs: 15_000 };

function buildBedrock(config: Config, { clock }: Pick<Base, 'clock'>) {
  const runtime = new BedrockRuntime({
    connectMs: config.connectTimeoutMs,
    firstByteMs: config.firstByteTimeoutMs,
    totalMs: config.totalTimeoutMs,
    socketsMax: config.upstreamSocketsMax,
    endpoint: config.endpointBedrockRuntime,
    clientsMax: config.clientPoolMax,
    clientIdleMs: 60_000,
    clock,
  });
  const models = new BedrockModels({ ...CONTROL_PLANE_LIMITS, endpoint: config.endpointBedrock });
  return {
    runtime,
    models,
    modelsBehind: new ModelsBehind({ models, clock }),
    sharpening: new Sharpening(runtime),
  };
}
