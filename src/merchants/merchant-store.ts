import type { Actor } from '../domain/audit.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import type { Merchant } from '../domain/merchant.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Merchant as MerchantRow } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import { isUniqueViolation } from '../persistence/errors.ts';

/** What an operator says of a new merchant. */
export interface NewMerchant {
  id: MerchantId;
  name: string;
  directAllowed: boolean;
  serviceDefaultsAllowed: boolean;
  regions: readonly string[];
}

/** What closing did. */
export interface ClosedMerchant {
  /** False when it was closed before. */
  closed: boolean;
  /** How many of what were revoked, destroyed or deleted; empty when it was closed before. */
  counts: { apiKeys?: number; credentials?: number; dataKeys?: number; webhooks?: number; answers?: number };
  /** Names of what lies in Secrets Manager and cannot be opened any more. */
  secrets: string[];
}

interface OpsRow {
  id: MerchantId;
  name: string;
  status: string;
  direct_allowed: boolean;
  service_defaults_allowed: boolean;
  regions: string[];
  created_at: Date;
}

export class MerchantStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  find(merchantId: MerchantId): Promise<Merchant | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const row = await tx.merchant.findUnique({ where: { id: merchantId } });
      return row ? toMerchant(row) : undefined;
    });
  }

  /**
   * Writes a merchant and its audit record in the caller's transaction, which must be of that merchant.
   * @throws ServiceError merchant.already_exists
   */
  async insert(tx: Tx, actor: Actor, merchant: NewMerchant): Promise<void> {
    try {
      await tx.merchant.create({
        data: { ...merchant, regions: [...merchant.regions] },
        select: { id: true },
      });
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new ServiceError(
        'merchant.already_exists',
        `A merchant "${merchant.id}" exists already. Choose another id. More API keys for that one are made with one of its own: POST …/api-keys.`,
      );
    }
    await appendAudit(tx, merchant.id, {
      actor: actor.subject,
      action: 'merchant.created',
      resource: `merchant/${merchant.id}`,
      outcome: 'allowed',
      requestId: actor.requestId,
      body: {
        directAllowed: merchant.directAllowed,
        serviceDefaultsAllowed: merchant.serviceDefaultsAllowed,
        regions: merchant.regions,
      },
    });
  }

  /**
   * Closes a merchant for good: see prisma/migrations, merchant_close. Closing it again changes nothing.
   * @returns undefined when there is no such merchant. @throws ServiceError ledger.unavailable
   */
  async close(actor: Actor, merchantId: MerchantId, reason?: string): Promise<ClosedMerchant | undefined> {
    const [row] = await this.#database.query<{ answer: ClosedMerchant | null }>(
      Prisma.sql`SELECT merchant_close(${merchantId}, ${reason ?? null}, ${actor.subject}, ${actor.requestId}) AS answer`,
    );
    return row?.answer ?? undefined;
  }

  /** All merchants, for operators, by id. */
  async list(
    limit: number,
    after = '',
  ): Promise<{
    items: (Omit<Merchant, 'defaultCredentialId' | 'revision' | 'plan'> & { createdAt: string })[];
    nextCursor?: string;
  }> {
    const rows = await this.#database.query<OpsRow>(
      Prisma.sql`SELECT * FROM ops_merchants(${after}, ${limit + 1}::integer)`,
    );
    const items = rows.slice(0, limit).map((row) => ({
      id: row.id,
      name: row.name,
      status: row.status as Merchant['status'],
      directAllowed: row.direct_allowed,
      serviceDefaultsAllowed: row.service_defaults_allowed,
      regions: row.regions,
      createdAt: row.created_at.toISOString(),
    }));
    const last = items.at(-1);
    return rows.length > limit && last !== undefined ? { items, nextCursor: last.id } : { items };
  }
}

function toMerchant(row: MerchantRow): Merchant {
  return {
    id: row.id as MerchantId,
    name: row.name,
    status: row.status as Merchant['status'],
    directAllowed: row.directAllowed,
    serviceDefaultsAllowed: row.serviceDefaultsAllowed,
    regions: row.regions,
    revision: Number(row.revision),
    plan: `${row.planId}@${String(row.planVersion)}`,
    ...(row.defaultCredentialId !== null && { defaultCredentialId: row.defaultCredentialId as CredentialId }),
  };
}
