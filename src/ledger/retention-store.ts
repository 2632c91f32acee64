import type { Actor } from '../domain/audit.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** A month of the ledger that is older than what is kept. */
export interface OldMonth {
  /** Its first day, UTC: 2026-01-01. */
  month: string;
  /** Its partition, and its table in the schema `archive` later. */
  table: string;
  bytes: number;
  calls: number;
  /** Calls that are not resolved. Any of these keeps the month where it is. */
  held: number;
  unknown: number;
}

/** What came of retiring a month: it is gone to the archive, or what kept it, or there was no such month (any more). */
export type Retired =
  | { state: 'retired'; calls: number; merchants: number }
  | { state: 'blocked'; held: number; unknown: number }
  | { state: 'gone' };

/**
 * What an administrator does to old months of the ledger, with a login that owns the tables (npm run retention). The functions are the
 * database's (prisma/migrations).
 */
export class RetentionStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Months that ended `keepMonths` ago or earlier and are still in the ledger, oldest first. Reads every row of them. */
  oldMonths(keepMonths: number): Promise<OldMonth[]> {
    // Materialized: else the months' condition may be tried on the names of all tables, which are no months.
    return this.#database.query<OldMonth>(Prisma.sql`
      WITH p AS MATERIALIZED (
        SELECT c.relname::text AS name, to_date(right(c.relname, 7), 'YYYY_MM') AS month, pg_total_relation_size(c.oid) AS bytes
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'public.calls'::regclass)
      SELECT to_char(p.month, 'YYYY-MM-DD') AS month, p.name AS table, p.bytes::float8 AS bytes, coalesce(sum(n.calls), 0)::float8 AS calls,
        coalesce(sum(n.held), 0)::float8 AS held, coalesce(sum(n.unknown), 0)::float8 AS unknown
      FROM p LEFT JOIN LATERAL calls_of_month(p.month) AS n ON true
      WHERE month_after(p.month) <= (now() AT TIME ZONE 'UTC')::date - make_interval(months => ${keepMonths}::integer)
      GROUP BY p.month, p.name, p.bytes ORDER BY p.month`);
  }

  /** Moves one month to the archive, in one transaction. It gives up after three seconds when calls do not let it through. */
  async retire(actor: Actor, month: string): Promise<Retired> {
    const [row] = await this.#database.query<{ done: Answer | null }>(
      Prisma.sql`SELECT ledger_retire(${month}::date, ${actor.subject}, ${actor.requestId}) AS done`,
    );
    const done = row?.done ?? undefined;
    if (done === undefined) return { state: 'gone' };
    return 'held' in done ? { state: 'blocked', ...done } : { state: 'retired', ...done };
  }
}

type Answer = { calls: number; merchants: number } | { held: number; unknown: number };
