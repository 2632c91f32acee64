import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { Profile, StoredPrice, Tier } from './price.ts';

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

/** The price book in Postgres. */
export class PriceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Every price that was not withdrawn, each in its latest revision. */
  async all(): Promise<StoredPrice[]> {
    const rows = await this.#database.query<Row>(Prisma.sql`
      SELECT id, model_id, region, profile, tier, valid_from, input, output, cache_read, cache_write_5m, cache_write_1h, image, embedding,
        request, context_tokens, max_output_tokens, source, source_date::text AS source_date
      FROM (SELECT DISTINCT ON (model_id, region, profile, tier, valid_from) *
            FROM prices ORDER BY model_id, region, profile, tier, valid_from, revision DESC) AS latest
      WHERE NOT withdrawn`);
    return rows.map(toPrice);
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
