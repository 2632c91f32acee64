import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { BookedPrice, Profile, StoredPrice, Tier } from './price.ts';

interface Row {
  id: bigint;
  model_id: string;
  region: string;
  profile: Profile;
  tier: Tier;
  valid_from: Date;
  input: bigint | null;
  output: bigint | null;
  cache_read: bigint | null;
  cache_write_5m: bigint | null;
  cache_write_1h: bigint | null;
  image: bigint | null;
  embedding: bigint | null;
  request: bigint | null;
  context_tokens: number | null;
  max_output_tokens: number | null;
  source: string;
  source_date: string;
}

interface BookedRow extends Row {
  revision: number;
  imported_by: string;
  imported_at: Date;
}

/** Every key in its latest revision, but for those that were withdrawn. */
const BOOK = Prisma.sql`
  SELECT id, model_id, region, profile, tier, valid_from, input, output, cache_read, cache_write_5m, cache_write_1h, image, embedding,
    request, context_tokens, max_output_tokens, source, source_date::text AS source_date, revision, imported_by, imported_at
  FROM (SELECT DISTINCT ON (model_id, region, profile, tier, valid_from) *
        FROM prices ORDER BY model_id, region, profile, tier, valid_from, revision DESC) AS latest
  WHERE NOT withdrawn`;

const KEY = Prisma.sql`model_id, region, profile, tier, valid_from`;

/** The price book in Postgres. */
export class PriceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Every price that was not withdrawn, each in its latest revision, by key. */
  async all(): Promise<StoredPrice[]> {
    return (await this.#database.query<Row>(Prisma.sql`${BOOK} ORDER BY ${KEY}`)).map(toPrice);
  }

  /**
   * The same by key, in pages. @param query.modelId only this model's; @param query.after the id of the price after which to go on.
   * An id that is in no book is followed by nothing.
   */
  async list(query: {
    modelId?: string | undefined;
    limit: number;
    after?: bigint | undefined;
  }): Promise<{ items: BookedPrice[]; nextCursor?: string }> {
    const { modelId, limit, after } = query;
    const rows = await this.#database.query<BookedRow>(Prisma.sql`
      SELECT * FROM (${BOOK}) AS book
      WHERE (${modelId ?? null}::text IS NULL OR model_id = ${modelId ?? null}) AND (${after ?? null}::bigint IS NULL
        OR (${KEY}) > (SELECT p.model_id, p.region, p.profile, p.tier, p.valid_from FROM prices p WHERE p.id = ${after ?? null}))
      ORDER BY ${KEY} LIMIT ${limit + 1}::integer`);
    const items = rows.slice(0, limit).map((row) => ({
      ...toPrice(row),
      revision: row.revision,
      importedBy: row.imported_by,
      importedAt: row.imported_at.toISOString(),
    }));
    const last = items.at(-1);
    return rows.length > limit && last !== undefined ? { items, nextCursor: last.id.toString() } : { items };
  }
}

function toPrice(row: Row): StoredPrice {
  const kinds = {
    input: row.input,
    output: row.output,
    cacheRead: row.cache_read,
    cacheWrite5m: row.cache_write_5m,
    cacheWrite1h: row.cache_write_1h,
    image: row.image,
    embedding: row.embedding,
    request: row.request,
  };
  return {
    id: row.id,
    modelId: row.model_id,
    region: row.region,
    profile: row.profile,
    tier: row.tier,
    validFromMs: row.valid_from.getTime(),
    nanoUsdPerMillion: Object.fromEntries(Object.entries(kinds).filter(([, price]) => price !== null)),
    ...(row.context_tokens !== null && { contextTokens: row.context_tokens }),
    ...(row.max_output_tokens !== null && { maxOutputTokens: row.max_output_tokens }),
    source: row.source,
    sourceDate: row.source_date,
  };
}
