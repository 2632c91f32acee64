import type { MerchantId } from '../domain/ids.ts';
import type { Prisma } from '../generated/prisma/client.ts';
import type { Call } from '../generated/prisma/client.ts';
import type { Tx } from '../persistence/database.ts';
import type { Correction, Page, RecordFilter, UsageRecord } from './usage.ts';

/** Rows that one page looks at, at most. */
const SCAN_MAX = 2_000;
/**
 * A call's id is made a moment after the time it counts as its start. Days are cut by that time exactly; ids, this much wider, only say where
 * to look. Milliseconds.
 */
const ID_SLACK_MS = 60_000;

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
  priceId: true,
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

export interface PageQuery {
  limit: number;
  /** The id after which to go on, in the direction of `order`. */
  after?: string | undefined;
  /** By id (UUIDv7), which is the order of time. */
  order: 'newest first' | 'oldest first';
  filter: RecordFilter;
  /** Only ids up to this one. */
  upTo?: string;
}

/**
 * One page of records, with work that is bounded whatever is asked. Cursor, `from` and `to` are ranges of the primary key (merchant_id, id),
 * and `unknown` has an index in the same order. Everything else is compared row by row among the next SCAN_MAX rows of that order: where fewer
 * match than a page takes, the page is shorter, even empty, and its cursor goes on behind the last row that was looked at.
 */
export async function recordPage(
  tx: Tx,
  merchantId: MerchantId,
  query: PageQuery,
): Promise<Page<UsageRecord>> {
  const { limit, order, filter } = query;
  const newestFirst = order === 'newest first';
  const edge = isSelective(filter) ? await scanEdge(tx, merchantId, query) : undefined;
  const rows = await tx.call.findMany({
    where: {
      merchantId,
      id: { ...idBounds(query), ...(edge !== undefined && { [newestFirst ? 'gte' : 'lte']: edge }) },
      ...columnsOf(filter),
    },
    orderBy: { id: newestFirst ? 'desc' : 'asc' },
    take: limit + 1,
    select: RECORD,
  });
  const items = rows.slice(0, limit).map(toRecord);
  const nextCursor = rows.length > limit ? items.at(-1)?.id : edge;
  return nextCursor === undefined ? { items } : { items, nextCursor };
}

/** An id after all that this transaction can see. */
export async function lastId(tx: Tx): Promise<string> {
  const rows = await tx.$queryRaw<{ id: string }[]>`SELECT uuid_v7()::text AS id`;
  return rows[0]?.id ?? '';
}

/** What was found of some calls since they were charged, oldest first. */
export async function correctionsOf(
  tx: Tx,
  merchantId: MerchantId,
  records: readonly UsageRecord[],
): Promise<Correction[]> {
  const rows = await tx.$queryRaw<(Omit<Correction, 'createdAt'> & { createdAt: Date })[]>`
    SELECT call_id::text AS "callId", price_id::text AS "priceId", delta_nano::text AS "deltaNanoUsd", reason, created_at AS "createdAt"
    FROM corrections WHERE merchant_id = ${merchantId} AND call_id = ANY (${records.map(({ id }) => id)}::uuid[]) ORDER BY id`;
  return rows.map((row) => ({ ...row, createdAt: row.createdAt.toISOString() }));
}

/** Whether rows of the key's order may be passed over. */
function isSelective({ state, model, apiKey, endUser }: RecordFilter): boolean {
  return [state, model, apiKey, endUser].some((value) => value !== undefined);
}

function columnsOf({ state, model, apiKey, endUser, from, to }: RecordFilter): Prisma.CallWhereInput {
  return {
    createdAt: {
      ...(from !== undefined && { gte: startOf(from) }),
      ...(to !== undefined && { lt: startOf(to) }),
    },
    ...(state !== undefined && { state }),
    ...(model !== undefined && { modelId: model }),
    ...(apiKey !== undefined && { apiKeyId: apiKey }),
    ...(endUser !== undefined && { endUser }),
  };
}

/** The last id that this page looks at; undefined when it looks at all that are left. */
async function scanEdge(tx: Tx, merchantId: MerchantId, query: PageQuery): Promise<string | undefined> {
  const rows = await tx.call.findMany({
    where: {
      merchantId,
      id: idBounds(query),
      // As it stands in the index: the rest of the filter may pass over rows, this one may not.
      ...(query.filter.state === 'unknown' && { state: 'unknown' }),
    },
    orderBy: { id: query.order === 'newest first' ? 'desc' : 'asc' },
    skip: SCAN_MAX - 1,
    take: 1,
    select: { id: true },
  });
  return rows[0]?.id;
}

/** The part of the key, cursor included, in which all that is asked for lies. Partitions outside of it are not looked at. */
function idBounds({ after, order, filter, upTo }: PageQuery): Prisma.UuidFilter<'Call'> {
  const newestFirst = order === 'newest first';
  const from = filter.from === undefined ? undefined : firstIdOf(startOf(filter.from), -ID_SLACK_MS);
  const to = filter.to === undefined ? undefined : firstIdOf(startOf(filter.to), ID_SLACK_MS);
  const above = newestFirst ? from : latest(from, after);
  const below = newestFirst ? earliest(to, after) : to;
  return {
    ...(above !== undefined && (above === after ? { gt: above } : { gte: above })),
    ...(below !== undefined && { lt: below }),
    ...(upTo !== undefined && { lte: upTo }),
  };
}

function latest(a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || b === undefined ? (a ?? b) : a > b ? a : b;
}

function earliest(a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || b === undefined ? (a ?? b) : a < b ? a : b;
}

function startOf(date: string): Date {
  return new Date(`${date}T00:00:00Z`);
}

/** The lowest UUIDv7-shaped value of a millisecond, as uuid_v7_floor() in prisma/migrations. */
function firstIdOf(at: Date, slackMs: number): string {
  const time = (at.getTime() + slackMs).toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-0000-0000-000000000000`;
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
    priceId: call.priceId?.toString() ?? null,
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
