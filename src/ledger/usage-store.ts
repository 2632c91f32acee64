import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database, Tx } from '../persistence/database.ts';
import { correctionsOf, lastId, recordPage } from './usage-record-store.ts';
import { SUM_COLUMNS, toSums } from './usage-sums.ts';
import type { SumRow } from './usage-sums.ts';
import { REPORT_GROUPS_MAX } from './usage.ts';
import type {
  DateSpan,
  ExportPage,
  Forecast,
  MerchantUsage,
  OpsUsageGroup,
  Page,
  RecordFilter,
  Span,
  Timeframe,
  UsageGroup,
  UsageRecord,
  UsageReport,
  UsageSums,
} from './usage.ts';

/** How usage_days says what a report is grouped by. Text of ours, never of a request. Empty text stands for none. */
const GROUP_VALUES: Record<UsageGroup, string> = {
  model: 'd.model_id',
  credential: `nullif(d.credential_id, '')`,
  instance: `CASE WHEN d.model_id LIKE 'arn:%:provisioned-model/%' THEN d.model_id END`,
  apiKey: `nullif(d.api_key_id, '')`,
  endUser: 's.end_user',
  source: 'd.credential_source',
  region: 'd.region',
  day: 'd.day::text',
};

/** Records of a page of an export: some 500 KB as text. */
const EXPORT_PAGE = 500;
const BUCKETS = 40;
/** Forty sums are several times faster than taking arrays apart, or adding them up in a function. */
const SUMS = Prisma.raw(
  [
    ...SUM_COLUMNS.map((column) => `coalesce(sum(s.sign * d.${column}), 0)::bigint AS ${column}`),
    `ARRAY[${Array.from({ length: BUCKETS }, (_, at) => `coalesce(sum(s.sign * d.latencies[${String(at + 1)}]), 0)`).join()}]::bigint[] AS latencies`,
  ].join(),
);

/** Everyone, from the rows that hold everyone. */
const EVERYONE = Prisma.raw(
  `usage_days d CROSS JOIN (VALUES (1)) AS s (sign) WHERE d.end_user = '*' AND true`,
);
/** Each end user, and with null calls that named none: what everyone's rows hold beyond the users'. */
const BY_END_USER = Prisma.raw(`usage_days d CROSS JOIN LATERAL (
    SELECT NULL, 1 WHERE d.end_user = '*' UNION ALL SELECT u.end_user, u.sign FROM (VALUES (d.end_user, 1), (NULL, -1)) AS u (end_user, sign) WHERE d.end_user <> '*'
  ) AS s (end_user, sign) WHERE true`);

interface Period extends DateSpan {
  /** The end of a running period, and the part of it that has passed. */
  until: string;
  elapsed: number;
}
type GroupRow = SumRow & { whole: number } & Record<`g${string}`, string | null>;
/** Below this part of a period a forecast says more about its first hours than about its end. */
const FORECAST_FROM = 0.1;

/** Reads of the ledger. Reports read the sums by day, never the calls; records are read by key. */
export class UsageStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Sums over all, and by group, ordered by the groups' names with null first.
   * @throws ServiceError request.invalid for more than REPORT_GROUPS_MAX groups: what is left out would not show.
   */
  report(merchantId: MerchantId, span: Span, groupBy: readonly UsageGroup[]): Promise<UsageReport> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const period = await periodOf((sql) => tx.$queryRaw<Period[]>(sql), span);
      const rows = await sumsByGroup(tx, merchantId, period, groupBy);
      if (rows.length > REPORT_GROUPS_MAX + 1)
        throw new ServiceError(
          'request.invalid',
          `The report has more than ${String(REPORT_GROUPS_MAX)} groups. Ask for fewer days, or group by less.`,
        );
      const [whole, ...groups] = rows;
      if (whole === undefined) throw new Error('no sums');
      const sums = toSums(whole);
      return {
        timeframe: typeof span === 'string' ? span : null,
        from: period.from,
        to: period.to,
        ...sums,
        forecast: forecastOf(period, sums),
        groups: groups.map((row) => ({
          key: Object.fromEntries(groupBy.map((group, at) => [group, row[`g${String(at)}`]])),
          ...toSums(row),
        })),
      };
    });
  }

  /** @param before the id after which to go on (UUIDv7: ids are in the order of time). A page may be short, see recordPage(). */
  records(
    merchantId: MerchantId,
    limit: number,
    before?: string,
    filter: RecordFilter = {},
  ): Promise<Page<UsageRecord>> {
    return this.#database.asTenant(merchantId, (tx) =>
      recordPage(tx, merchantId, { limit, after: before, order: 'newest first', filter }),
    );
  }

  /**
   * The records of some days, oldest first, page by page; a page is read when it is asked for, in a transaction of its own, so nothing is held
   * while a reader is slow. Ends with the calls there were at the start. What resolves meanwhile is shown as it is when its page is read.
   */
  async *pages(merchantId: MerchantId, days: DateSpan, size = EXPORT_PAGE): AsyncGenerator<ExportPage> {
    const upTo = await this.#database.asTenant(merchantId, lastId);
    let after: string | undefined;
    do {
      const page = await this.#database.asTenant(merchantId, async (tx) => {
        const { items: records, nextCursor } = await recordPage(tx, merchantId, {
          limit: size,
          after,
          order: 'oldest first',
          filter: days,
          upTo,
        });
        return { records, nextCursor, corrections: await correctionsOf(tx, merchantId, records) };
      });
      after = page.nextCursor;
      yield page;
    } while (after !== undefined);
  }

  /** All merchants or one, for operators: one page of sums, by merchant id and by the groups that are asked for. */
  async byMerchant(
    span: Span,
    limit: number,
    { cursor = '', groupBy = [], merchantId }: OpsUsageQuery = {},
  ): Promise<Page<MerchantUsage> & DateSpan> {
    const { from, to } = await periodOf((sql) => this.#database.query<Period>(sql), span);
    const [merchant = '', model = '', day = ''] = cursor.split('|');
    const rows = await this.#database.query<
      SumRow & { merchant_id: MerchantId } & Record<'model_id' | 'day', string>
    >(
      Prisma.sql`SELECT * FROM ops_usage_page(${from}::date, ${to}::date, ${merchantId ?? null}, ${groupBy.includes('model')}, ${groupBy.includes('day')},
        ARRAY[${merchant}, ${model}, ${day}]::text[], ${limit + 1}::integer)`,
    );
    const shown = rows.slice(0, limit);
    const last = shown.at(-1);
    return {
      from,
      to,
      items: shown.map((row) => ({
        merchantId: row.merchant_id,
        key: {
          ...(groupBy.includes('model') && { model: row.model_id }),
          ...(groupBy.includes('day') && { day: row.day }),
        },
        ...toSums(row),
      })),
      ...(rows.length > limit &&
        last && { nextCursor: [last.merchant_id, last.model_id, last.day].join('|') }),
    };
  }
}

