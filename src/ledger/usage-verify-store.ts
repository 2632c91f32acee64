import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { Database } from '../persistence/database.ts';

/** A counter, a sum or a cost that is not what the rows say. */
export interface Difference {
  what: 'counter' | 'usage' | 'cost';
  /** Which: the parts of its key, or the id of a call. */
  key: string;
  /** As it stands; null where it is missing. */
  kept: unknown;
  /** As the rows say; null where there are none. */
  counted: unknown;
}

export interface Verification {
  /** Nothing, always. At most the first 100; `checked.differences` counts them all. */
  differences: Difference[];
  checked: { at: string; calls: number; counters: number; sums: number; differences: number };
}

/** Reads every row of a merchant: half a minute for a million. */
const TIMEOUT_MS = 180_000;
const SHOWN_MAX = 100;
/** Each holds a connection for as long as it takes; the rest of the pool is for calls. */
const RUNNING_MAX = 2;

/** Recomputes what is counted from the rows, and compares: ledger_differences() in prisma/migrations, in one snapshot. */
export class UsageVerifyStore {
  readonly #database: Database;
  #running = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws ServiceError service.overloaded when too many run in this process; ledger.unavailable when it takes over three minutes. */
  async verify(merchantId: MerchantId): Promise<Verification> {
    if (this.#running >= RUNNING_MAX)
      throw new ServiceError('service.overloaded', 'Other verifications are running. Try again shortly.', {
        retryAfterSeconds: 5,
      });
    this.#running += 1;
    try {
      return await this.#verify(merchantId);
    } finally {
      this.#running -= 1;
    }
  }

  #verify(merchantId: MerchantId): Promise<Verification> {
    return this.#database.asTenant(
      merchantId,
      async (tx) => {
        // Before the snapshot: else a month that is retired meanwhile would be in neither its rows nor its opening balances.
        await tx.$executeRaw`LOCK TABLE calls IN ACCESS SHARE MODE`;
        const rows = await tx.$queryRaw<{ verification: Verification }[]>`
          WITH found AS MATERIALIZED (SELECT * FROM ledger_differences())
          SELECT json_build_object(
            'differences', (SELECT coalesce(json_agg(f), '[]') FROM (SELECT * FROM found ORDER BY what, key LIMIT ${SHOWN_MAX}::integer) AS f),
            'checked', json_build_object(
              'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
              'calls', (SELECT count(*) FROM calls WHERE merchant_id = ${merchantId}),
              'counters', (SELECT count(*) FROM counters WHERE merchant_id = ${merchantId}),
              'sums', (SELECT count(*) FROM usage_days WHERE merchant_id = ${merchantId}),
              'differences', (SELECT count(*) FROM found))) AS verification`;
        if (rows[0] === undefined) throw new Error('no answer');
        return rows[0].verification;
      },
      { timeoutMs: TIMEOUT_MS },
    );
  }
}
