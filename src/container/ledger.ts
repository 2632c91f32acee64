import { randomUUID } from 'node:crypto';
import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { monotonicClock } from '../domain/clock.ts';
import { KeptAnswers } from '../gateway/kept-answers.ts';
import { AnswerSeal } from '../ledger/answer-seal.ts';
import { AnswerStore } from '../ledger/answer-store.ts';
import { LedgerStore } from '../ledger/ledger-store.ts';
import { Ledger } from '../ledger/ledger.ts';
import { RotationAlertsStore } from '../ledger/rotation-alerts-store.ts';
import { LimitStore } from '../ledger/limit-store.ts';
import { openSpool } from '../ledger/open-spool.ts';
import { PriceStore } from '../ledger/price-store.ts';
import { Prices } from '../ledger/prices.ts';
import { Unsent } from '../ledger/unsent.ts';
import { UsageStore } from '../ledger/usage-store.ts';
import { UsageVerifyStore } from '../ledger/usage-verify-store.ts';
import { WebhookDeliverer } from '../ledger/webhook-deliverer.ts';
import { WebhookSecrets } from '../ledger/webhook-secrets.ts';
import { WebhookSender } from '../ledger/webhook-sender-out.ts';
import { WebhookStore } from '../ledger/webhook-store.ts';
import { Webhooks } from '../ledger/webhooks.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

const PARTITIONS_AHEAD_MONTHS = 12;
/** Longer than Postgres lets a statement run whose answer was given up. Milliseconds. */
const LOST_MARGIN_MS = 2_000;

/** What it costs: holds and settlements, the spool for outages, answers that may be given again, prices. */
export async function buildLedger(config: Config, secrets: Secrets, { clock, database, logger }: Base) {
  const processId = randomUUID();
  const ledgerStore = new LedgerStore(database, { processId });
  const spool = await openSpool(config, { processId, store: ledgerStore, logger });
  const unsent = new Unsent({
    voidUnsent: (calls) => ledgerStore.voidUnsent(calls),
    afterMs: config.databaseTimeoutMs + LOST_MARGIN_MS,
    clock: monotonicClock,
    onGivenUp: (error) => {
      logger.warn(
        'calls without an answer from Postgres are given up: those that were admitted become unknown',
        {
          ...(error !== undefined && errorFields(error)),
        },
      );
    },
  });
  const ledger = new Ledger(ledgerStore, {
    unsent,
    ...(spool && { spool }),
    settleRetryDelaysMs: [50, 200, 1_000, 3_000],
    onUnsettled: (callId, error) => {
      logger.error('call not settled: it becomes unknown at its deadline', { callId, ...errorFields(error) });
    },
  });
  const { sessionKey, sessionKeyPrevious } = secrets;
  const answerStore = new AnswerStore(database);
  const answers = new KeptAnswers({
    store: answerStore,
    seal: new AnswerSeal([sessionKey, ...(sessionKeyPrevious ? [sessionKeyPrevious] : [])]),
    onLost: (callId, error) => {
      logger.warn('answer not kept', { callId, ...errorFields(error) });
    },
  });
  const rotationAlerts = new RotationAlertsStore(database);
  const prices = new Prices(new PriceStore(database), clock);
  await Promise.all([ledgerStore.makePartitions(PARTITIONS_AHEAD_MONTHS), prices.refresh()]);
  const lastTries = [...(spool ? [spool] : []), unsent];
  return { answerStore, answers, ledger, ledgerStore, prices, rotationAlerts, spool, unsent, lastTries };
}

/** Who is told of alerts. */
export function buildWebhooks(config: Config, secrets: Secrets, { clock, logger, database }: Base) {
  const store = new WebhookStore(database);
  const sealing = new WebhookSecrets([secrets.sessionKey, secrets.sessionKeyPrevious]);
  const rules = { plainLoopback: config.environment !== 'production' };
  const parts = { store, secrets: sealing, sender: new WebhookSender({ rules }), rules, clock, logger };
  return { webhooks: new Webhooks(parts), deliverer: new WebhookDeliverer(parts) };
}

/** What was used, at what price, within which limits. */
export function buildReports({ database }: Pick<Base, 'database'>) {
  return {
    limitStore: new LimitStore(database),
    priceStore: new PriceStore(database),
    usage: new UsageStore(database),
    usageVerify: new UsageVerifyStore(database),
  };
}
