import type { AlertEvent } from '../domain/alerts.ts';
import type { MerchantId, WebhookId } from '../domain/ids.ts';

/** An address that a merchant's alerts are sent to. */
export interface Webhook {
  id: WebhookId;
  url: string;
  events: AlertEvent[];
  /** `disabled` when the receiver answered 410. */
  state: 'active' | 'disabled';
  createdAt: string;
  createdBy: string;
}

/** As the store writes it. `host` is all that the audit trail is told of the URL, which may hold a secret of the receiver's. */
export interface NewWebhook {
  id: WebhookId;
  url: string;
  host: string;
  events: readonly AlertEvent[];
  sealed: Uint8Array;
}

export const DELIVERY_STATES = ['pending', 'delivered', 'dead'] as const;
export type DeliveryState = (typeof DELIVERY_STATES)[number];

/** One event for one webhook. `id` is what the receiver sees as `webhook-id`. */
export interface Delivery {
  id: string;
  alertId: string | null;
  event: string;
  state: DeliveryState;
  attempts: number;
  /** Null when nothing more will be tried. */
  nextAt: string | null;
  lastStatus: number | null;
  lastError: string | null;
  deliveredAt: string | null;
}

/** One attempt that this process took from the outbox; nobody else has it until its lease ends. */
export interface TakenDelivery {
  merchantId: MerchantId;
  /** A UUID, sent as `webhook-id`: the same for every attempt. */
  id: string;
  lease: string;
  /** From 1. */
  attempt: number;
  event: string;
  /** JSON, sent and signed byte for byte. */
  body: string;
  /** Absent: the event is written to our log. */
  receiver?: { webhookId: WebhookId; url: string; sealed: Uint8Array };
}

/** What became of an attempt. */
export interface DeliveryResult {
  state: 'delivered' | 'pending' | 'dead';
  /** What the receiver answered. */
  status?: number;
  error?: string;
  retrySeconds?: number;
  /** The receiver wants no more: its webhook is disabled. */
  gone?: boolean;
}

const FIRST_RETRY_SECONDS = 5;
const LAST_RETRY_SECONDS = 6 * 3_600;
/** The first and ten more. */
export const ATTEMPTS_MAX = 11;

/**
 * How long to wait after an attempt that failed; undefined after the last one. Four times as long each time, six hours at most:
 * 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 5.7 h, then 6 h three times, 25 hours in all. A fifth more or less, so that many do not come back at once.
 * @param random from 0 to 1
 */
export function retrySeconds(attempt: number, random: number): number | undefined {
  if (attempt >= ATTEMPTS_MAX) return undefined;
  const wait = Math.min(FIRST_RETRY_SECONDS * 4 ** (attempt - 1), LAST_RETRY_SECONDS);
  return wait * (0.8 + 0.4 * random);
}
