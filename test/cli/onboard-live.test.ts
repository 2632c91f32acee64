import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { mintToken } from '../../src/auth/token.ts';
import { AWS } from '../support/aws-keys.ts';
import { movingClock } from '../support/moving-clock.ts';
import { Person } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { runCommand, withPlaceholders } from './transcript.ts';
import type { Transcript } from './transcript.ts';

const KEYS = {
  awsAccessKeyId: AWS.merchantA.accessKeyId,
  awsSecretAccessKey: AWS.merchantA.secretAccessKey,
};
const WRONG_SECRET = { ...KEYS, awsSecretAccessKey: 'CANARY'.padEnd(40, 'y') };
const UNKNOWN_KEY = { ...KEYS, awsAccessKeyId: 'AKIANOBODY0000000000' };
const QUIET = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };

const monotonic = movingClock();
let service: TestService;

beforeAll(async () => {
  service = await startTestService({}, undefined, { monotonic });
  service.standIn.addAccessKey(AWS.merchantA);
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

const flags = (merchant: string) => ['--merchant', merchant, '--name', 'Acme', '--region', 'us-east-1'];

function overRest(merchant: string, secrets: object, args = ['--secrets-stdin']): Promise<Transcript> {
  const document = JSON.stringify({ operatorToken: service.operatorToken, ...secrets });
  const input = args.includes('--secrets-fd') ? { fd3: document } : { stdin: document };
  return runCommand('scripts/onboard.ts', ['--url', service.url, ...flags(merchant), ...args], input);
}

function intoDatabase(merchant: string, secrets: object): Promise<Transcript> {
  return runCommand('scripts/onboard.ts', [...flags(merchant), '--secrets-stdin'], {
    env: { ...service.env, ...QUIET },
    stdin: JSON.stringify(secrets),
  });
}

/** The rows of every table. A refused token leaves a trace in the operators' own audit chain, and nowhere else. */
function countRows(): Promise<Record<string, string>> {
  return onServer(service.database.adminUrl, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 1`,
    );
    const counts: Record<string, string> = {};
    for (const { name } of rows) {
      const where = ['audit_events', 'audit_heads', 'audit_leaves'].includes(name)
        ? `WHERE merchant_id <> '~system'`
        : '';
      const { rows: found } = await client.query<{ count: string }>(
        `SELECT count(*) FROM "${name}" ${where}`,
      );
      counts[name] = found[0]?.count ?? '';
    }
    return counts;
  });
}

/** Names of secrets that were made in Secrets Manager and not removed again. */
function secretsLeft(): string[] {
  const made = new Set<string>();
  for (const { operation, bodyBase64, status } of service.standIn.journal) {
    const body = Buffer.from(bodyBase64, 'base64').toString();
    if (operation === 'CreateSecret' && status === 200) made.add((JSON.parse(body) as { Name: string }).Name);
    if (operation === 'DeleteSecret' && status === 200)
      made.delete((JSON.parse(body) as { SecretId: string }).SecretId);
  }
  return [...made];
}

const made = (operation: string) =>
  service.standIn.journal.filter((one) => one.operation === operation).length;

describe('onboard, all of it', () => {
  test.each([
    ['through a service', (id: string) => overRest(id, KEYS)],
    ['into the database', (id: string) => intoDatabase(id, KEYS)],
  ])('%s: prints ids and a token that works, to stdout and nowhere else', async (name, onboard) => {
    const id = name.replaceAll(' ', '-');
    const transcript = await onboard(id);
    const { code, stdout, stderr } = withPlaceholders(transcript);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`${id} is onboarded.

  merchant     ${id}
  credential   <credential>
  API key      <key id>, until <date>
  token        <mbk test token>
`);
    const merchant = new Person(service.url, /mbk_\S+/.exec(transcript.stdout)?.[0]);
    const credentials = await merchant.get(`/api/merchants/${id}/bedrock/credentials`);
    expect((credentials.json['items'] as unknown[])[0]).toMatchObject({
      accountId: AWS.merchantA.accountId,
      isDefault: true,
    });
    expect(secretsLeft()).toHaveLength(1);
  });

  test('--secrets-fd and --json: one line for a program', async () => {
    const { code, stdout, stderr } = await overRest('fd-three', KEYS, ['--secrets-fd', '3', '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^\{.*\}\n$/);
    expect(Object.keys(JSON.parse(stdout) as object)).toEqual([
      'merchantId',
      'apiKeyId',
      'token',
      'expiresAt',
      'credentialId',
    ]);
  });

  test.each(['through a service', 'into the database'])(
    'a role, %s: prints its trust policy, and is active after --activate',
    async (how) => {
      const id = `role-${how.replaceAll(' ', '-')}`;
      const overHttp = how === 'through a service';
      const run = (args: string[], secrets: object) =>
        runCommand('scripts/onboard.ts', overHttp ? ['--url', service.url, ...args] : args, {
          stdin: JSON.stringify(secrets),
          ...(!overHttp && { env: { ...service.env, ...QUIET } }),
        });
      const { operatorToken } = service;
      const first = await run(
        [...flags(id), '--kind', 'assume-role', '--models', 'amazon.nova-micro-v1:0', '--secrets-stdin'],
        overHttp ? { operatorToken } : {},
      );
      expect(first).toMatchObject({ code: 0, stderr: '' });
      const [token = ''] = /mbk_\S+/.exec(first.stdout) ?? [];
      const [, externalId = ''] = /"sts:ExternalId": "(\S+)"/.exec(first.stdout) ?? [];
      const [, credential = '', where = ''] =
        /npm run onboard --(?: --url \S+)? --merchant \S+ --credential (\S+) (--activate) </.exec(
          first.stdout,
        ) ?? [];
      expect(where).toBe('--activate');
      expect(first.stdout).toContain('foundation-model/amazon.nova-micro-v1:0');

      const arn = 'arn:aws:iam::100000000001:role/merchant-bedrock';
      const prove = () =>
        run(
          [
            '--merchant',
            id,
            '--credential',
            credential,
            '--activate',
            arn,
            ...(overHttp ? ['--secrets-stdin'] : []),
          ],
          { merchantToken: token },
        );
      service.standIn.addRole({ arn });
      const lax = await prove();
      expect(lax).toMatchObject({ code: 1, stdout: '' });
      expect(lax.stderr).toContain('Not active: credential.unsafe');
      expect(lax.stderr).toContain('"sts:ExternalId"');
      service.standIn.addRole({ arn, externalId });
      monotonic.rest();
      const proven = await prove();
      expect(proven).toMatchObject({ code: 0, stderr: '' });
      expect(proven.stdout).toContain(`${credential} is active, and the default of ${id}`);
      expect(proven.stdout + lax.stderr).not.toContain(token);
    },
  );

  test('--activate with what does not belong to it: all of it is said, and nothing is done', async () => {
    const transcript = await runCommand('scripts/onboard.ts', [
      '--url',
      service.url,
      '--activate',
      'arn:aws:sts::100000000001:assumed-role/x/y',
      '--kind',
      'assume-role',
      '--region',
      'us-east-1',
    ]);
    expect(transcript).toMatchObject({ code: 2, stdout: '' });
    for (const part of [
      '--activate must be the ARN',
      '--merchant',
      '--credential',
      '--kind',
      '--region',
      'no secrets',
    ])
      expect(transcript.stderr).toContain(part);
    expect(service.standIn.journal).toEqual([]);
  });

  test('--no-credential asks AWS nothing and makes none', async () => {
    const args = [
      '--merchant',
      'no-credential',
      '--name',
      'x',
      '--no-credential',
      '--secrets-stdin',
      '--json',
    ];
    const { code, stdout } = await runCommand('scripts/onboard.ts', ['--url', service.url, ...args], {
      stdin: JSON.stringify({ operatorToken: service.operatorToken }),
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ credentialId: null });
    expect(service.standIn.journal).toEqual([]);
  });
});

describe('onboard, nothing of it', () => {
  const EXISTS = `Not onboarded, nothing was written: merchant.already_exists
  A merchant "taken" exists already. Choose another id. More API keys for that one are made with one of its own: POST …/api-keys.
  requestId: <request id>
`;
  const cases: [string, () => Promise<Transcript>, string | RegExp][] = [
    ['the merchant exists, service', () => overRest('taken', KEYS), EXISTS],
    ['the merchant exists, database', () => intoDatabase('taken', KEYS), EXISTS],
    ['AWS does not know the key', () => overRest('refused', UNKNOWN_KEY), /: credential\.refused_by_aws\n/],
    ['AWS refuses the secret', () => overRest('refused', WRONG_SECRET), /: credential\.refused_by_aws\n/],
    ['AWS refuses, database', () => intoDatabase('refused', WRONG_SECRET), /: credential\.refused_by_aws\n/],
    [
      'the token is nobody’s',
      () => overRest('refused', { ...KEYS, operatorToken: mintToken('operator', 'test').text }),
      /: auth\.invalid_token\n/,
    ],
  ];
  beforeAll(async () => {
    expect(await overRest('taken', KEYS)).toMatchObject({ code: 0 });
  });

  test.each(cases)('%s', async (_name, run, expected) => {
    const before = await countRows();
    const transcript = await run();
    const { code, stdout, stderr } = withPlaceholders(transcript);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    if (typeof expected === 'string') expect(stderr).toBe(expected);
    else expect(stderr).toMatch(expected);
    expect(stderr).toMatch(/^Not onboarded, nothing was written: /);
    for (const secret of [KEYS.awsSecretAccessKey, 'CANARY', service.operatorToken])
      expect(transcript.stderr).not.toContain(secret);
    expect(await countRows()).toEqual(before);
    expect(secretsLeft()).toEqual([]);
    expect(made('DeleteSecret')).toBe(made('CreateSecret'));
  });
});

test('secrets are not in the arguments of the running process', async () => {
  let seen = '';
  const { code } = await runCommand(
    'scripts/onboard.ts',
    ['--url', service.url, ...flags('ps'), '--secrets-stdin'],
    {
      stdin: JSON.stringify({ operatorToken: service.operatorToken, ...KEYS }),
      watch: (child) => {
        seen = readFileSync(`/proc/${String(child.pid)}/cmdline`, 'utf8');
      },
    },
  );
  expect(code).toBe(0);
  expect(seen).toContain('--secrets-stdin');
  for (const secret of [KEYS.awsSecretAccessKey, service.operatorToken]) expect(seen).not.toContain(secret);
});
