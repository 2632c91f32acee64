import type { MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Call } from '../generated/prisma/client.ts';
import type { Database, Tx } from '../persistence/database.ts';
import type {
  MerchantUsage,
  Page,
  Timeframe,
  UsageGroup,
  UsageRecord,
  UsageReport,
  UsageSums,
} from './usage.ts';

interface SumRow {
  settled: bigint;
  voided: bigint;
  unknown: bigint;
  input_tokens: bigint;
  output_tokens: bigint;
  cache_read_tokens: bigint;
  cache_write_5m_tokens: bigint;
  cache_write_1h_tokens: bigint;
}

/** The columns of usage_days by which a report may be grouped. Text of ours, never of a request. */
const GROUP_COLUMNS: Record<UsageGroup, Prisma.Sql> = {
  model: Prisma.sql`model_id`,
  credential: Prisma.sql`credential_id`,
  source: Prisma.sql`credential_source`,
  apiKey: Prisma.sql`api_key_id`,
  day: Prisma.sql`day::text`,
};

const SUMS = Prisma.sql`sum(settled)::bigint AS settled, sum(voided)::bigint AS voided, sum(unknown)::bigint AS unknown,
  sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
  sum(cache_read_tokens)::bigint AS cache_read_tokens, sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
  sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens`;

/** What a record shows of a row. */
const RECORD = {
  id: true,
  state: true,
  operation: true,
  modelId: true,
  baseModelId: true,
  region: true,
  accountId: true,
  credentialSource: true,
  credentialId: true,
  credentialVersion: true,
  subject: true,
  apiKeyId: true,
  endUser: true,
  requestId: true,
  createdAt: true,
  resolvedAt: true,
  reason: true,
  provenance: true,
  inputTokens: true,
  outputTokens: true,
  cacheReadTokens: true,
  cacheWrite5mTokens: true,
  cacheWrite1hTokens: true,
  images: true,
  tier: true,
  maxTokens: true,
  holdTokens: true,
  holdNano: true,
  costNano: true,
  awsStatus: true,
  awsErrorType: true,
  awsRequestId: true,
  latencyMs: true,
  timeToFirstByteMs: true,
} as const satisfies Prisma.CallSelect;

/** Reads of the ledger. Reports read the sums by day, never the calls; records are read by key, newest first. */
export class UsageStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  report(merchantId: MerchantId, timeframe: Timeframe, groupBy: readonly UsageGroup[]): Promise<UsageReport> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const { from, to } = await period(tx, timeframe);
      const columns = groupBy.map((group) => GROUP_COLUMNS[group]);
      const rows = await tx.$queryRaw<(SumRow & Record<string, string>)[]>(
        columns.length === 0
          ? Prisma.sql`SELECT ${SUMS} FROM usage_days WHERE merchant_id = ${merchantId} AND end_user = '*' AND day >= ${from}::date AND day < ${to}::date HAVING count(*) > 0`
          : Prisma.sql`SELECT ${Prisma.join(
              columns.map((column, index) => Prisma.sql`${column} AS ${Prisma.raw(`"g${String(index)}"`)}`),
            )}, ${SUMS} FROM usage_days WHERE merchant_id = ${merchantId} AND end_user = '*' AND day >= ${from}::date AND day < ${to}::date
              GROUP BY ${Prisma.join(columns)} ORDER BY ${Prisma.join(columns)}`,
      );
      const groups = rows.map((row) => ({
        key: Object.fromEntries(groupBy.map((group, index) => [group, row[`g${String(index)}`] || null])),
        ...toSums(row),
      }));
      return { timeframe, from, to, ...addUp(groups), groups: groupBy.length === 0 ? [] : groups };
    });
  }

  /** @param before the id after which to go on (UUIDv7: ids are in the order of time). */
  records(merchantId: MerchantId, limit: number, before?: string): Promise<Page<UsageRecord>> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.call.findMany({
        where: { merchantId, ...(before !== undefined && { id: { lt: before } }) },
        orderBy: { id: 'desc' },
        take: limit + 1,
        select: RECORD,
      });
      const items = rows.slice(0, limit).map(toRecord);
      const last = items.at(-1);
      return rows.length > limit && last !== undefined ? { items, nextCursor: last.id } : { items };
    });
  }

  /** All merchants, for operators: one page of sums, by merchant id. */
  async byMerchant(
    timeframe: Timeframe,
    limit: number,
    after = '',
  ): Promise<Page<MerchantUsage> & { from: string; to: string }> {
    const { from, to } = await period(this.#database, timeframe);
    const rows = await this.#database.query<SumRow & { merchant_id: MerchantId }>(
      Prisma.sql`SELECT * FROM ops_usage(${from}::date, ${to}::date, ${after}, ${limit + 1}::integer)`,
    );
    const items = rows.slice(0, limit).map((row) => ({ merchantId: row.merchant_id, ...toSums(row) }));
    const last = items.at(-1);
    return {
      from,
      to,
      items,
      ...(rows.length > limit && last !== undefined && { nextCursor: last.merchantId }),
    };
  }
}

