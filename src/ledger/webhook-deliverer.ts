import type { Clock } from '../domain/clock.ts';
import type { MerchantId } from '../domain/ids.ts';
import { errorFields } from '../observability/logger.ts';
import type { LogFields, Logger } from '../observability/logger.ts';
import { retrySeconds } from './webhook-delivery.ts';
import type { DeliveryResult, TakenDelivery } from './webhook-delivery.ts';
import type { WebhookSecrets } from './webhook-secrets.ts';
import type { SendResult, WebhookSender } from './webhook-sender-out.ts';
import type { WebhookStore } from './webhook-store.ts';

export interface DelivererParts {
  store: Pick<WebhookStore, 'done' | 'reseal' | 'sealedOtherwise' | 'take'>;
  sender: Pick<WebhookSender, 'send'>;
  secrets: WebhookSecrets;
  clock: Clock;
  logger: Logger;
  /** Attempts under way at one time. Default 16. */
  parallel?: number;
  /** How long an attempt is this process's alone. Longer than any attempt takes. Seconds; default 60. */
  leaseSeconds?: number;
  /** Secrets that are read at one time when the key has changed. Default 200. */
  resealAtOnce?: number;
}

const PARALLEL = 16;
/** A merchant with this many under way waits: its receiver is slow, and others should not pay for it. */
const EACH_BUSY = 4;
const LEASE_SECONDS = 60;
const RESEAL_AT_ONCE = 200;

/**
 * Empties the outbox. Each event arrives at least once, under one id: an attempt whose result could not be written, or whose process died,
 * is made again when its lease has ended. Any number of replicas may do this at one time.
 */
export class WebhookDeliverer implements AsyncDisposable {
  readonly #parts: DelivererParts;
  readonly #running = new Map<Promise<void>, MerchantId>();
  readonly #stop = new AbortController();
  #round: Promise<void> | undefined;
  /** More may be due than there was room for. */
  #backlog = false;

  constructor(parts: DelivererParts) {
    this.#parts = parts;
  }

