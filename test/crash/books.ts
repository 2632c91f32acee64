import type { Pool } from 'pg';
import { verifyChain } from '../../scripts/cli/verify-chains.ts';
import type { AuditStore } from '../../src/audit/audit-store.ts';
import type { TokenCounts } from '../../src/domain/usage.ts';
import type { Resident } from './household.ts';
import type { Witness } from './witness.ts';

/** What the ledger has of a call. */
export interface Row {
  merchantId: string;
  id: string;
  state: 'held' | 'settled' | 'void' | 'unknown';
  operation: string;
  tokens: TokenCounts;
  /** Actions of its audit events, in order. */
  actions: string[];
}

/** All rows of these merchants, oldest first. */
export async function readRows(admin: Pool, merchants: readonly string[]): Promise<Row[]> {
  const { rows } = await admin.query<Omit<Row, 'tokens'> & Record<keyof TokenCounts, string>>(
    `SELECT c.merchant_id AS "merchantId", c.id, c.state, c.operation, c.input_tokens AS input, c.output_tokens AS output,
       c.cache_read_tokens AS "cacheRead", c.cache_write_5m_tokens AS "cacheWrite5m", c.cache_write_1h_tokens AS "cacheWrite1h",
       coalesce(e.actions, '{}') AS actions
     FROM calls c
     LEFT JOIN (SELECT merchant_id, resource, array_agg(action ORDER BY seq) AS actions FROM audit_events
                WHERE merchant_id = ANY ($1) AND resource LIKE 'call/%' GROUP BY 1, 2) AS e
       ON e.merchant_id = c.merchant_id AND e.resource = 'call/' || c.id
     WHERE c.merchant_id = ANY ($1) ORDER BY c.id`,
    [merchants],
  );
  return rows.map(({ input, output, cacheRead, cacheWrite5m, cacheWrite1h, ...row }) => ({
    ...row,
    tokens: {
      input: Number(input),
      output: Number(output),
      cacheRead: Number(cacheRead),
      cacheWrite5m: Number(cacheWrite5m),
      cacheWrite1h: Number(cacheWrite1h),
    },
  }));
}

/**
 * Ledger and journal as sets by call id: every request at AWS is one row, every settled row one request that ran, with its numbers, and no
 * row that was given back is one.
 * @param residents whose credential must have signed.
 * @returns what is wrong, in words.
 */
export function compare(
  rows: readonly Row[],
  witnesses: readonly Witness[],
  residents: readonly Resident[],
): string[] {
  const faults: string[] = [];
  const rowsById = groupBy(rows, ({ id }) => id);
  const witnessesById = groupBy(witnesses, ({ callId }) => callId ?? '');
  for (const { callId, tag, verified } of witnesses) {
    if (callId === undefined)
      faults.push(`a request at AWS (${tag ?? 'not of the load'}) carries no call id`);
    if (!verified) faults.push(`call ${callId ?? '?'} has a signature that does not hold`);
  }
  for (const [id, seen] of witnessesById) {
    if (id === '') continue;
    if (seen.length > 1) faults.push(`call ${id} was sent to AWS ${String(seen.length)} times`);
    const own = rowsById.get(id) ?? [];
    if (own.length !== 1) faults.push(`call ${id} was at AWS and has ${String(own.length)} rows`);
  }
  for (const row of rows) faults.push(...compareOne(row, witnessesById.get(row.id) ?? [], residents));
  return [...faults, ...ranTwice(witnesses)];
}

function compareOne(row: Row, seen: readonly Witness[], residents: readonly Resident[]): string[] {
  const { id, state } = row;
  const faults: string[] = [];
  const executed = seen.filter((witness) => witness.executed);
  if (state === 'settled' && executed.length !== 1)
    faults.push(`call ${id} is settled and ran ${String(executed.length)} times`);
  if (state === 'void' && executed.length > 0) faults.push(`call ${id} is void and ran`);
  if (state === 'held') faults.push(`call ${id} is still held`);
  const account = residents.find((resident) => resident.id === row.merchantId)?.accountId;
  for (const { operation, accountId, tokens } of seen) {
    if (operation !== row.operation)
      faults.push(`call ${id} is ${row.operation} here and ${operation} at AWS`);
    if (accountId !== account)
      faults.push(`call ${id} of ${row.merchantId} was signed for ${accountId ?? 'nobody'}`);
    if (state === 'settled' && tokens !== undefined && !sameTokens(tokens, row.tokens))
      faults.push(
        `call ${id} is settled with ${JSON.stringify(row.tokens)}, AWS bills ${JSON.stringify(tokens)}`,
      );
  }
  return faults;
}

