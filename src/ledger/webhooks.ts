import { ALERT_EVENTS } from '../domain/alerts.ts';
import type { AlertEvent } from '../domain/alerts.ts';
import type { Actor } from '../domain/audit.ts';
import { ServiceError } from '../domain/errors.ts';
import { newWebhookId } from '../domain/ids.ts';
import type { MerchantId, WebhookId } from '../domain/ids.ts';
import type { Page } from './usage.ts';
import type { Delivery, Webhook } from './webhook-delivery.ts';
import type { WebhookSecrets } from './webhook-secrets.ts';
import type { WebhookStore } from './webhook-store.ts';
import { hostOf, urlProblem } from './webhook-target.ts';
import type { TargetRules } from './webhook-target.ts';

export interface WebhooksParts {
  store: Pick<WebhookStore, 'alerts' | 'create' | 'delete' | 'deliveries' | 'list' | 'replay' | 'test'>;
  secrets: WebhookSecrets;
  rules: TargetRules;
}

const WEBHOOKS_MAX = 10;

/** What merchants do with their webhooks. Sending is webhook-deliverer.ts's. */
export class Webhooks {
  readonly #parts: WebhooksParts;

  constructor(parts: WebhooksParts) {
    this.#parts = parts;
  }

  /**
   * @returns the webhook's id and its signing secret, which is shown this one time.
   * @throws ServiceError request.invalid (the URL) | webhook.too_many | ledger.unavailable
   */
  async create(
    actor: Actor,
    merchantId: MerchantId,
    { url, events = ALERT_EVENTS }: { url: string; events?: readonly AlertEvent[] | undefined },
  ): Promise<{ id: WebhookId; secret: string; url: string; events: readonly AlertEvent[] }> {
    const { store, secrets, rules } = this.#parts;
    const problem = urlProblem(url, rules);
    if (problem !== undefined)
      throw new ServiceError('request.invalid', 'Nothing can be sent to this address.', {
        problems: [`url: ${problem}`],
      });
    const id = newWebhookId();
    const { secret, sealed } = secrets.make({ merchantId, webhookId: id });
    const webhook = { id, url, host: hostOf(new URL(url)), events, sealed };
    if (!(await store.create(actor, merchantId, webhook, WEBHOOKS_MAX)))
      throw new ServiceError(
        'webhook.too_many',
        `A merchant has at most ${String(WEBHOOKS_MAX)} webhooks. Delete one first.`,
      );
    return { id, secret, url, events };
  }

  list(merchantId: MerchantId): Promise<Webhook[]> {
    return this.#parts.store.list(merchantId);
  }

  alerts: WebhookStore['alerts'] = (...args) => this.#parts.store.alerts(...args);

  /** @throws ServiceError webhook.not_found | ledger.unavailable */
  async delete(actor: Actor, merchantId: MerchantId, id: WebhookId | undefined): Promise<void> {
    if (id === undefined || !(await this.#parts.store.delete(actor, merchantId, id)))
      throw refusal('webhook');
  }

  /**
   * Puts a test event into the outbox.
   * @returns the id of the delivery. @throws ServiceError webhook.not_found | webhook.disabled | ledger.unavailable
   */
  async test(actor: Actor, merchantId: MerchantId, id: WebhookId | undefined): Promise<string> {
    if (id === undefined) throw refusal('webhook');
    const outcome = await this.#parts.store.test(actor, merchantId, id);
    if (outcome === 'webhook' || outcome === 'disabled') throw refusal(outcome);
    return outcome;
  }

  /** @throws ServiceError webhook.not_found | ledger.unavailable */
  async deliveries(
    merchantId: MerchantId,
    id: WebhookId | undefined,
    page: Parameters<WebhookStore['deliveries']>[2],
  ): Promise<Page<Delivery>> {
    const found = id === undefined ? undefined : await this.#parts.store.deliveries(merchantId, id, page);
    if (found === undefined) throw refusal('webhook');
    return found;
  }

  /**
   * Sends a delivery that is over once more, under the same id.
   * @throws ServiceError webhook.not_found | webhook.delivery_not_found | webhook.delivery_pending | webhook.disabled | ledger.unavailable
   */
  async replay(
    actor: Actor,
    merchantId: MerchantId,
    { id, deliveryId }: { id: WebhookId | undefined; deliveryId: string },
  ): Promise<void> {
    if (id === undefined) throw refusal('webhook');
    // What is no UUID names nothing; but whether the webhook is there is said first, as always.
    const named = UUID_PATTERN.test(deliveryId) ? deliveryId : NO_DELIVERY;
    const outcome = await this.#parts.store.replay(actor, merchantId, id, named);
    if (outcome !== 'done') throw refusal(outcome);
  }
}

const UUID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NO_DELIVERY = '00000000-0000-0000-0000-000000000000';

/** What the store names as missing or in the way, as an error. */
function refusal(what: string): ServiceError {
  switch (what) {
    case 'disabled':
      return new ServiceError(
        'webhook.disabled',
        'The receiver answered 410, so nothing is sent to this webhook any more. Delete it and create a new one.',
      );
    case 'delivery':
      return new ServiceError(
        'webhook.delivery_not_found',
        'This webhook has no such delivery. GET …/webhooks/:wid/deliveries lists them.',
      );
    case 'pending':
      return new ServiceError(
        'webhook.delivery_pending',
        'This delivery is not over: it is sent or tried again by itself. Its nextAt says when.',
      );
    default:
      return new ServiceError(
        'webhook.not_found',
        'This merchant has no such webhook. GET …/webhooks lists them.',
      );
  }
}
