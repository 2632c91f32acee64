import type { Checkpointer } from './audit/checkpointer.ts';
import type { Config } from './config/settings.ts';
import type { RotationWorker } from './credentials/rotation-worker.ts';
import type { HttpServer } from './http/server.ts';
import type { Leftovers } from './credentials/leftovers.ts';
import type { Reconciler } from './gateway/reconciler.ts';
import type { Watch } from './gateway/watch.ts';
import type { Services } from './http/services.ts';
import type { AnswerStore } from './ledger/answer-store.ts';
import type { LedgerStore } from './ledger/ledger-store.ts';
import type { Prices } from './ledger/prices.ts';
import type { RotationAlertsStore } from './ledger/rotation-alerts-store.ts';
import type { Spool } from './ledger/spool.ts';
import type { Unsent } from './ledger/unsent.ts';
import type { WebhookDeliverer } from './ledger/webhook-deliverer.ts';
import { errorFields } from './observability/logger.ts';

interface ServiceParts {
  config: Config;
  server: HttpServer;
  services: Services;
  ledgerStore: LedgerStore;
  spool: Spool | undefined;
  unsent: Unsent;
  answerStore: Pick<AnswerStore, 'sweep'>;
  prices: Prices;
  rotationAlerts: Pick<RotationAlertsStore, 'raise'>;
  reconciler: Reconciler;
  leftovers: Leftovers;
  rotationWorker: RotationWorker;
  deliverer: WebhookDeliverer;
  watch: Watch;
  /** Absent where nothing signs. */
  checkpointer: Checkpointer | undefined;
  /** Closed in this order when all calls are done. */
  closers: readonly (Disposable | AsyncDisposable)[];
}

const SWEEP_EVERY_MS = 10_000;
/** Ten rounds without a sign of life, and another process takes the files over. */
const SPOOL_EVERY_MS = 2_000;
const UNSENT_EVERY_MS = 1_000;
const SWEEP_CALLS_MAX = 1_000;
/** Three misses in a row, and what this process holds is in doubt. */
const ALIVE_EVERY_MS = 5_000;
const LEASE_SECONDS = 20;
const ANSWERS_EVERY_MS = 60_000;
/** Of up to 1 MiB each, in one transaction that the merchants' calls wait for. */
const ANSWERS_MAX = 100;
const COUNTERS_EVERY_MS = 60_000;
const COUNTERS_MAX = 500;
const PRICES_EVERY_MS = 10_000;
const LEFTOVERS_EVERY_MS = 300_000;
const RECONCILE_EVERY_MS = 30_000;
/** How long another replica remembers a version that was replaced. */
const ROTATE_EVERY_MS = 1_000;
const DELIVER_EVERY_MS = 1_000;
/** While SESSION_KEY_PREVIOUS is set, secrets sealed with it are sealed anew. */
const RESEAL_EVERY_MS = 60_000;
/** Asks whether the day's check is due; one replica then does it for all. */
const ROTATION_EVERY_MS = 3_600_000;
const CHECKPOINT_EVERY_MS = 5_000;
const PARTITIONS_EVERY_MS = 24 * 3_600_000;
const PARTITIONS_AHEAD_MONTHS = 12;
/** For the answers of calls that were cut at the end of the grace. */
const LAST_ANSWERS_MS = 1_000;

