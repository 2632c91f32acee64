/** Old months of the ledger go to the schema `archive`; what they count stays as opening balances. */
import { loadDotEnv } from '../src/config/env.ts';
import { SECRET_SETTINGS } from '../src/config/secret-settings.ts';
import { Secret } from '../src/domain/secret.ts';
import { RetentionStore } from '../src/ledger/retention-store.ts';
import type { OldMonth, Retired } from '../src/ledger/retention-store.ts';
import { administrator, withAdminDatabase } from './cli/admin-database.ts';
import { readArguments, wholeNumber } from './cli/arguments.ts';
import { print, run, UsageError } from './cli/run.ts';

const HELP = `Usage: npm run retention -- --keep-months N [--apply]

Takes whole months of calls that ended more than N months ago out of the ledger, into the schema archive. Nothing is dropped; usage, limits,
credit and the proof of the books stay as they are. A month with a call that is held or unknown stays where it is. Without --apply it
says what it would do, and does nothing. Safe to repeat.

  --keep-months N    2 to 1200: months that stay, beside the one that runs
  --apply            does it, a month in each transaction. The service runs on
  --help, -h         prints this

From the environment or .env
  DATABASE_ADMIN_URL   postgres:// URL of a login that owns the tables, as for npm run migrate

Example
  npm run retention -- --keep-months 13
  npm run retention -- --keep-months 13 --apply

Exit code: 0 done, or nothing to do; 1 a month stays, or the database refused; 2 bad input, all of it listed.
`;

/** The rows of a month are counted and summed in one statement. */
const STATEMENT_TIMEOUT_MS = 3_600_000;
const KEEP_MIN = 2;
const KEEP_MAX = 1_200;

async function main(): Promise<void> {
  const order = readOrder(process.argv.slice(2));
  if (order === undefined) return print(HELP, '');
  const { adminUrl, keepMonths, apply } = order;
  const ifFailed = 'Not done to the end; what was printed is done, and running it again does the rest.';
  await withAdminDatabase(
    adminUrl,
    { ifFailed, statementTimeoutMs: STATEMENT_TIMEOUT_MS },
    async (database) => {
      const store = new RetentionStore(database);
      const months = await store.oldMonths(keepMonths);
      if (months.length === 0) await print('No month is that old.\n', '');
      for (const month of months) {
        const blocked = month.held + month.unknown > 0;
        if (blocked) process.exitCode = 1;
        if (!apply || blocked) {
          await print(`${summary(month)}: ${blocked ? `stays, ${why(month)}` : 'would go'}\n`, '');
          continue;
        }
        const retired = await store.retire(administrator(), month.month);
        if (retired.state === 'blocked') process.exitCode = 1;
        await print(`${summary(month)}: ${outcomeText(retired)}\n`, `${month.month} was done.`);
        if (retired.state === 'retired') await print(laterText(month.table), '');
      }
      if (!apply && months.length > 0) await print('Nothing was done; --apply does it.\n', '');
    },
  );
}

interface RetentionOrder {
  adminUrl: Secret;
  keepMonths: number;
  apply: boolean;
}

/** Undefined: help. @throws UsageError with every problem. */
function readOrder(argv: readonly string[]): RetentionOrder | undefined {
  const { values: flags, problems } = readArguments(
    { 'keep-months': { type: 'string' }, apply: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    argv,
  );
  if (flags.help === true && problems.length === 0) return undefined;
  loadDotEnv();
  const url = process.env['DATABASE_ADMIN_URL'] ?? '';
  if (!SECRET_SETTINGS.databaseUrl.read.safeParse(url).success)
    problems.push(
      `DATABASE_ADMIN_URL ${url === '' ? 'is missing: a' : 'must be the'} postgres:// URL of an administrator's login`,
    );
  const keepMonths = wholeNumber(flags['keep-months'] ?? '');
  if (!(keepMonths >= KEEP_MIN && keepMonths <= KEEP_MAX))
    problems.push(
      `--keep-months ${flags['keep-months'] === undefined ? 'is missing' : 'must be'}: a whole number from ${String(KEEP_MIN)} to ${String(KEEP_MAX)}`,
    );
  if (problems.length > 0) throw new UsageError(problems);
  return { adminUrl: new Secret(url), keepMonths, apply: flags.apply === true };
}

function summary({ month, calls, bytes }: OldMonth): string {
  return `${month.slice(0, 7)}  ${String(calls)} calls  ${(bytes / 1_048_576).toFixed(1)} MiB`;
}

function why({ held, unknown }: { held: number; unknown: number }): string {
  return `${String(held)} held and ${String(unknown)} unknown calls are not resolved`;
}

function outcomeText(retired: Retired): string {
  switch (retired.state) {
    case 'retired':
      return `went to the archive, ${String(retired.merchants)} merchants`;
    case 'blocked':
      return `stays, ${why(retired)}`;
    case 'gone':
      return 'somebody else was faster';
  }
}

/** What the operator may run then, and this never does. */
function laterText(table: string): string {
  return `  pg_dump "$DATABASE_ADMIN_URL" --format=custom --table=archive.${table} --file=${table}.dump\n  DROP TABLE archive.${table};\n`;
}

run('retention', 'Not done', main);
