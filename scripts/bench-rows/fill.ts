import type pg from 'pg';

/** How many rows, for whom. Merchant 0 has a tenth of all rows, the others share the rest. */
export interface FillPlan {
  rows: number;
  merchants: number;
}

export const DAYS = 365;
/** Rows of one statement: some seconds, so that progress shows. */
const CHUNK = 250_000;

export function merchantOf(index: number): string {
  return `bench-${String(index).padStart(4, '0')}`;
}

/**
 * Fills a migrated, empty database with a year of resolved calls, and with the sums and counters that they mean: ledger_differences() finds
 * nothing. Everything is made inside Postgres. `client` must be a superuser.
 */
export async function fill(
  client: pg.Client,
  { rows, merchants }: FillPlan,
  say: (line: string) => void,
  stopped: AbortSignal,
): Promise<void> {
  await client.query(
    `SET synchronous_commit = off; SET work_mem = '512MB'; SET maintenance_work_mem = '512MB'; SET jit = off`,
  );
  await client.query(pastPartitions());
  await client.query(MERCHANTS, [merchants]);
  const { rows: priced } = await client.query<{ id: string }>(PRICE);
  const price = priced[0]?.id ?? '';
  for (let from = 0; from < rows; from += CHUNK) {
    if (stopped.aborted) return;
    const to = Math.min(rows, from + CHUNK);
    const startedAt = performance.now();
    await client.query(CALLS, [from, to, rows, merchants, price]);
    const perSecond = ((to - from) / (performance.now() - startedAt)) * 1_000;
    say(
      `calls: ${to.toLocaleString('en')} of ${rows.toLocaleString('en')} (${perSecond.toFixed(0)} a second)`,
    );
  }
  // Month by month, so that no statement sorts everything.
  const { rows: partitions } = await client.query<{ name: string }>(
    `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'calls'::regclass ORDER BY 1`,
  );
  for (const { name } of partitions) {
    if (stopped.aborted) return;
    const { rowCount } = await client.query(sumsOf(name));
    if (rowCount !== null && rowCount > 0) say(`sums of ${name}: ${rowCount.toLocaleString('en')} rows`);
  }
  await client.query(COUNTERS);
  say('counters are made; VACUUM (ANALYZE)');
  await client.query('VACUUM (ANALYZE) calls');
  await client.query('VACUUM (ANALYZE) usage_days');
  await client.query('VACUUM (ANALYZE) counters');
  await client.query('CHECKPOINT');
}

/** ledger_make_partitions() makes those to come; here the past is needed too. */
function pastPartitions(): string {
  return `
    DO $$
    DECLARE
      start timestamptz;
      name text;
    BEGIN
      SET LOCAL ROLE merchant_bedrock_owner;
      FOR i IN 1..13 LOOP
        start := (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => i)) AT TIME ZONE 'UTC';
        name := 'calls_' || to_char(start AT TIME ZONE 'UTC', 'YYYY_MM');
        EXECUTE format('CREATE TABLE public.%I PARTITION OF public.calls FOR VALUES FROM (%L) TO (%L)',
          name, uuid_v7_floor(start), uuid_v7_floor((start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'));
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant_rows ON public.%I USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()))', name);
      END LOOP;
    END
    $$`;
}

const MERCHANTS = `
  WITH made AS (
    INSERT INTO merchants (id, name, service_defaults_allowed)
    SELECT 'bench-' || lpad(n::text, 4, '0'), 'x', true FROM generate_series(0, $1::integer - 1) AS n RETURNING id)
  SELECT count(audit_append(id, 'bench', 'merchant.created', 'merchant/' || id, 'allowed', 'bench', '{}')) FROM made`;

const PRICE = `
  INSERT INTO prices (model_id, region, profile, tier, valid_from, input, output, source, source_date, imported_by)
  VALUES ('amazon.nova-micro-v1:0', '*', 'in-region', 'standard', now(), 35000000, 140000000, 'bench', now(), 'bench') RETURNING id`;

/**
 * Rows $1 to $2 of $3, evenly over the year up to an hour ago, in the order of time, as they would have come. Merchant, model, key and end
 * user follow from hashes of the row's number: 5 models, 4 keys or none, 2 regions, one call in 20 for one of 50 end users.
 * One in 50 void, one in 500 unknown.
 */
