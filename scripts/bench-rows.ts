/** Measures reports, pages of records and admission on a ledger of many rows. See --help. */
import { statfs } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { createDatabase, onServer, startEmbeddedPostgres } from '../test/support/postgres.ts';
import { fill } from './bench-rows/fill.ts';
import { measureAdmission, measureReads, measureVerify, openDatabase } from './bench-rows/measure.ts';
import type { Admissions, Times } from './bench-rows/measure.ts';
import { Failure, Interrupted, print, run, UsageError, wasStarted } from './cli/run.ts';

const HELP = `Usage: npm run bench:rows -- [--rows N] [--merchants N] [--seconds N]

Makes a ledger of N rows (10,000,000) over a year and N merchants (400) in a Postgres of its own in the temporary directory, with the sums and
counters that belong to it, and measures reports, pages of records, verification, and admission beside that of an empty ledger.
Some minutes, and 1.2 KB of disk a row. A Markdown table goes to standard output, progress to standard error.

  --rows N       rows of the ledger
  --merchants N  merchants; the first one has a tenth of the rows
  --seconds N    of each round of admission (10)

Misses of a target are told, and never fail the run. Ctrl-C stops it and removes everything.
`;
const BYTES_PER_ROW = 1_200;
const READ_ROUNDS = 200;
const ADMISSION_ROUNDS = 3;

interface Plan {
  rows: number;
  merchants: number;
  seconds: number;
}

async function main(): Promise<void> {
  const plan = readPlan(process.argv.slice(2));
  if (plan === undefined) return print(HELP, '');
  const { bavail, bsize } = await statfs(tmpdir());
  if (bavail * bsize < plan.rows * BYTES_PER_ROW)
    throw new Failure(
      `${tmpdir()} has ${gigabytes(bavail * bsize)} free; ${gigabytes(plan.rows * BYTES_PER_ROW)} are needed.`,
    );
  const stopped = signalled();
  const startedAt = performance.now();
  const say = (line: string) => {
    process.stderr.write(`[${((performance.now() - startedAt) / 1_000).toFixed(0).padStart(4)} s] ${line}\n`);
  };
  const cluster = await startEmbeddedPostgres();
  try {
    await print(`${await measured(cluster.adminUrl, plan, say, stopped)}\n`, '');
  } catch (error) {
    throw stopped.aborted ? new Interrupted() : error;
  } finally {
    await cluster.stop();
    say('everything is removed');
  }
}

async function measured(
  clusterUrl: string,
  plan: Plan,
  say: (line: string) => void,
  stopped: AbortSignal,
): Promise<string> {
  await onServer(clusterUrl, async (client) => {
    await client.query(`ALTER SYSTEM SET max_wal_size = '8GB'`);
    await client.query('SELECT pg_reload_conf()');
  });
  const empty = await createDatabase(clusterUrl, 'bench_empty');
  const full = await createDatabase(clusterUrl, 'bench_full', 'bench_empty');
  const fillStartedAt = performance.now();
  const size = await onServer(full.adminUrl, async (client) => {
    // What waits for a statement of Postgres notices Ctrl-C at the next one.
    await fill(client, plan, say, stopped);
    const { rows } = await client.query<{ size: string; sums: string; version: string }>(
      `SELECT pg_database_size(current_database()) AS size, (SELECT count(*) FROM usage_days) AS sums, current_setting('server_version') AS version`,
    );
    return rows[0];
  });
  await onServer(empty.adminUrl, (client) => fill(client, { ...plan, rows: 0 }, () => undefined, stopped));
  stopped.throwIfAborted();
  const fillSeconds = (performance.now() - fillStartedAt) / 1_000;
  await using fullDatabase = openDatabase(full.url);
  await using emptyDatabase = openDatabase(empty.url);
  say('reads');
  const times = await measureReads(fullDatabase, plan.merchants, READ_ROUNDS);
  stopped.throwIfAborted();
  say('verification');
  times.push(await measureVerify(fullDatabase, 'verify, ordinary merchant', 1));
  times.push(await measureVerify(fullDatabase, 'verify, largest merchant', 0));
  const admissions: Admissions[] = [];
  for (let round = 0; round < ADMISSION_ROUNDS; round += 1) {
    stopped.throwIfAborted();
    say(`admission, round ${String(round + 1)} of ${String(ADMISSION_ROUNDS)}`);
    admissions.push(await measureAdmission(emptyDatabase, 'empty ledger', plan));
    admissions.push(await measureAdmission(fullDatabase, 'full ledger', plan));
  }
  const facts = `${plan.rows.toLocaleString('en')} rows, ${String(plan.merchants)} merchants, ${Number(size?.sums ?? 0).toLocaleString('en')} sums by day; ${gigabytes(Number(size?.size ?? 0))}, filled in ${fillSeconds.toFixed(0)} s; Postgres ${size?.version ?? ''}, Node ${process.version}, ${String(cpus().length)} × ${cpus()[0]?.model.trim() ?? 'CPU'}`;
  return [facts, '', readTable(times), '', admissionTable(admissions)].join('\n');
}

