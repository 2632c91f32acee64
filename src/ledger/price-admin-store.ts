import type { Actor } from '../domain/audit.ts';
import type { MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { Price } from './price.ts';

/** How many prices an import added, changed and removed. */
export interface Imported {
  added: number;
  changed: number;
  removed: number;
}

/** Which calls to rate again, and why. */
export interface RerateOrder {
  /** Calls that began at or after this moment, UTC. */
  from: Date;
  /** And before this one. */
  to: Date;
  reason: string;
  /** Counts and writes nothing. */
  dryRun: boolean;
}

/** What rating calls again came to. */
export interface Rerated {
  /** Settled calls that were looked at. */
  calls: number;
  /** Those that stood at something else than the price in force now. */
  corrected: number;
  /** What they cost more, or less, in all. */
  deltaNanoUsd: bigint;
  /** Calls that stay as they stand: there is no price for their model, or for a kind of their tokens. */
  withoutPrice: number;
}

const MERCHANTS_PAGE = 200;

/**
 * What an administrator does to prices: with a login that owns the tables, which the service's own login does not (npm run prices).
 * Both are functions of the database (prisma/migrations).
 */
export class PriceAdminStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Names the book as it is now: grows with every import that changes something. */
  async bookVersion(): Promise<bigint> {
    const [row] = await this.#database.query<{ version: bigint }>(
      Prisma.sql`SELECT coalesce(max(id), 0) AS version FROM prices`,
    );
    return row?.version ?? 0n;
  }

  /**
   * Makes `prices` the whole book: what is missing in it is withdrawn.
   * @param seen.version of the book that the digest was made against. @param seen.digest of the differences, for the audit trail.
   * @returns undefined when the book was changed since: then nothing was imported.
   */
  async import(
    actor: Actor,
    prices: readonly Price[],
    seen: { version: bigint; digest: string },
  ): Promise<Imported | undefined> {
    const [row] = await this.#database.query<{ imported: Imported | null }>(
      Prisma.sql`SELECT prices_import(${JSON.stringify(prices.map(toRow))}::jsonb, ${seen.version}::bigint, ${seen.digest},
        ${actor.subject}, ${actor.requestId}) AS imported`,
    );
    return row?.imported ?? undefined;
  }

  /** Merchants with usage in these days (UTC), by id. */
  async *merchants({ from, to }: RerateOrder): AsyncGenerator<MerchantId> {
    let after = '';
    for (;;) {
      const rows = await this.#database.query<{ merchant_id: MerchantId }>(
        Prisma.sql`SELECT merchant_id FROM ops_usage_page(${from.toISOString()}::date, ${to.toISOString()}::date + 1, NULL, false, false,
          ARRAY[${after}, '', ''], ${MERCHANTS_PAGE}::integer)`,
      );
      for (const row of rows) yield row.merchant_id;
      if (rows.length < MERCHANTS_PAGE) return;
      after = rows.at(-1)?.merchant_id ?? '';
    }
  }

  /**
   * Rates a merchant's calls again, a page in each transaction: when it fails on the way, running it again does the rest.
   * @returns undefined when there is no such merchant.
   */
  async rerate(actor: Actor, merchantId: MerchantId, order: RerateOrder): Promise<Rerated | undefined> {
    const sum: Rerated = { calls: 0, corrected: 0, deltaNanoUsd: 0n, withoutPrice: 0 };
    for (let after: string | null = null; ;) {
      const [page] = await this.#page(actor, merchantId, order, after);
      if (page === undefined) return undefined;
      sum.calls += page.calls;
      sum.corrected += page.corrected;
      sum.deltaNanoUsd += BigInt(page.delta_nano);
      sum.withoutPrice += page.without_price;
      if (page.next === null) return sum;
      after = page.next;
    }
  }

  #page(actor: Actor, merchantId: MerchantId, order: RerateOrder, after: string | null): Promise<PageRow[]> {
    const { from, to, reason, dryRun } = order;
    return this.#database.query<PageRow>(
      Prisma.sql`SELECT calls, corrected, delta_nano::text AS delta_nano, without_price, next
        FROM ledger_rerate(${merchantId}, ${from}::timestamptz, ${to}::timestamptz, ${actor.subject}, ${reason}, ${actor.requestId},
          ${dryRun}, ${after}::uuid)`,
    );
  }
}

interface PageRow {
  calls: number;
  corrected: number;
  delta_nano: string;
  without_price: number;
  next: string | null;
}

/** The members of a row of prices. Kinds without a price stay out of the JSON and are NULL; money is text, beyond what a number can hold. */
function toRow(price: Price): Record<string, unknown> {
  const { nanoUsdPerMillion: nano } = price;
  return {
    model_id: price.modelId,
    region: price.region,
    profile: price.profile,
    tier: price.tier,
    valid_from: new Date(price.validFromMs).toISOString(),
    input: nano.input?.toString(),
    output: nano.output?.toString(),
    cache_read: nano.cacheRead?.toString(),
    cache_write_5m: nano.cacheWrite5m?.toString(),
    cache_write_1h: nano.cacheWrite1h?.toString(),
    image: nano.image?.toString(),
    embedding: nano.embedding?.toString(),
    request: nano.request?.toString(),
    context_tokens: price.contextTokens,
    max_output_tokens: price.maxOutputTokens,
    source: price.source,
    source_date: price.sourceDate,
  };
}
