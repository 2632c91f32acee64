import type { AuditEntry } from '../domain/audit.ts';
import type { Tx } from './database.ts';

/**
 * Appends to a merchant's audit chain inside the transaction of what it records: both are committed or neither.
 * @param chain a merchant id, or SYSTEM_CHAIN.
 * @returns the event's sequence number.
 */
export async function appendAudit(tx: Tx, chain: string, entry: AuditEntry): Promise<number> {
  const [row] = await tx.$queryRaw<
    { seq: bigint }[]
  >`SELECT audit_append(${chain}, ${entry.actor}, ${entry.action}, ${entry.resource}, ${entry.outcome},
    ${entry.requestId}, ${JSON.stringify(entry.body ?? {})}) AS seq`;
  return Number(row?.seq);
}