  /** Takes what is due, as much as there is room for, and starts it. @throws ServiceError ledger.unavailable */
  async poll(): Promise<void> {
    if (this.#round !== undefined) return;
    this.#round = this.#takeAll();
    try {
      await this.#round;
    } finally {
      this.#round = undefined;
    }
  }

  /** Seals secrets that are sealed with an older key with the one of today, so that the older one may go. @throws ServiceError ledger.unavailable */
  async resealAll(): Promise<void> {
    const { store, secrets, logger } = this.#parts;
    let rows: Awaited<ReturnType<typeof store.sealedOtherwise>> = [];
    do {
      // From behind the last one on: those that cannot be opened stay where they are, and must not keep the others waiting.
      rows = await store.sealedOtherwise(
        secrets.keyId,
        rows.at(-1),
        this.#parts.resealAtOnce ?? RESEAL_AT_ONCE,
      );
      for (const { merchantId, webhookId, sealed: before } of rows) {
        const after = secrets.reseal({ merchantId, webhookId }, before);
        if (after === undefined)
          logger.error('webhook secret is sealed with a key that is not here', { merchantId, webhookId });
        else await store.reseal(merchantId, webhookId, { before, after });
      }
    } while (rows.length > 0);
  }

  /** Takes nothing more and ends what is under way; the next process sends it again. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    // What is being taken at this moment is started, and given back at once.
    await this.#round?.catch(() => undefined);
    await Promise.all(this.#running.keys());
  }

  async #takeAll(): Promise<void> {
    const { store, parallel = PARALLEL, leaseSeconds = LEASE_SECONDS } = this.#parts;
    for (;;) {
      const room = parallel - this.#running.size;
      const busy = this.#busy();
      this.#backlog = room <= 0 || busy.length > 0;
      if (room <= 0 || this.#stop.signal.aborted) return;
      const taken = await store.take(room, leaseSeconds, busy);
      for (const delivery of taken) this.#start(delivery);
      if (taken.length === 0) return;
    }
  }

  #busy(): MerchantId[] {
    const counts = new Map<MerchantId, number>();
    for (const merchantId of this.#running.values())
      counts.set(merchantId, (counts.get(merchantId) ?? 0) + 1);
    return [...counts].filter(([, count]) => count >= EACH_BUSY).map(([merchantId]) => merchantId);
  }

  #start(delivery: TakenDelivery): void {
    const run = this.#deliver(delivery)
      .catch((error: unknown) => {
        this.#parts.logger.warn('webhook result not written: it will be sent again', {
          ...namesOf(delivery),
          ...errorFields(error),
        });
      })
      .finally(() => {
        this.#running.delete(run);
        // What fails here fails at the next round too, and is told there.
        if (this.#backlog) this.poll().catch(() => undefined);
      });
    this.#running.set(run, delivery.merchantId);
  }

  async #deliver(delivery: TakenDelivery): Promise<void> {
    const { store, logger } = this.#parts;
    if (delivery.receiver === undefined) {
      logger.warn('alert', alertFields(delivery));
      await store.done(delivery, { state: 'delivered' });
      return;
    }
    const sent = await this.#send(delivery, delivery.receiver);
    const result = resultOf(sent, delivery.attempt, Math.random());
    const written = await store.done(delivery, result);
    const { state, status, error } = result;
    const fields = { ...namesOf(delivery), attempt: delivery.attempt, status, reason: error, written };
    if (state === 'delivered') logger.info('webhook delivered', fields);
    else logger.warn(state === 'dead' ? 'webhook given up' : 'webhook not delivered', fields);
  }

  async #send(
    { merchantId, id, body, attempt }: TakenDelivery,
    { webhookId, url, sealed }: NonNullable<TakenDelivery['receiver']>,
  ): Promise<SendResult | { problem: 'secret cannot be opened' }> {
    const { secrets, sender, clock } = this.#parts;
    const timestamp = Math.floor(clock.now() / 1_000);
    const signature = secrets.sign({ merchantId, webhookId }, sealed, { id, timestamp, body });
    if (signature === undefined) return { problem: 'secret cannot be opened' };
    const headers = {
      'user-agent': 'merchant-bedrock-webhooks/1',
      'webhook-id': id,
      'webhook-timestamp': String(timestamp),
      'webhook-signature': signature,
    };
    return sender.send({ url, body, headers, attempt, signal: this.#stop.signal });
  }
}

/** What an answer, or the lack of one, means. Only 2xx is success; a redirect is not followed, because nobody checked where it leads. */
export function resultOf(
  sent: { status: number } | { problem: string },
  attempt: number,
  random: number,
): DeliveryResult {
  if ('status' in sent && sent.status >= 200 && sent.status < 300)
    return { state: 'delivered', status: sent.status };
  // An attempt that we broke off says nothing of the receiver: the next process makes it again.
  if ('problem' in sent && sent.problem === 'stopped')
    return { state: 'pending', error: sent.problem, retrySeconds: 0 };
  const why =
    'problem' in sent ? { error: sent.problem } : { status: sent.status, error: wordsFor(sent.status) };
  if (why.status === 410) return { state: 'dead', gone: true, ...why };
  const wait = retrySeconds(attempt, random);
  return wait === undefined ? { state: 'dead', ...why } : { state: 'pending', retrySeconds: wait, ...why };
}

function wordsFor(status: number): string {
  if (status === 410) return 'the receiver wants no more';
  return status >= 300 && status < 400 ? 'redirects are not followed' : 'the receiver answered with an error';
}

function namesOf({ merchantId, id, event, receiver }: TakenDelivery): LogFields {
  return { merchantId, webhookId: receiver?.webhookId, deliveryId: id, event };
}

/** Of the alert what operators need. Who the end user is stays out: alertId leads to it. */
function alertFields({ merchantId, body }: TakenDelivery): LogFields {
  const { data } = JSON.parse(body) as { data: Record<string, string | number | null> };
  const { alertId, kind, scope, limit, percent, used, max } = data;
  return { merchantId, alertId, kind, scope, limit, percent, used, max };
}