/** One call of a caller, whatever became of it and however often it was asked for, runs once at most. */
function ranTwice(witnesses: readonly Witness[]): string[] {
  const byTag = groupBy(
    witnesses.filter(({ executed, tag }) => executed && tag !== undefined),
    ({ tag }) => tag ?? '',
  );
  return [...byTag]
    .filter(([, ran]) => ran.length > 1)
    .map(([tag, ran]) => `${tag} ran ${String(ran.length)} times at AWS`);
}

/** What each state's audit events must be. */
const ACTIONS: Readonly<Record<Row['state'], RegExp>> = {
  held: /^call\.admitted$/,
  settled: /^call\.admitted,(call\.unknown,)?call\.settled$/,
  void: /^call\.admitted,(call\.unknown,)?call\.void$/,
  unknown: /^call\.admitted,call\.unknown$/,
};

/** Each row was admitted once and resolved once, and its audit events say what its state says. */
export function compareAudit(rows: readonly Row[]): string[] {
  return rows
    .filter(({ state, actions }) => !ACTIONS[state].test(actions.join(',')))
    .map(({ id, state, actions }) => `call ${id} is ${state}, its audit events are ${actions.join(', ')}`);
}

/** Counters and sums recomputed from the rows. */
export async function differences(admin: Pool, merchants: readonly string[]): Promise<string[]> {
  const faults: string[] = [];
  const client = await admin.connect();
  try {
    for (const merchant of merchants) {
      await client.query('BEGIN');
      await client.query(`SELECT set_config('app.merchant_id', $1, true)`, [merchant]);
      const { rows } = await client.query<{ what: string; key: string; kept: unknown; counted: unknown }>(
        'SELECT * FROM ledger_differences()',
      );
      await client.query('COMMIT');
      for (const { what, key, kept, counted } of rows)
        faults.push(
          `${merchant}: ${what} ${key} is ${JSON.stringify(kept)}, its rows say ${JSON.stringify(counted)}`,
        );
    }
  } finally {
    client.release();
  }
  return faults;
}

/** Every chain from its first event to its head. */
export async function chains(audit: AuditStore, merchants: readonly string[]): Promise<string[]> {
  const results = [];
  for (const merchant of merchants) results.push(await verifyChain(audit, merchant));
  return results
    .filter(({ fault }) => fault !== undefined)
    .map(({ chain, fault }) => `the audit chain of ${chain} is broken: ${JSON.stringify(fault)}`);
}

/** No counter is past its limit, nothing cost more than it was held at, and so no merchant was stopped. */
export async function limitsPassed(admin: Pool, merchants: readonly string[]): Promise<string[]> {
  const { rows } = await admin.query<{ what: string }>(
    `SELECT concat_ws(' ', 'a limit is passed:', to_jsonb(c)) AS what FROM counters c
     WHERE merchant_id = ANY ($1) AND (in_flight > in_flight_max OR requests > requests_max
       OR tokens_held + tokens_unknown + tokens_settled > tokens_max OR nano_held + nano_unknown + nano_settled > nano_max
       OR tokens_overrun > 0 OR nano_overrun > 0)
     UNION ALL SELECT concat_ws(' ', 'was stopped:', id, status_reason) FROM merchants WHERE id = ANY ($1) AND status <> 'active'
     UNION ALL SELECT concat_ws(' ', 'the database does not keep', n) FROM unnest($2::text[]) AS n
       WHERE NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = n AND conrelid = 'counters'::regclass AND convalidated)`,
    [
      merchants,
      ['in_flight_within_limit', 'requests_within_limit', 'tokens_within_limit', 'money_within_limit'],
    ],
  );
  return rows.map(({ what }) => what);
}

export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

function sameTokens(a: TokenCounts, b: TokenCounts): boolean {
  const names = ['input', 'output', 'cacheRead', 'cacheWrite5m', 'cacheWrite1h'] as const;
  return names.every((name) => a[name] === b[name]);
}