const CALLS = `
  INSERT INTO calls (merchant_id, id, state, operation, model_id, region, account_id, credential_source, subject, api_key_id, end_user, request_id,
    created_at, deadline, resolved_at, reason, provenance, input_tokens, output_tokens, aws_status, latency_ms, tier, price_id, charged,
    hold_tokens, hold_nano, cost_nano)
  SELECT 'bench-' || lpad(merchant::text, 4, '0'),
    encode(set_byte(set_byte(substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) || substring(uuid_send(gen_random_uuid()) FROM 7 FOR 10),
      6, 112 | (a % 16)), 8, 128 | (b % 64)), 'hex')::uuid,
    state, 'converse', 'model-' || a % 5, CASE b % 2 WHEN 0 THEN 'us-east-1' ELSE 'eu-central-1' END, '100000000001', 'service-default', 'api-key:x',
    CASE WHEN b % 5 > 0 THEN 'K0000000000' || b % 5 END, CASE WHEN c % 20 = 0 THEN 'user-' || a % 50 END, 'request', at, at + interval '1 hour',
    at + make_interval(secs => latency / 1000.0), CASE state WHEN 'settled' THEN NULL ELSE 'bench' END, CASE state WHEN 'settled' THEN 'body' END,
    CASE state WHEN 'settled' THEN input ELSE 0 END, CASE state WHEN 'settled' THEN output ELSE 0 END,
    CASE state WHEN 'settled' THEN 200 WHEN 'void' THEN 429 ELSE 503 END, latency, 'standard', $5::bigint, 14, 4000, 4000 * 140,
    CASE state WHEN 'settled' THEN ceil((input * 35000000.0 + output * 140000000.0) / 1000000)::bigint END
  FROM (
    SELECT at, abs(hashint8extended(n, 1) % 1000000)::integer AS a, abs(hashint8extended(n, 2) % 1000000)::integer AS b, c,
      CASE WHEN d % 10 = 0 THEN 0 ELSE d / 10 % $4::integer END AS merchant,
      CASE WHEN c % 500 = 1 THEN 'unknown' WHEN c % 50 = 2 THEN 'void' ELSE 'settled' END AS state,
      20 + c % 2000 AS input, 10 + d % 900 AS output, (80 * 2 ^ (c % 1000 / 125.0))::integer AS latency
    FROM (
      SELECT n, (now() - interval '1 hour' - make_interval(secs => ($3::float8 - n) * ${String((DAYS - 1) * 86_400)} / $3::float8))::timestamptz(3) AS at,
        abs(hashint8extended(n, 3) % 1000000)::integer AS c, abs(hashint8extended(n, 4) % 1000000)::integer AS d
      FROM generate_series($1::bigint, $2::bigint - 1) AS n) AS numbers) AS facts`;

/** What usage_rows() and settle_usage() make of the rows of a partition, in one statement and without the numeric logarithm. */
function sumsOf(partition: string): string {
  return `
    INSERT INTO usage_days (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, settled, voided, unknown,
      throttled, failed, input_tokens, output_tokens, cost_nano, latency_ms, latencies)
    SELECT c.merchant_id, u.end_user, (c.created_at AT TIME ZONE 'UTC')::date, c.model_id, '', c.credential_source, coalesce(c.api_key_id, ''), c.region,
      count(*) FILTER (WHERE c.state = 'settled'), count(*) FILTER (WHERE c.state = 'void'), count(*) FILTER (WHERE c.state = 'unknown'),
      count(*) FILTER (WHERE c.aws_status = 429), count(*) FILTER (WHERE c.state <> 'settled' AND c.aws_status <> 429),
      sum(c.input_tokens), sum(c.output_tokens), coalesce(sum(c.cost_nano), 0), coalesce(sum(c.latency_ms) FILTER (WHERE c.state = 'settled'), 0),
      latency_histogram(coalesce(array_agg(least(40, ceil(2 * ln(c.latency_ms + 0.5::float8) / ln(2::float8))::integer)) FILTER (WHERE c.state = 'settled'), '{}'))
    FROM ${partition} c CROSS JOIN LATERAL (VALUES ('*'), (c.end_user)) AS u (end_user)
    WHERE u.end_user IS NOT NULL GROUP BY 1, 2, 3, 4, 6, 7, 8
    ON CONFLICT DO NOTHING`;
}

/** Of each merchant its days, months and all: what "charged = 14" means. */
const COUNTERS = `
  INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, requests, tokens_unknown, tokens_settled, nano_unknown, nano_settled)
  SELECT merchant_id, 'merchant', '', k.period, CASE k.period WHEN 'total' THEN timestamptz 'epoch' ELSE date_trunc(k.period, created_at, 'UTC') END AS starts_at,
    count(*), coalesce(sum(hold_tokens) FILTER (WHERE state = 'unknown'), 0), coalesce(sum(input_tokens + output_tokens) FILTER (WHERE state = 'settled'), 0),
    coalesce(sum(hold_nano) FILTER (WHERE state = 'unknown'), 0), coalesce(sum(cost_nano) FILTER (WHERE state = 'settled'), 0)
  FROM calls CROSS JOIN (VALUES ('day'), ('month'), ('total')) AS k (period) GROUP BY 1, 4, 5`;
