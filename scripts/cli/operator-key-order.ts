import { readFileSync } from 'node:fs';
import { loadDotEnv } from '../../src/config/env.ts';
import { SECRET_SETTINGS } from '../../src/config/secret-settings.ts';
import { SETTINGS } from '../../src/config/settings.ts';
import { API_KEY_ID_PATTERN } from '../../src/domain/ids.ts';
import { OPERATOR_SCOPES } from '../../src/domain/principal.ts';
import type { OperatorScope } from '../../src/domain/principal.ts';
import { Secret } from '../../src/domain/secret.ts';
import { listOf, wholeNumber } from './arguments.ts';
import type { Options, Values } from './arguments.ts';
import type { OperatorKeyOrder } from './operator-keys.ts';
import { nameOf } from './run.ts';

export const ORDER_OPTIONS = {
  name: { type: 'string' },
  scopes: { type: 'string' },
  'expires-in-days': { type: 'string' },
  environment: { type: 'string' },
  list: { type: 'boolean' },
  revoke: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies Options;
type Flags = Values<typeof ORDER_OPTIONS>;

const OF_A_NEW_KEY = ['name', 'scopes', 'expires-in-days', 'environment'] as const;

interface KeySettings {
  adminUrl: string | undefined;
  pepper: Secret<Buffer> | undefined;
  pepperVersion: number | undefined;
}

/** Reads what is needed from the environment, with .env; what is wrong is added to `problems`. */
export function readSettings(flags: Flags, problems: string[]): KeySettings {
  loadDotEnv();
  const { env } = process;
  const adminUrl = env['DATABASE_ADMIN_URL'] ?? '';
  if (!SECRET_SETTINGS.databaseUrl.read.safeParse(adminUrl).success)
    problems.push(
      `DATABASE_ADMIN_URL ${adminUrl === '' ? 'is missing: a' : 'must be the'} postgres:// URL of an administrator's login`,
    );
  if (!makesKey(flags)) return { adminUrl, pepper: undefined, pepperVersion: undefined };

  const pepper = SECRET_SETTINGS.tokenPepper.read.safeParse(pepperText(problems));
  if (!pepper.success) problems.push(`TOKEN_PEPPER ${pepper.error.issues[0]?.message ?? 'is not valid'}`);
  const version = SETTINGS.tokenPepperVersion.read.safeParse(env['TOKEN_PEPPER_VERSION'] || '1');
  if (!version.success)
    problems.push(`TOKEN_PEPPER_VERSION ${version.error.issues[0]?.message ?? 'is not valid'}`);
  return {
    adminUrl,
    pepper: pepper.success ? new Secret(pepper.data) : undefined,
    pepperVersion: version.data,
  };
}

/** The key that the flags describe; undefined with --list and --revoke, and when something is wrong, which is added to `problems`. */
export function orderFrom(
  flags: Flags,
  { adminUrl, pepper, pepperVersion }: KeySettings,
  problems: string[],
): OperatorKeyOrder | undefined {
  if (!makesKey(flags)) {
    problems.push(...strayProblems(flags));
    return undefined;
  }
  const name = flags.name?.trim();
  const scopes = listOf(flags.scopes ?? OPERATOR_SCOPES.join(','));
  const expiresInDays = wholeNumber(flags['expires-in-days'] ?? '90');
  const environment = flags.environment ?? environmentHere();
  const must = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem);
  };
  if (name === undefined) problems.push('--name is missing: whose key it is');
  else must(name.length >= 1 && name.length <= 200, '--name must be 1 to 200 characters');
  must(scopes.length > 0 && scopes.every(isScope), `--scopes must be some of ${OPERATOR_SCOPES.join(', ')}`);
  must(expiresInDays >= 1 && expiresInDays <= 365, '--expires-in-days must be a whole number from 1 to 365');
  must(environment === 'live' || environment === 'test', '--environment must be live or test');
  if (problems.length > 0 || adminUrl === undefined || pepper === undefined) return undefined;
  return {
    adminUrl,
    pepper,
    ...(pepperVersion !== undefined && { pepperVersion }),
    name: name ?? '',
    scopes: scopes.filter(isScope),
    environment: environment === 'test' ? 'test' : 'live',
    expiresInDays,
  };
}

function strayProblems(flags: Flags): string[] {
  const what = flags.list === true ? '--list' : '--revoke';
  const problems = OF_A_NEW_KEY.filter((flag) => flags[flag] !== undefined).map(
    (flag) => `--${flag} does not go with ${what}`,
  );
  if (flags.list === true && flags.revoke !== undefined) problems.push('--list and --revoke: choose one');
  if (flags.revoke !== undefined && !API_KEY_ID_PATTERN.test(flags.revoke))
    problems.push('--revoke must be the id of a key: 12 letters or digits, as --list shows it');
  return problems;
}

/** As the service has it: anything but production takes test keys only. */
function environmentHere(): 'live' | 'test' {
  return (process.env['NODE_ENV'] || 'production') === 'production' ? 'live' : 'test';
}

function makesKey(flags: Flags): boolean {
  return flags.list !== true && flags.revoke === undefined;
}

function isScope(text: string): text is OperatorScope {
  return (OPERATOR_SCOPES as readonly string[]).includes(text);
}

function pepperText(problems: string[]): string {
  const { TOKEN_PEPPER: text = '', TOKEN_PEPPER_FILE: file = '' } = process.env;
  if (file === '') return text;
  if (text !== '') problems.push('TOKEN_PEPPER and TOKEN_PEPPER_FILE are both set: choose one');
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    problems.push(`TOKEN_PEPPER_FILE cannot be read (${nameOf(error)})`);
    return '';
  }
}
