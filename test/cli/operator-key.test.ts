import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onServer } from '../support/postgres.ts';
import { Person } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { runCommand, withPlaceholders } from './transcript.ts';

const SCRIPT = 'scripts/operator-key.ts';

let service: TestService;
let env: Record<string, string>;

beforeAll(async () => {
  service = await startTestService({ TOKEN_PEPPER_VERSION: '1' });
  env = { DATABASE_ADMIN_URL: service.database.adminUrl, TOKEN_PEPPER: service.env['TOKEN_PEPPER'] ?? '' };
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

function query<T extends object>(sql: string): Promise<T[]> {
  return onServer(service.database.adminUrl, async (client) => (await client.query<T>(sql)).rows);
}
const countKeys = async () =>
  (
    await query<{ keys: string; events: string }>(
      `SELECT (SELECT count(*) FROM operator_keys) AS keys, (SELECT count(*) FROM audit_events) AS events`,
    )
  )[0];

describe('operator-key', () => {
  test('makes a key that the service accepts, and revokes it, with an audit event for each', async () => {
    const made = await runCommand(
      SCRIPT,
      ['--name', 'Jo', '--environment', 'test', '--scopes', 'ops:merchants:read'],
      {
        env,
      },
    );
    expect(withPlaceholders(made)).toEqual({
      code: 0,
      stderr: '',
      stdout: `operator key  <key id>, until <date>
token         <mbo test token>

Keep the token: it is not shown again.
`,
    });
    const [token = ''] = /mbo_\S+/.exec(made.stdout) ?? [];
    const id = token.split('_')[2] ?? '';
    const operator = new Person(service.url, token);
    expect((await operator.get('/api/ops/merchants')).status).toBe(200);
    expect((await operator.get('/api/ops/usage')).status).toBe(403);

    const listed = await runCommand(SCRIPT, ['--list', '--json'], { env });
    const keys = listed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(keys.find((key) => key['id'] === id)).toMatchObject({
      name: 'Jo',
      state: 'active',
      environment: 'test',
      scopes: ['ops:merchants:read'],
      revokedAt: null,
    });
    expect(listed.stdout).not.toContain(token);
    expect(listed.stdout).not.toContain('hash');

    const revoked = await runCommand(SCRIPT, ['--revoke', id], { env });
    expect(revoked).toEqual({ code: 0, stdout: `${id} is revoked.\n`, stderr: '' });
    expect((await operator.get('/api/ops/merchants')).status).toBe(401);
    expect((await runCommand(SCRIPT, ['--revoke', id], { env })).code).toBe(0);
    const table = await runCommand(SCRIPT, ['--list'], { env });
    expect(table.stdout).toMatch(
      new RegExp(`^${id}  revoked  test  until .* {2}ops:merchants:read  Jo$`, 'm'),
    );

    const events = await query(
      `SELECT action FROM audit_events WHERE merchant_id = '~system' AND resource = 'operator-key/${id}' ORDER BY seq`,
    );
    expect(events).toEqual([{ action: 'token.created' }, { action: 'token.revoked' }]);
  });

  test('follows TOKEN_PEPPER_VERSION and TOKEN_PEPPER_FILE; live, 90 days and all scopes unless said otherwise', async () => {
    const file = path.join(tmpdir(), `pepper-${randomBytes(6).toString('hex')}`);
    writeFileSync(file, `${env['TOKEN_PEPPER'] ?? ''}\n`, { mode: 0o600 });
    const made = await runCommand(SCRIPT, ['--name', 'ci', '--json'], {
      env: {
        DATABASE_ADMIN_URL: service.database.adminUrl,
        TOKEN_PEPPER_FILE: file,
        TOKEN_PEPPER_VERSION: '7',
      },
    });
    expect(made).toMatchObject({ code: 0, stderr: '' });
    const { id, token } = JSON.parse(made.stdout) as { id: string; token: string };
    expect(token).toMatch(/^mbo_live_/);
    expect(
      await query(`SELECT pepper_version, array_length(scopes, 1) AS scopes,
        round(extract(epoch FROM expires_at - created_at) / 86400)::int AS days FROM operator_keys WHERE id = '${id}'`),
    ).toEqual([{ pepper_version: 7, scopes: 4, days: 90 }]);
  });

  test.each([
    [
      'without settings',
      ['--name', 'x'],
      {},
      [
        "DATABASE_ADMIN_URL is missing: a postgres:// URL of an administrator's login",
        'TOKEN_PEPPER must be 32 random bytes in base64 (make one with: openssl rand -base64 32)',
      ],
    ],
    [
      'wrong values, all at once',
      ['--scopes', 'ops:everything', '--expires-in-days', '366', '--environment', 'prod'],
      { DATABASE_ADMIN_URL: 'mysql://u:CANARY@h/x', TOKEN_PEPPER: 'CANARY', TOKEN_PEPPER_VERSION: '0' },
      [
        "DATABASE_ADMIN_URL must be the postgres:// URL of an administrator's login",
        'TOKEN_PEPPER must be 32 random bytes in base64 (make one with: openssl rand -base64 32)',
        'TOKEN_PEPPER_VERSION must be a whole number from 1 to 1000000',
        '--name is missing: whose key it is',
        '--scopes must be some of ops:merchants:read, ops:merchants:write, ops:usage:read, ops:audit:read',
        '--expires-in-days must be a whole number from 1 to 365',
        '--environment must be live or test',
      ],
    ],
    [
      'flags that do not go together',
      ['--list', '--revoke', 'x', '--name', 'y'],
      { DATABASE_ADMIN_URL: 'postgres://u:CANARY@h/x' },
      [
        '--name does not go with --list',
        '--list and --revoke: choose one',
        '--revoke must be the id of a key: 12 letters or digits, as --list shows it',
      ],
    ],
  ])('refuses: %s', async (_name, args, environment, problems) => {
    expect(await runCommand(SCRIPT, args, { env: environment as unknown as Record<string, string> })).toEqual(
      {
        code: 2,
        stdout: '',
        stderr: `No key was made or changed, nothing was written:\n${problems.map((one) => `  - ${one}\n`).join('')}
npm run operator-key -- --help explains every flag.\n`,
      },
    );
  });

  test('writes nothing when the database refuses, and never shows its URL', async () => {
    const before = await countKeys();
    const order = ['--name', 'x'];
    const login = await runCommand(SCRIPT, order, {
      env: { ...env, DATABASE_ADMIN_URL: service.database.url },
    });
    expect(login).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'No key was made or changed. The database of DATABASE_ADMIN_URL refused (42501): permission denied for table operator_keys\n',
    });
    const down = await runCommand(SCRIPT, order, {
      env: { ...env, DATABASE_ADMIN_URL: 'postgres://u:CANARY@127.0.0.1:9/x' },
    });
    expect(down).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'No key was made or changed. The database of DATABASE_ADMIN_URL cannot be reached (ECONNREFUSED).\n',
    });
    const unknown = await runCommand(SCRIPT, ['--revoke', '0Ab1Cd2Ef3Gh'], { env });
    expect(unknown).toMatchObject({ code: 1, stdout: '' });
    expect(await countKeys()).toEqual(before);
  });

  test('rolls the key back when its audit event cannot be written', async () => {
    const block = (sql: string) => query(sql);
    await block(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse()`);
    const before = await countKeys();
    expect(await runCommand(SCRIPT, ['--name', 'x'], { env })).toMatchObject({ code: 1, stdout: '' });
    expect(await countKeys()).toEqual(before);
    await block('DROP TRIGGER refuse ON audit_events; DROP FUNCTION refuse()');
  });
});