function readTable(times: readonly Times[]): string {
  const rows = times.map(
    ({ name, count, p50, p99, max, target }) =>
      `| ${name} | ${String(count)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${max.toFixed(1)} | ${target === undefined ? '' : `${String(target)} ${p50 < target ? 'kept' : 'MISSED'}`} |`,
  );
  return [
    '| read, ms | count | p50 | p99 | max | target (p50) |',
    '| --- | --: | --: | --: | --: | --- |',
    ...rows,
  ].join('\n');
}

function admissionTable(admissions: readonly Admissions[]): string {
  const rows = ['empty ledger', 'full ledger'].map((name) => {
    const rounds = admissions.filter((round) => round.name === name);
    const middle = (of: (round: Admissions) => number) =>
      rounds.map(of).sort((a, b) => a - b)[Math.floor(rounds.length / 2)] ?? Number.NaN;
    return `| ${name} | ${middle(({ perSecond }) => perSecond).toFixed(0)} | ${middle(({ p50 }) => p50).toFixed(1)} | ${middle(({ p99 }) => p99).toFixed(1)} |`;
  });
  return [
    '| hold + settle, 64 in flight | pairs a second | p50 ms | p99 ms |',
    '| --- | --: | --: | --: |',
    ...rows,
  ].join('\n');
}

/** Undefined when help was asked for. @throws UsageError */
function readPlan(args: readonly string[]): Plan | undefined {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        rows: { type: 'string', default: '10000000' },
        merchants: { type: 'string', default: '400' },
        seconds: { type: 'string', default: '10' },
        help: { type: 'boolean', default: false },
      },
      args: [...args],
    }));
  } catch {
    throw new UsageError(['an argument is not known, or lacks its value']);
  }
  if (values.help) return undefined;
  const plan = {
    rows: Number(values.rows),
    merchants: Number(values.merchants),
    seconds: Number(values.seconds),
  };
  const whole = (value: number, from: number, to: number) =>
    Number.isInteger(value) && value >= from && value <= to;
  const problems = [
    ...(whole(plan.rows, 1, 1_000_000_000) ? [] : ['--rows must be a whole number from 1']),
    ...(whole(plan.merchants, 2, 9_999) ? [] : ['--merchants must be a whole number from 2 to 9999']),
    ...(plan.seconds > 0 && plan.seconds <= 3_600 ? [] : ['--seconds must be a number above 0']),
  ];
  if (problems.length > 0) throw new UsageError(problems);
  return plan;
}

/** The first Ctrl-C stops in order; the second one ends at once. */
function signalled(): AbortSignal {
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (abort.signal.aborted) process.exit(130);
      abort.abort();
    });
  }
  return abort.signal;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GB`;
}

if (wasStarted(import.meta.url)) run('bench:rows', 'Not measured', main);