/** The running day, ISO week, month or year in UTC, by the database's clock. */
async function period(on: Tx | Database, timeframe: Timeframe): Promise<{ from: string; to: string }> {
  const sql = Prisma.sql`SELECT date_trunc(${timeframe}, now() AT TIME ZONE 'UTC')::date::text AS from,
    ((now() AT TIME ZONE 'UTC')::date + 1)::text AS to`;
  const rows =
    '$queryRaw' in on
      ? await on.$queryRaw<{ from: string; to: string }[]>(sql)
      : await on.query<{ from: string; to: string }>(sql);
  if (rows[0] === undefined) throw new Error('no period');
  return rows[0];
}

function toSums(row: SumRow): UsageSums {
  const [input, output] = [Number(row.input_tokens), Number(row.output_tokens)];
  const [cacheRead, cacheWrite5m, cacheWrite1h] = [
    Number(row.cache_read_tokens),
    Number(row.cache_write_5m_tokens),
    Number(row.cache_write_1h_tokens),
  ];
  return {
    calls: { settled: Number(row.settled), void: Number(row.voided), unknown: Number(row.unknown) },
    tokens: {
      input,
      output,
      cacheRead,
      cacheWrite5m,
      cacheWrite1h,
      total: input + output + cacheRead + cacheWrite5m + cacheWrite1h,
    },
  };
}

function addUp(groups: readonly UsageSums[]): UsageSums {
  const sums: UsageSums = {
    calls: { settled: 0, void: 0, unknown: 0 },
    tokens: { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0, total: 0 },
  };
  for (const group of groups) {
    for (const name of Object.keys(sums.calls) as (keyof UsageSums['calls'])[])
      sums.calls[name] += group.calls[name];
    for (const name of Object.keys(sums.tokens) as (keyof UsageSums['tokens'])[])
      sums.tokens[name] += group.tokens[name];
  }
  return sums;
}

function toRecord(call: Pick<Call, keyof typeof RECORD>): UsageRecord {
  const {
    inputTokens,
    outputTokens,
    cacheReadTokens,
    cacheWrite5mTokens,
    cacheWrite1hTokens,
    holdNano,
    costNano,
    ...facts
  } = call;
  return {
    ...facts,
    createdAt: call.createdAt.toISOString(),
    resolvedAt: call.resolvedAt?.toISOString() ?? null,
    maxTokens: toNumber(call.maxTokens),
    holdTokens: Number(call.holdTokens),
    holdNanoUsd: toNumber(holdNano),
    costNanoUsd: toNumber(costNano),
    tokens: {
      input: Number(inputTokens),
      output: Number(outputTokens),
      cacheRead: Number(cacheReadTokens),
      cacheWrite5m: Number(cacheWrite5mTokens),
      cacheWrite1h: Number(cacheWrite1hTokens),
    },
  };
}

/** Tokens and nano-USD of one call are far below 2^53. */
function toNumber(value: bigint | null): number | null {
  return value === null ? null : Number(value);
}
