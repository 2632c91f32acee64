import type { Alert } from '../domain/alerts.ts';
import type { Actor } from '../domain/audit.ts';
import type { MerchantId, WebhookId } from '../domain/ids.ts';
import type { Database } from '../persistence/database.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Alert as AlertRow } from '../generated/prisma/client.ts';
import type { Page } from './usage.ts';
import type {
  Delivery,
  DeliveryResult,
  DeliveryState,
  NewWebhook,
  TakenDelivery,
  Webhook,
} from './webhook-delivery.ts';
import type { WebhookName } from './webhook-secrets.ts';

interface TakenRow {
  merchant_id: string;
  id: string;
  lease: string;
  attempt: number;
  event: string;
  body: string;
  webhook_id: string | null;
  url: string | null;
  sealed: Uint8Array | null;
}

interface Sealed extends WebhookName {
  sealed: Uint8Array;
}

/** One merchant may have this many attempts in one taking. */
const EACH_MAX = 4;

/** Webhooks, their outbox, and the alerts that fill it. Written by functions of the database (prisma/migrations). */
export class WebhookStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @returns false when the merchant has `most` already. */
  async create(actor: Actor, merchantId: MerchantId, webhook: NewWebhook, most: number): Promise<boolean> {
    const { sealed, ...facts } = webhook;
    const rows = await this.#database.query<{ outcome: string }>(
      Prisma.sql`SELECT webhook_create(${merchantId}, ${JSON.stringify(facts)}::jsonb, ${sealed}, ${most}::integer, ${actor.subject}, ${actor.requestId}) AS outcome`,
    );
    return rows[0]?.outcome === 'done';
  }

  /** Oldest first; never with the secret, not even sealed. */
  list(merchantId: MerchantId): Promise<Webhook[]> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.webhook.findMany({
        where: { merchantId },
        omit: { sealed: true, merchantId: true },
        orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
      });
      return rows.map(({ createdAt, ...row }) => ({ ...row, createdAt: createdAt.toISOString() }) as Webhook);
    });
  }

  /** @returns false when there is none. */
  async delete(actor: Actor, merchantId: MerchantId, id: WebhookId): Promise<boolean> {
    const rows = await this.#database.query<{ deleted: boolean }>(
      Prisma.sql`SELECT webhook_delete(${merchantId}, ${id}, ${actor.subject}, ${actor.requestId}) AS deleted`,
    );
    return rows[0]?.deleted === true;
  }

  /** @returns the id of the delivery, or `webhook` (there is none), `disabled`. */
  async test(actor: Actor, merchantId: MerchantId, id: WebhookId): Promise<string> {
    const rows = await this.#database.query<{ outcome: string }>(
      Prisma.sql`SELECT webhook_test(${merchantId}, ${id}, ${actor.subject}, ${actor.requestId}) AS outcome`,
    );
    return rows[0]?.outcome ?? 'webhook';
  }

  /** @returns `done`, or what is in the way: `webhook`, `delivery` (there is none), `disabled`, `pending`. */
  async replay(actor: Actor, merchantId: MerchantId, id: WebhookId, deliveryId: string): Promise<string> {
    const rows = await this.#database.query<{ outcome: string }>(
      Prisma.sql`SELECT webhook_replay(${merchantId}, ${id}, ${deliveryId}::uuid, ${actor.subject}, ${actor.requestId}) AS outcome`,
    );
    return rows[0]?.outcome ?? 'webhook';
  }

  /** Newest first; undefined when there is no such webhook. */
  deliveries(
    merchantId: MerchantId,
    webhookId: WebhookId,
    { size, cursor, state }: { size: number; cursor?: string | undefined; state?: DeliveryState | undefined },
  ): Promise<Page<Delivery> | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const found = await tx.webhook.count({ where: { merchantId, id: webhookId } });
      if (found === 0) return undefined;
      const rows = await tx.webhookDelivery.findMany({
        where: { merchantId, webhookId, ...(state && { state }), ...(cursor && { id: { lt: cursor } }) },
        omit: { merchantId: true, webhookId: true, body: true, lease: true },
        orderBy: { id: 'desc' },
        take: size + 1,
      });
      const items = rows.map(({ nextAt, deliveredAt, ...row }) => ({
        ...row,
        nextAt: row.state === 'pending' ? nextAt.toISOString() : null,
        deliveredAt: deliveredAt?.toISOString() ?? null,
      })) as Delivery[];
      return pageOf(items, size);
    });
  }

  /** Newest first. */
  alerts(merchantId: MerchantId, size: number, cursor?: string): Promise<Page<Alert>> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const where = { merchantId, ...(cursor !== undefined && { id: { lt: cursor } }) };
      const rows = await tx.alert.findMany({ where, orderBy: { id: 'desc' }, take: size + 1 });
      return pageOf(rows.map(toAlert), size);
    });
  }

  /**
   * Takes what is due, for `leaseSeconds`; nobody else has it until then.
   * @param busy merchants that have enough under way.
   */
  async take(limit: number, leaseSeconds: number, busy: readonly MerchantId[]): Promise<TakenDelivery[]> {
    const rows = await this.#database.query<TakenRow>(
      Prisma.sql`SELECT * FROM webhook_deliveries_take(${limit}::integer, ${leaseSeconds}::double precision, ${EACH_MAX}::integer, ${[...busy]}::text[])`,
    );
    return rows.map(toTaken);
  }

  /** @returns false when the attempt was given up meanwhile, or its webhook deleted or disabled. */
  async done({ merchantId, id, lease }: TakenDelivery, result: DeliveryResult): Promise<boolean> {
    const rows = await this.#database.query<{ written: boolean }>(
      Prisma.sql`SELECT webhook_delivery_done(${merchantId}, ${id}::uuid, ${lease}::uuid, ${JSON.stringify(result)}::jsonb) AS written`,
    );
    return rows[0]?.written === true;
  }

  /** Secrets that are sealed with another key than this one, in order of merchant and webhook, from behind `after` on. */
  async sealedOtherwise(keyId: Uint8Array, after: WebhookName | undefined, limit: number): Promise<Sealed[]> {
    const rows = await this.#database.query<{ merchant_id: string; id: string; sealed: Uint8Array }>(
      Prisma.sql`SELECT * FROM webhooks_sealed_otherwise(${keyId}, ${after?.merchantId ?? ''}, ${after?.webhookId ?? ''}, ${limit}::integer)`,
    );
    return rows.map((row) => ({
      merchantId: row.merchant_id as MerchantId,
      webhookId: row.id as WebhookId,
      sealed: row.sealed,
    }));
  }

  async reseal(
    merchantId: MerchantId,
    id: WebhookId,
    change: { before: Uint8Array; after: Uint8Array },
  ): Promise<void> {
    await this.#database.query(
      Prisma.sql`SELECT webhook_reseal(${merchantId}, ${id}, ${change.before}, ${change.after})`,
    );
  }
}

/** @param rows one more than a page holds, if there are more. */
function pageOf<Item extends { id: string }>(rows: Item[], size: number): Page<Item> {
  const items = rows.slice(0, size);
  const last = items.at(-1);
  return rows.length > size && last !== undefined ? { items, nextCursor: last.id } : { items };
}

function toTaken(row: TakenRow): TakenDelivery {
  const { id, lease, attempt, event, body } = row;
  return {
    merchantId: row.merchant_id as MerchantId,
    id,
    lease,
    attempt,
    event,
    body,
    ...(row.webhook_id !== null &&
      row.url !== null &&
      row.sealed !== null && {
        receiver: { webhookId: row.webhook_id as WebhookId, url: row.url, sealed: row.sealed },
      }),
  };
}

function toAlert(row: AlertRow): Alert {
  return {
    id: row.id,
    kind: row.kind as Alert['kind'],
    scope: row.scope,
    scopeId: row.scopeId === '' ? null : row.scopeId,
    limit: row.limitName,
    periodStartsAt: row.startsAt.toISOString(),
    percent: row.threshold,
    used: Number(row.used),
    max: row.maximum === null ? null : Number(row.maximum),
    callId: row.callId,
    createdAt: row.createdAt.toISOString(),
  };
}
