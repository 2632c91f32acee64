import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startStandIn } from '../aws/stand-in.ts';
import { newTestDatabase } from '../support/database.ts';
import { dropDatabase, onServer } from '../support/postgres.ts';
import { environmentFor, registerServiceAccount } from '../support/service-environment.ts';
import { startServiceProcess } from '../support/process.ts';
import { runCommand } from './transcript.ts';

const EMPTY = `mb_empty_${randomBytes(6).toString('hex')}`;
const ROLE = `mb_role_${randomBytes(6).toString('hex')}`;
const clusterUrl = () => process.env['TEST_ADMIN_URL'] ?? '';
const emptyUrl = () => Object.assign(new URL(clusterUrl()), { pathname: `/${EMPTY}` }).href;
const closers: (() => PromiseLike<unknown>)[] = [];
let env: Record<string, string>;
let adminUrl: string;

beforeAll(async () => {
  await onServer(clusterUrl(), (client) => client.query(`CREATE DATABASE ${EMPTY}`));
  await onServer(clusterUrl(), (client) => client.query(`CREATE ROLE ${ROLE} LOGIN PASSWORD 'x'`));
  const database = await newTestDatabase();
  const standIn = await startStandIn();
  env = environmentFor(database.url, standIn.url, registerServiceAccount(standIn).arn);
  ({ adminUrl } = database);
  closers.push(
    () => database[Symbol.asyncDispose](),
    () => standIn.close(),
    () => dropDatabase(clusterUrl(), EMPTY),
    () => onServer(clusterUrl(), (client) => client.query(`DROP ROLE ${ROLE}`)),
  );
});
afterAll(async () => {
  for (const close of closers) await close();
});

const main = (args: string[], settings: Record<string, string> = env) =>
  runCommand('src/main.ts', args, { env: settings });

describe('npm start', () => {
  test('--help', async () => {
    const { code, stdout, stderr } = await main(['--help'], {});
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const flag of ['--port', '--config', '--check-config', '--help']) expect(stdout).toContain(flag);
  });

  test('--check-config says that all is well, and lists everything that is missing', async () => {
    expect(await main(['--check-config'])).toMatchObject({
      code: 0,
      stdout: 'The configuration is complete and the database is ready.\n',
    });
    const none = await main(['--check-config'], {});
    expect(none).toMatchObject({ code: 2, stdout: '' });
    for (const name of ['AWS_REGION', 'VAULT_KMS_KEY_ID', 'DATABASE_URL', 'TOKEN_PEPPER', 'SESSION_KEY'])
      expect(none.stderr).toContain(`  - ${name} is missing.`);
  });

  test('refuses a login that row security does not bind, and a database without tables, and says how to mend it', async () => {
    const superuser = await main(['--check-config'], { ...env, DATABASE_URL: adminUrl });
    expect(superuser).toMatchObject({ code: 1, stdout: '' });
    expect(superuser.stderr).toContain('which row security does not bind');
    expect(superuser.stderr).toContain('npm run migrate -- --grant-to');
    const url = new URL(env['DATABASE_URL'] ?? '');
    // A database that is never migrated: the cluster's own.
    url.pathname = '/postgres';
    const unmigrated = await main(['--check-config'], { ...env, DATABASE_URL: url.href });
    expect(unmigrated).toMatchObject({ code: 1, stdout: '' });
    expect(unmigrated.stderr).toContain('The database is not migrated');
    expect(unmigrated.stderr).toContain('npm run migrate -- --grant-to');
  });

  test('--port and --config win over PORT and CONFIG_FILE', async () => {
    const file = path.join(tmpdir(), `config-${randomBytes(6).toString('hex')}.yaml`);
    writeFileSync(file, 'port: 1\nunknownThing: 1\n');
    const refused = await main(['--check-config', '--config', file], {
      ...env,
      CONFIG_FILE: '/nowhere.yaml',
    });
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toContain('CONFIG_FILE has an unknown setting "unknownThing"');
    await using service = await startServiceProcess({ ...env, PORT: '1' }, ['--port', '0']);
    expect((await fetch(`${service.url}/health/live`)).status).toBeLessThan(500);
  });
});

describe('npm run migrate', () => {
  const migrate = (args: string[], url: string) =>
    runCommand('scripts/migrate.ts', args, { env: { DATABASE_ADMIN_URL: url } });

  test('an empty database, twice, and a role that may then run the service', async () => {
    const first = await migrate([], emptyUrl());
    expect(first).toMatchObject({ code: 0, stderr: '' });
    expect(first.stdout).toMatch(/^Applied: 20261121000000_init(, \S+)*\n$/);
    expect(await migrate(['--grant-to', ROLE], emptyUrl())).toEqual({
      code: 0,
      stdout: `The database is up to date.\n${ROLE} may now run the service.\n`,
      stderr: '',
    });
    const url = Object.assign(new URL(emptyUrl()), { username: ROLE, password: 'x' }).href;
    expect(await main(['--check-config'], { ...env, DATABASE_URL: url })).toMatchObject({ code: 0 });
  });

  test('refuses without a URL, with a wrong one, and for a role that is not there; the URL is not shown', async () => {
    expect(await runCommand('scripts/migrate.ts', [], {})).toEqual({
      code: 2,
      stdout: '',
      stderr:
        "Not migrated, nothing was written:\n  - DATABASE_ADMIN_URL is missing: a postgres:// URL of an administrator's login\n\nnpm run migrate -- --help explains every flag.\n",
    });
    expect(await migrate([], 'postgres://u:CANARY@127.0.0.1:9/x')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Not migrated: ECONNREFUSED\n',
    });
    const wrong = Object.assign(new URL(emptyUrl()), { password: 'CANARY' }).href;
    const refused = await migrate([], wrong);
    expect(refused).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Not migrated: password authentication failed for user "postgres"\n',
    });
    const positional = await migrate(['postgres://u:CANARY@h/x'], emptyUrl());
    expect(positional).toMatchObject({ code: 2, stdout: '' });
    expect(positional.stderr).not.toContain('CANARY');
  });

  test('--help', async () => {
    const { code, stdout, stderr } = await runCommand('scripts/migrate.ts', ['--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Example');
  });
});