/** The running service: listens, keeps house, and leaves without losing a call. */
export class Service implements AsyncDisposable {
  readonly #parts: ServiceParts;
  readonly #timers: NodeJS.Timeout[] = [];
  #closed = false;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
  }

  get services(): Services {
    return this.#parts.services;
  }

  get watch(): Watch {
    return this.#parts.watch;
  }

  get logger() {
    return this.#parts.services.logger;
  }

  async listen(): Promise<{ port: number }> {
    const { config, server, ledgerStore, prices, spool, unsent, answerStore, deliverer, watch } = this.#parts;
    if (this.#parts.checkpointer === undefined)
      this.logger.warn('audit checkpoints are off: AUDIT_KMS_KEY_ID is not set');
    await ledgerStore.keepAlive(LEASE_SECONDS);
    this.#every(ALIVE_EVERY_MS, 'lease', () => ledgerStore.keepAlive(LEASE_SECONDS));
    this.#every(SWEEP_EVERY_MS, 'sweep', async () => {
      const calls = await ledgerStore.sweep(SWEEP_CALLS_MAX);
      if (calls > 0)
        this.logger.warn('calls became unknown: their process is gone or their deadline passed', { calls });
    });
    if (spool !== undefined) this.#every(SPOOL_EVERY_MS, 'spool', () => spool.tick());
    this.#every(UNSENT_EVERY_MS, 'unsent calls', async () => {
      const calls = await unsent.tick();
      if (calls > 0)
        this.logger.info('calls void: they were admitted without an answer, and never sent', { calls });
    });
    this.#every(ANSWERS_EVERY_MS, 'answers', async () => {
      while ((await answerStore.sweep(ANSWERS_MAX)) === ANSWERS_MAX);
    });
    this.#every(COUNTERS_EVERY_MS, 'counters', async () => {
      while ((await ledgerStore.sweepCounters(COUNTERS_MAX)) >= COUNTERS_MAX);
    });
    this.#every(config.revocationLookMs, 'revocations', async () => {
      const streams = await watch.round();
      if (streams > 0) this.logger.info('streams ended: their right was revoked', { streams });
    });
    this.#every(PRICES_EVERY_MS, 'prices', () => prices.refresh());
    this.#every(RECONCILE_EVERY_MS, 'reconcile', () => this.reconcile());
    this.#every(LEFTOVERS_EVERY_MS, 'leftovers', () => this.sweepLeftovers());
    this.#every(ROTATE_EVERY_MS, 'rotation', () => this.rotate());
    this.#every(DELIVER_EVERY_MS, 'webhooks', () => deliverer.poll());
    this.#every(RESEAL_EVERY_MS, 'webhook secrets', () => deliverer.resealAll());
    this.#every(ROTATION_EVERY_MS, 'rotation', () => this.remindOfRotation());
    this.#every(CHECKPOINT_EVERY_MS, 'audit checkpoints', () => this.checkpoint());
    this.#every(PARTITIONS_EVERY_MS, 'partitions', () => ledgerStore.makePartitions(PARTITIONS_AHEAD_MONTHS));
    return server.listen(config.port, config.host);
  }

  /**
   * Readiness fails; a while later nothing new is taken; running calls finish and settle; what still runs after the grace is cut and settled.
   */
  async shutDown(): Promise<void> {
    const { config, server, services } = this.#parts;
    services.health.shuttingDown = true;
    await this.#untilCut(config.shutdownDelayMs);
    server.stopAccepting();
    // Calls whose caller has left have no request any more: both are waited for.
    const { inFlight } = services.gateway;
    const graceMs = inFlight.cut.aborted ? 0 : config.shutdownGraceMs;
    await Promise.all([server.close(graceMs + LAST_ANSWERS_MS), inFlight.drain(graceMs)]);
    this.logger.info('stopped');
  }

  /** Looks at the unknown calls that are due, as is done every half minute. */
  async reconcile(): Promise<void> {
    const { resolved, looked } = await this.#parts.reconciler.round();
    if (looked > 0) this.logger.info('unknown calls looked at', { looked, resolved });
  }

  /** Removes secrets whose credential was never committed, as is done every five minutes. */
  async sweepLeftovers(): Promise<void> {
    const removed = await this.#parts.leftovers.sweep();
    if (removed > 0) this.logger.info('ciphertexts without a credential removed', { removed });
  }

  /** Reminds of keys that have been in use for long, as is done once a day. */
  async remindOfRotation(): Promise<void> {
    const { config, rotationAlerts } = this.#parts;
    if (config.credentialRotationDays === 0) return;
    const alerts = await rotationAlerts.raise(config.credentialRotationDays);
    if (alerts !== undefined) this.logger.info('age of stored keys looked at', { alerts });
  }

  /** Makes the audit checkpoint that is due, as is looked at every five seconds. */
  async checkpoint(): Promise<void> {
    await this.#parts.checkpointer?.round();
  }

  /** Goes on with rotations that are due, as is done every second. */
  rotate(): Promise<void> {
    return this.#parts.rotationWorker.round();
  }

  /** Cuts what still runs, without waiting for it to finish by itself. */
  cutNow(): void {
    void this.#parts.services.gateway.inFlight.drain(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of this.#timers) clearInterval(timer);
    for (const closer of this.#parts.closers) {
      if (Symbol.asyncDispose in closer) await closer[Symbol.asyncDispose]();
      else closer[Symbol.dispose]();
    }
  }

  #untilCut(delayMs: number): Promise<void> {
    const { cut } = this.#parts.services.gateway.inFlight;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, cut.aborted ? 0 : delayMs);
      cut.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #every(intervalMs: number, name: string, work: () => Promise<void>): void {
    const run = () => {
      work().catch((error: unknown) => {
        this.logger.warn('housekeeping failed', { name, ...errorFields(error) });
      });
    };
    this.#timers.push(setInterval(run, intervalMs).unref());
  }
}
