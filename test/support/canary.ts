import type pg from 'pg';
import { parseToken } from '../../src/auth/token.ts';
import type { JournalEntry } from '../aws/journal.ts';
import { AWS } from './aws-keys.ts';
import { onServer } from './postgres.ts';
import type { TestService } from './service.ts';

/** What must be found nowhere, by name. */
export type Canaries = ReadonlyMap<string, string | Buffer>;

/** The middle of a base64 text that holds the bytes at any offset: what stays the same whatever stands around them. */
function insideBase64(bytes: Buffer): string[] {
  return [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .slice(shift === 0 ? 0 : shift + 1, Math.floor(((shift + bytes.length) * 4) / 3)),
  );
}

/** A secret in the forms in which it could travel. */
export function formsOf(secret: string | Buffer): Record<string, string[]> {
  const bytes = Buffer.from(secret);
  const text = bytes.toString('utf8');
  const base64 = insideBase64(bytes);
  return {
    raw: [text, bytes.toString('latin1')],
    base64,
    base64url: base64.map((form) => form.replaceAll('+', '-').replaceAll('/', '_')),
    hex: [bytes.toString('hex'), bytes.toString('hex').toUpperCase()],
    url: [encodeURIComponent(text), encodeURIComponent(text).replace(/%../g, (code) => code.toLowerCase())],
    json: [JSON.stringify(text).slice(1, -1), JSON.stringify(text).slice(1, -1).replaceAll('/', '\\/')],
  };
}

const remembered = new Map<string | Buffer, Record<string, string[]>>();

function rememberedForms(secret: string | Buffer): Record<string, string[]> {
  const forms = remembered.get(secret) ?? formsOf(secret);
  remembered.set(secret, forms);
  return forms;
}

/** @returns a line for each secret and form that is in the text; what was found is not in the line. */
export function find(wanted: Canaries, where: string, text: string): string[] {
  return [...wanted].flatMap(([name, secret]) =>
    Object.entries(rememberedForms(secret))
      .filter(([, forms]) => forms.some((form) => text.includes(form)))
      .map(([form]) => `${name} as ${form} in ${where}`),
  );
}

/** Searches every row of every table. */
export async function findInTables(wanted: Canaries, admin: Pick<pg.ClientBase, 'query'>): Promise<string[]> {
  const { rows: tables } = await admin.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`,
  );
  const found: string[] = [];
  for (const { name } of tables) {
    const { rows } = await admin.query<{ row: string }>(`SELECT t::text AS row FROM "${name}" t`);
    found.push(...find(wanted, `table ${name}`, rows.map(({ row }) => row).join('\n')));
  }
  return found;
}

/** Searches what KMS and Secrets Manager were sent: not even AWS is told in the clear what it is to keep. */
export function findInVault(wanted: Canaries, journal: readonly JournalEntry[]): string[] {
  return journal
    .filter(({ service }) => /^(kms|secretsmanager)$/.test(service))
    .map(({ bodyBase64 }) => Buffer.from(bodyBase64, 'base64').toString('latin1'))
    .flatMap((body) => find(wanted, 'the vault at AWS', body));
}

/** What proves in a token: the id in front of it is no secret. */
export function secretOf(token = ''): string {
  const secret = parseToken(token)?.secret.reveal();
  if (secret === undefined) throw new Error('is no token');
  return secret;
}

/** The secrets of a test service and of those whom `onboard` made at it. */
export function secretsAt({ env, operatorToken }: TestService, tokens: readonly string[]): Canaries {
  const setting = (name: string) => Buffer.from(env[name] ?? '', 'base64');
  return new Map<string, string | Buffer>([
    ...Object.entries(AWS).map(([name, key]) => [`AWS secret of ${name}`, key.secretAccessKey] as const),
    ...tokens.map((token, i) => [`API token ${String(i)}`, secretOf(token)] as const),
    ['operator token', secretOf(operatorToken)],
    ['pepper', setting('TOKEN_PEPPER')],
    ['session key', setting('SESSION_KEY')],
  ]);
}

/** Searches wherever a test service and its processes leave something: log, output, tables, and the vault at AWS. */
export async function findAround(
  wanted: Canaries,
  { logLines, database, standIn }: Pick<TestService, 'logLines' | 'database' | 'standIn'>,
  outputs: readonly string[] = [],
): Promise<string[]> {
  return [
    ...find(wanted, 'the log', logLines.join('\n')),
    ...outputs.flatMap((output) => find(wanted, 'an output', output)),
    ...(await onServer(database.adminUrl, (admin) => findInTables(wanted, admin))),
    ...findInVault(wanted, standIn.journal),
  ];
}
