import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { replay } from './replay.ts';
import type { Stage } from './replay.ts';
import { newStage, secretsKept } from './stage.ts';
import { runCommand } from './transcript.ts';

let service: TestService;
let overHttp: Stage;
let inDatabase: Stage;

beforeAll(async () => {
  service = await startTestService();
  overHttp = await newStage(service);
  const env = { ...service.env, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };
  inDatabase = { ...overHttp, env };
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

describe('onboard, through a running service', () => {
  test.each(['service/onboarded.txt', 'service/refused.txt'])('%s', async (file) => {
    await replay(file, overHttp);
  });

  test('service/vault-down.txt', async () => {
    const fault = service.standIn.fault({
      service: 'kms',
      status: 500,
      type: 'KMSInternalException',
      times: 'always',
    });
    await replay('service/vault-down.txt', overHttp);
    fault.remove();
  });
});

describe('onboard, in the database', () => {
  test.each(['database/onboarded.txt', 'database/refused.txt'])('%s', async (file) => {
    const kept = secretsKept(service);
    await replay(file, inDatabase);
    expect(secretsKept(service)).toBe(file === 'database/onboarded.txt' ? kept + 1 : kept);
  });

  test('database/vault-down.txt', async () => {
    const fault = service.standIn.fault({
      service: 'kms',
      status: 500,
      type: 'KMSInternalException',
      times: 'always',
    });
    await replay('database/vault-down.txt', inDatabase);
    fault.remove();
  });

  test('database/database-down.txt', async () => {
    const DATABASE_URL = 'postgres://app:CANARYpassword@127.0.0.1:9/x';
    const names = { ...inDatabase.names, DATABASE_URL };
    const env = { ...inDatabase.env, DATABASE_URL };
    await replay('database/database-down.txt', { ...inDatabase, names, env, secrets: ['DATABASE_URL'] });
  });

  test('database/wrong-login.txt', async () => {
    const env = { ...inDatabase.env, DATABASE_URL: service.database.adminUrl };
    await replay('database/wrong-login.txt', { ...inDatabase, env });
  });
});

describe('what onboarding made', () => {
  test('is told even when it cannot be printed: the merchant is there, the token is lost', async () => {
    const { code, stdout, stderr } = await runCommand(
      'scripts/onboard.ts',
      [
        '--url',
        service.url,
        '--merchant',
        'nobody-reads',
        '--name',
        'x',
        '--no-credential',
        '--secrets-stdin',
      ],
      {
        stdin: JSON.stringify({ operatorToken: service.operatorToken }),
        watch: (child) => child.stdout?.destroy(),
      },
    );
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /^The result could not be printed \(EPIPE\)\. nobody-reads is onboarded, but the token of its API key [0-9A-Za-z]{12} is lost\.\n$/,
    );
  });

  interface Made {
    merchantId: string;
    apiKeyId: string;
    token: string;
    credentialId: string;
  }

  test.each([
    ['through a service', () => ['--url', service.url]],
    ['in the database', () => []],
  ])('works at once, and the audit trail says who made it: %s', async (how, where) => {
    const merchantId = how === 'in the database' ? 'made-db' : 'made-http';
    const { names } = overHttp;
    const { code, stdout, stderr } = await runCommand(
      'scripts/onboard.ts',
      [
        ...where(),
        '--merchant',
        merchantId,
        '--name',
        'Made',
        '--region',
        'us-east-1',
        '--secrets-stdin',
        '--json',
      ],
      {
        env: how === 'in the database' ? (inDatabase.env ?? {}) : {},
        stdin: JSON.stringify({
          ...(how === 'in the database' ? {} : { operatorToken: names['OPERATOR_TOKEN'] }),
          awsAccessKeyId: names['KEY_ID'],
          awsSecretAccessKey: names['SECRET'],
        }),
      },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const made = JSON.parse(stdout) as Made;
    expect(Object.keys(made)).toEqual(['merchantId', 'apiKeyId', 'token', 'expiresAt', 'credentialId']);
    const merchant = new MerchantPerson(service.url, made);
    const chat = await merchant.post('/chat', { modelId: 'amazon.nova-micro-v1:0', prompt: 'Hello' });
    expect(chat.status).toBe(200);
    expect(chat.headers.get('x-bedrock-credential-source')).toBe('stored');
    const audit = await merchant.get('/audit');
    const items = audit.json['items'] as { action: string; actor: string }[];
    const created = items.filter(({ action }) => action.endsWith('.created'));
    expect(created.map(({ action }) => action).sort()).toEqual([
      'credential.created',
      'merchant.created',
      'token.created',
    ]);
    const actor = how === 'in the database' ? /^cli:.+/ : /^operator:.{12}$/;
    for (const event of created) expect(event.actor).toMatch(actor);
  });
});
