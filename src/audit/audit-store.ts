import type { AuditEntry } from '../domain/audit.ts';
import { SYSTEM_CHAIN } from '../domain/audit.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { AuditEvent as AuditRow } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import type { AuditEvent } from './audit.ts';
import { hex } from './hex.ts';

/** Reads of the audit chains, and records that stand alone. What records a change is written by that change's own transaction. */
export class AuditStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Appends one event to a merchant's chain, e.g. a refusal. */
  async append(merchantId: MerchantId, entry: AuditEntry): Promise<void> {
    await this.#database.asTenant(merchantId, (tx) => appendAudit(tx, merchantId, entry));
  }

  /** Appends to the operators' own chain. */
  async appendSystem(entry: AuditEntry): Promise<void> {
    await this.append(SYSTEM_CHAIN as MerchantId, entry);
  }

  /**
   * A page, newest first, as the chain was before this reading, which is recorded in the same transaction: what is not recorded is not read.
   * @param before go on below this sequence number.
   */
  list(
    merchantId: MerchantId,
    reading: AuditEntry,
    limit: number,
    before?: bigint,
  ): Promise<{ items: AuditEvent[]; nextCursor?: string }> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const recorded = BigInt(await appendAudit(tx, merchantId, reading));
      const rows = await tx.auditEvent.findMany({
        where: { merchantId, seq: { lt: before !== undefined && before < recorded ? before : recorded } },
        orderBy: { seq: 'desc' },
        take: limit + 1,
      });
      const items = rows.slice(0, limit).map(toEvent);
      const last = items.at(-1);
      return rows.length > limit && last !== undefined ? { items, nextCursor: String(last.seq) } : { items };
    });
  }

  /** A page of a chain in its own order, and the head that it must end at, both as of one moment; for the verifier and for exports, which have recorded the reading. */
  page(
    merchantId: MerchantId,
    after: number,
    limit: number,
  ): Promise<{ events: AuditEvent[]; head: { seq: number; hash: string } | undefined }> {
    const read = async (tx: Tx) => {
      const head = await tx.auditHead.findUnique({ where: { merchantId } });
      const rows = await tx.auditEvent.findMany({
        where: { merchantId, seq: { gt: after } },
        orderBy: { seq: 'asc' },
        take: limit,
      });
      return {
        events: rows.map(toEvent),
        head: head ? { seq: Number(head.seq), hash: hex(head.hash) } : undefined,
      };
    };
    return this.#database.asTenant(merchantId, read, { snapshot: true });
  }
}

function toEvent(row: AuditRow): AuditEvent {
  return {
    merchantId: row.merchantId,
    seq: Number(row.seq),
    atMicros: String(row.atMicros),
    at: timeOf(row.atMicros),
    actor: row.actor,
    action: row.action,
    resource: row.resource,
    outcome: row.outcome,
    requestId: row.requestId,
    body: row.body,
    prevHash: hex(row.prevHash),
    hash: hex(row.hash),
  };
}

/** Empty where there is no such time: the verifier, who compares it, finds it changed. */
function timeOf(micros: bigint): string {
  const time = new Date(Number(micros / 1000n));
  return Number.isNaN(time.getTime()) ? '' : time.toISOString();
}