export interface OpsUsageQuery {
  /** Merchant, model and day of the row after which to go on, with | between them; none of them holds one. */
  cursor?: string | undefined;
  groupBy?: readonly OpsUsageGroup[];
  merchantId?: MerchantId | undefined;
}

/** The whole first, then its groups. */
function sumsByGroup(
  tx: Tx,
  merchantId: MerchantId,
  { from, to }: DateSpan,
  groupBy: readonly UsageGroup[],
): Promise<GroupRow[]> {
  const rows = Prisma.sql`${groupBy.includes('endUser') ? BY_END_USER : EVERYONE}
    AND d.merchant_id = ${merchantId} AND d.day >= ${from}::date AND d.day < ${to}::date`;
  if (groupBy.length === 0) return tx.$queryRaw(Prisma.sql`SELECT 1 AS whole, ${SUMS} FROM ${rows}`);
  const names = groupBy.map((_, at) => `g${String(at)}`);
  const values = groupBy.map((group) => GROUP_VALUES[group]);
  const list = Prisma.raw(values.join());
  // Calls that name no end user: a group of none is no group.
  return tx.$queryRaw(Prisma.sql`
    SELECT ${Prisma.raw(values.map((value, at) => `${value} AS g${String(at)}`).join())}, grouping(${Prisma.raw(values[0] ?? '')}) AS whole, ${SUMS}
    FROM ${rows} GROUP BY GROUPING SETS ((${list}), ())
    HAVING grouping(${Prisma.raw(values[0] ?? '')}) = 1 OR sum(s.sign * (d.settled + d.voided + d.unknown)) > 0
    ORDER BY whole DESC, ${Prisma.raw(names.map((name) => `${name} NULLS FIRST`).join())} LIMIT ${REPORT_GROUPS_MAX + 2}::integer`);
}

/** The dates that are asked for, or the running day, ISO week, month or year in UTC, by the database's clock. */
async function periodOf(query: (sql: Prisma.Sql) => Promise<Period[]>, span: Span): Promise<Period> {
  const dates =
    typeof span === 'string'
      ? runningPeriod(span)
      : Prisma.sql`SELECT ${span.from}::date::timestamp AS start, ${span.to}::date AS to, ${span.to}::date::timestamp AS until`;
  const rows = await query(Prisma.sql`
    SELECT start::date::text AS from, "to"::text, until::date::text,
      (extract(epoch FROM now() AT TIME ZONE 'UTC' - start) / extract(epoch FROM until - start))::double precision AS elapsed
    FROM (${dates}) AS p`);
  if (rows[0] === undefined) throw new Error('no period');
  return rows[0];
}

function runningPeriod(timeframe: Timeframe): Prisma.Sql {
  return Prisma.sql`SELECT start, (now() AT TIME ZONE 'UTC')::date + 1 AS to, start + ${`1 ${timeframe}`}::interval AS until
    FROM date_trunc(${timeframe}, now() AT TIME ZONE 'UTC') AS start`;
}

function forecastOf({ until, elapsed }: Period, { tokens, costNanoUsd }: UsageSums): Forecast | null {
  if (elapsed < FORECAST_FROM || elapsed >= 1) return null;
  return {
    until,
    elapsed,
    tokens: Math.round(tokens.total / elapsed),
    costNanoUsd: Math.round(costNanoUsd / elapsed),
  };
}
