import { randomUUID } from 'node:crypto';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { UsageStore } from '../../src/ledger/usage-store.ts';
import { UsageVerifyStore } from '../../src/ledger/usage-verify-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { DAYS, merchantOf } from './fill.ts';

/** Milliseconds. */
export interface Times {
  name: string;
  count: number;
  p50: number;
  p99: number;
  max: number;
  /** What the median should stay under. */
  target?: number;
}

export interface Admissions {
  name: string;
  perSecond: number;
  p50: number;
  p99: number;
}

const DAY_MS = 86_400_000;
const IN_FLIGHT = 64;

export function openDatabase(url: string): Database {
  return new Database({
    url: new Secret(url),
    connectionsMax: 20,
    statementTimeoutMs: 60_000,
    onPoolError: () => undefined,
  });
}

/** Reads as the routes do them, one after the other, for the merchant with a tenth of all rows and for ordinary ones. */
export async function measureReads(database: Database, merchants: number, rounds: number): Promise<Times[]> {
  const usage = new UsageStore(database);
  const large = merchantOf(0) as MerchantId;
  const ordinary = Array.from(
    { length: rounds },
    (_, at) => merchantOf(1 + (at % (merchants - 1))) as MerchantId,
  );
  const largest = ordinary.map(() => large);
  const month = { from: date(31), to: date(1) };
  const deep = async (merchantId: MerchantId) =>
    (await usage.records(merchantId, 1, undefined, { to: date(DAYS - 20) })).items[0]?.id;
  const deepOf = new Map<MerchantId, string | undefined>();
  for (const merchantId of new Set([large, ...ordinary])) deepOf.set(merchantId, await deep(merchantId));
  const reads: [string, readonly MerchantId[], (merchantId: MerchantId) => Promise<unknown>, number?][] = [
    ['usage by day, a month, ordinary merchant', ordinary, (id) => usage.report(id, month, ['day']), 50],
    ['usage by day, a month, largest merchant', largest, (id) => usage.report(id, month, ['day']), 50],
    ['usage by end user, a month, largest merchant', largest, (id) => usage.report(id, month, ['endUser'])],
    [
      'usage by model, a year, largest merchant',
      largest,
      (id) => usage.report(id, { from: date(365), to: date(0) }, ['model']),
    ],
    ['records, first page, ordinary merchant', ordinary, (id) => usage.records(id, 50), 20],
    ['records, first page, largest merchant', largest, (id) => usage.records(id, 50), 20],
    [
      'records, page 11 months deep, ordinary merchant',
      ordinary,
      (id) => usage.records(id, 50, deepOf.get(id)),
      20,
    ],
    [
      'records, page 11 months deep, largest merchant',
      largest,
      (id) => usage.records(id, 50, deepOf.get(id)),
      20,
    ],
    [
      'records, unknown calls, largest merchant',
      largest,
      (id) => usage.records(id, 50, undefined, { state: 'unknown' }),
    ],
    [
      'records, of an end user, largest merchant',
      largest,
      (id) => usage.records(id, 50, undefined, { endUser: 'user-7' }),
    ],
    ['operators’ sums, a month, 50 merchants', ordinary, () => usage.byMerchant(month, 50)],
  ];
  const all: Times[] = [];
  for (const [name, ids, read, target] of reads) {
    for (const id of ids.slice(0, 5)) await read(id);
    const times: number[] = [];
    for (const id of ids) {
      const startedAt = performance.now();
      await read(id);
      times.push(performance.now() - startedAt);
    }
    all.push({ name, ...quantiles(times), count: times.length, ...(target !== undefined && { target }) });
  }
  return all;
}

/** One verification. @throws Error when it finds something: then the rows that were made are not what they mean. */
export async function measureVerify(database: Database, name: string, index: number): Promise<Times> {
  const startedAt = performance.now();
  const { differences, checked } = await new UsageVerifyStore(database).verify(
    merchantOf(index) as MerchantId,
  );
  const took = performance.now() - startedAt;
  if (checked.differences > 0)
    throw new Error(`verify found ${String(checked.differences)}: ${JSON.stringify(differences[0])}`);
  return {
    name: `${name} (${checked.calls.toLocaleString('en')} calls)`,
    count: 1,
    p50: took,
    p99: took,
    max: took,
  };
}

/** Pairs of hold and settle through the store, 64 at a time, over all merchants. */
export async function measureAdmission(
  database: Database,
  name: string,
  { merchants, seconds }: { merchants: number; seconds: number },
): Promise<Admissions> {
  const ledger = new LedgerStore(database, { processId: randomUUID() });
  const times: number[] = [];
  let next = 0;
  const end = performance.now() + seconds * 1_000;
  const work = async () => {
    while (performance.now() < end) {
      const merchantId = merchantOf(next++ % merchants) as MerchantId;
      const startedAt = performance.now();
      const answer = await ledger.hold(merchantId, {
        operation: 'converse',
        modelId: 'model-1',
        region: 'us-east-1',
        source: 'service-default',
        subject: 'bench',
        requestId: 'bench',
        deadlineSeconds: 60,
        merchantRevision: 1,
        bound: {
          inputTokens: 100,
          outputTokens: 100,
          outputTokensMost: 100,
          clampable: false,
          tier: 'standard',
        },
      });
      if (answer.verdict !== 'admitted') throw new Error(`not admitted: ${answer.verdict}`);
      await ledger.settle(merchantId, answer.id, {
        state: 'settled',
        usage: { tokens: { ...NO_TOKENS, input: 90, output: 80 }, provenance: 'body' },
        upstream: { status: 200, latencyMs: 300 },
      });
      times.push(performance.now() - startedAt);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  const { p50, p99 } = quantiles(times);
  return { name, perSecond: times.length / seconds, p50, p99 };
}

function quantiles(times: number[]): { p50: number; p99: number; max: number } {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? Number.NaN };
}

function date(daysAgo: number): string {
  return new Date(Date.now() - daysAgo * DAY_MS).toISOString().slice(0, 10);
}
