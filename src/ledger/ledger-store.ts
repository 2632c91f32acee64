import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome } from '../domain/usage.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { CallIntent, Verdict } from './call-intent.ts';

/** The ledger's two writes, each one statement and one commit (functions in prisma/migrations). */
export class LedgerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Admits and records a call, or says what is no longer live. */
  async open(merchantId: MerchantId, intent: CallIntent): Promise<{ verdict: Verdict; id?: CallId }> {
    const rows = await this.#database.query<{ opened: { verdict: Verdict; id?: CallId } }>(
      Prisma.sql`SELECT ledger_open(${merchantId}, ${JSON.stringify(intent)}::jsonb) AS opened`,
    );
    return rows[0]?.opened ?? { verdict: 'merchant' };
  }

  /** Resolves a call; false when another resolution came first. */
  async resolve(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<boolean> {
    const rows = await this.#database.query<{ won: boolean }>(
      Prisma.sql`SELECT ledger_resolve(${merchantId}, ${id}::uuid, ${JSON.stringify(toRow(outcome))}::jsonb) AS won`,
    );
    return rows[0]?.won ?? false;
  }

  /** Calls whose deadline passed while held, oldest first: their process died or lost the database. */
  overdue(limit: number): Promise<{ merchant_id: MerchantId; id: CallId }[]> {
    return this.#database.query(
      Prisma.sql`SELECT merchant_id, id::text FROM overdue_calls(${limit}::integer)`,
    );
  }

  /** Makes the partitions of the next months; safe to repeat. */
  async makePartitions(months: number): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT ledger_make_partitions(${months}::integer)::text`);
  }
}

function toRow(outcome: CallOutcome): Record<string, unknown> {
  const { status, errorType, awsRequestId, latencyMs, timeToFirstByteMs } = outcome.upstream;
  return {
    state: outcome.state,
    awsStatus: status,
    awsErrorType: errorType,
    awsRequestId,
    latencyMs: latencyMs === undefined ? undefined : Math.round(latencyMs),
    timeToFirstByteMs: timeToFirstByteMs === undefined ? undefined : Math.round(timeToFirstByteMs),
    ...(outcome.state === 'settled' ? toUsage(outcome) : { reason: outcome.reason }),
  };
}

function toUsage({ usage }: CallOutcome & { state: 'settled' }): Record<string, unknown> {
  return {
    provenance: usage.provenance,
    inputTokens: usage.tokens.input,
    outputTokens: usage.tokens.output,
    cacheReadTokens: usage.tokens.cacheRead,
    cacheWrite5mTokens: usage.tokens.cacheWrite5m,
    cacheWrite1hTokens: usage.tokens.cacheWrite1h,
  };
}
