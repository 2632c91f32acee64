import { loadDotEnv } from '../../src/config/env.ts';
import { SECRET_SETTINGS } from '../../src/config/secret-settings.ts';
import { MERCHANT_ID_PATTERN } from '../../src/domain/ids.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { RerateOrder } from '../../src/ledger/price-admin-store.ts';
import { readArguments } from './arguments.ts';
import type { Options, Values } from './arguments.ts';
import { UsageError } from './run.ts';

const OPTIONS = {
  approve: { type: 'string' },
  model: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  merchant: { type: 'string' },
  reason: { type: 'string' },
  'dry-run': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies Options;
type Flag = keyof typeof OPTIONS;
type Flags = Values<typeof OPTIONS>;

/** Each subcommand: whether it names a file, and its flags. */
const COMMANDS = {
  diff: { file: true, flags: [] },
  import: { file: true, flags: ['approve'] },
  list: { file: false, flags: ['model'] },
  export: { file: false, flags: [] },
  rerate: { file: false, flags: ['from', 'to', 'merchant', 'dry-run', 'reason'] },
} as const satisfies Record<string, { file: boolean; flags: readonly Flag[] }>;
type CommandName = keyof typeof COMMANDS;

export type PricesOrder =
  | { command: 'help' }
  | { command: 'diff'; adminUrl: Secret; file: string }
  | { command: 'import'; adminUrl: Secret; file: string; digest: string }
  | { command: 'list'; adminUrl: Secret; modelId: string | undefined }
  | { command: 'export'; adminUrl: Secret }
  | { command: 'rerate'; adminUrl: Secret; merchantId: MerchantId | undefined; order: RerateOrder };

const DIGEST = /^[0-9a-f]{64}$/;
const DAY = /^20\d{2}-\d{2}-\d{2}$/;
const MOMENT = /^20\d{2}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z$/;
const REASON = /^\P{C}{1,200}$/u;
/** Stands where a problem was found, and is never used. */
const NEVER = new Date(0);

/** What was asked for, with DATABASE_ADMIN_URL of the environment or .env. @throws UsageError with every problem. */
export function readOrder(argv: readonly string[]): PricesOrder {
  if (argv.length === 1 && (argv[0] === '--help' || argv[0] === '-h')) return { command: 'help' };
  const [name = '', ...rest] = argv;
  if (!isCommand(name))
    throw new UsageError([
      `${name === '' ? 'a command is missing' : 'the first argument is no command'}: ${Object.keys(COMMANDS).join(', ')}`,
    ]);
  const problems: string[] = [];
  const file = COMMANDS[name].file ? fileOf(name, rest, problems) : '';
  const { values: flags, problems: flagProblems } = readArguments(
    OPTIONS,
    COMMANDS[name].file && file !== '' ? rest.slice(1) : rest,
  );
  if (flags.help === true && flagProblems.length === 0) return { command: 'help' };
  problems.push(...flagProblems, ...strayProblems(name, flags));
  const adminUrl = readAdminUrl(problems);
  const order = orderOf(name, { file, flags, adminUrl }, problems);
  if (problems.length > 0) throw new UsageError(problems);
  return order;
}

function fileOf(name: CommandName, rest: readonly string[], problems: string[]): string {
  const [file = ''] = rest;
  if (file !== '' && !file.startsWith('-')) return file;
  if (!rest.includes('--help') && !rest.includes('-h'))
    problems.push(`${name} needs the file: ${name} FILE, before any flag`);
  return '';
}

function strayProblems(name: CommandName, flags: Flags): string[] {
  const own: readonly string[] = [...COMMANDS[name].flags, 'help'];
  return Object.keys(flags)
    .filter((flag) => !own.includes(flag))
    .map((flag) => `--${flag} does not go with ${name}`);
}

function orderOf(
  name: CommandName,
  { file, flags, adminUrl }: { file: string; flags: Flags; adminUrl: Secret },
  problems: string[],
): PricesOrder {
  switch (name) {
    case 'diff':
      return { command: name, adminUrl, file };
    case 'import': {
      const digest = flags.approve ?? '';
      if (!DIGEST.test(digest))
        problems.push(
          `--approve ${digest === '' ? 'is missing' : 'is none'}: the digest of 64 characters that diff prints`,
        );
      return { command: name, adminUrl, file, digest };
    }
    case 'list':
      return { command: name, adminUrl, modelId: flags.model };
    case 'export':
      return { command: name, adminUrl };
    case 'rerate':
      return { command: name, adminUrl, ...rerateOf(flags, problems) };
  }
}

function rerateOf(
  flags: Flags,
  problems: string[],
): { merchantId: MerchantId | undefined; order: RerateOrder } {
  const { merchant, reason = '' } = flags;
  const from = momentOf('from', flags.from, problems);
  const to = momentOf('to', flags.to, problems);
  if (from !== undefined && to !== undefined && from >= to) problems.push('--from must be before --to');
  if (merchant !== undefined && !MERCHANT_ID_PATTERN.test(merchant))
    problems.push('--merchant must be the id of a merchant');
  if (reason === '') problems.push('--reason is missing: why, for the audit trail');
  else if (!REASON.test(reason)) problems.push('--reason must be 1 to 200 characters');
  return {
    merchantId: merchant as MerchantId | undefined,
    order: { from: from ?? NEVER, to: to ?? NEVER, reason, dryRun: flags['dry-run'] === true },
  };
}

/** A day means its beginning in UTC. Undefined when it is none, which is added to `problems`. */
function momentOf(flag: 'from' | 'to', text: string | undefined, problems: string[]): Date | undefined {
  if (text === undefined) {
    problems.push(`--${flag} is missing: a day such as 2026-01-31, or a moment`);
    return undefined;
  }
  const date = new Date(text);
  // Days that no month has, such as 31 April, come out as another day.
  const isReal = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text.slice(0, 10));
  if (isReal && (DAY.test(text) || MOMENT.test(text))) return date;
  problems.push(
    `--${flag} must be a day such as 2026-01-31 or a moment such as 2026-01-31T09:30:00Z, in UTC`,
  );
  return undefined;
}

function readAdminUrl(problems: string[]): Secret {
  loadDotEnv();
  const url = process.env['DATABASE_ADMIN_URL'] ?? '';
  if (!SECRET_SETTINGS.databaseUrl.read.safeParse(url).success)
    problems.push(
      `DATABASE_ADMIN_URL ${url === '' ? 'is missing: a' : 'must be the'} postgres:// URL of an administrator's login`,
    );
  return new Secret(url);
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}
