import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AWS } from '../support/aws-keys.ts';
import { onboard } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { replay } from './replay.ts';
import type { Stage } from './replay.ts';
import { runCommand } from './transcript.ts';

/** The same in every run, so that its name is. */
const keyOf = (name: string) => createHash('sha256').update(`of a test: ${name}`).digest('base64');
const OLD = { TOKEN_PEPPER: keyOf('pepper 1'), SESSION_KEY: keyOf('session 1') };
const NEW = {
  TOKEN_PEPPER: keyOf('pepper 2'),
  TOKEN_PEPPER_VERSION: '2',
  TOKEN_PEPPER_PREVIOUS: OLD.TOKEN_PEPPER,
  SESSION_KEY: keyOf('session 2'),
  SESSION_KEY_PREVIOUS: OLD.SESSION_KEY,
  VAULT_KMS_KEY_ID: 'alias/next',
};

let service: TestService;
let stage: Stage;

beforeAll(async () => {
  service = await startTestService(OLD);
  const place = { accountId: AWS.service.accountId, region: 'us-east-1' };
  service.standIn.addKmsKey({ keyId: '22222222-2222-3333-4444-555555555555', alias: 'alias/next', ...place });
  const merchant = await onboard(service, 'merchant-a');
  await onboard(service, 'merchant-b', { awsKey: AWS.merchantB });
  await merchant.post('/webhooks', { url: 'http://127.0.0.1:49151/x' });
  const env = {
    ...service.env,
    ...NEW,
    DATABASE_ADMIN_URL: service.database.adminUrl,
    AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
  };
  stage = {
    names: { PEPPER: NEW.TOKEN_PEPPER, SESSION: NEW.SESSION_KEY, OLD_SESSION: OLD.SESSION_KEY },
    secrets: ['PEPPER', 'SESSION', 'OLD_SESSION'],
    env,
    countRows: () =>
      onServer(service.database.adminUrl, async (client) => {
        const { rows } = await client.query<object>(
          `SELECT kms_key_arn, count(*) FROM credential_versions GROUP BY 1 ORDER BY 1`,
        );
        return rows;
      }),
  };
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

describe('keys', () => {
  // In this order: what is moved is under another key afterwards.
  test.each(['help.txt', 'bad-arguments.txt', 'status.txt', 'rewrap.txt', 'after.txt'])(
    '%s',
    async (file) => {
      await replay(`keys/${file}`, stage);
    },
  );

  test('failing.txt', async () => {
    const { env = {} } = stage;
    service.standIn.setKmsKeyState('22222222-2222-3333-4444-555555555555', 'Disabled');
    await replay('keys/failing.txt', {
      ...stage,
      env: { ...env, VAULT_KMS_KEY_ID: service.env['VAULT_KMS_KEY_ID'] ?? '' },
    });
  });

  test('unreached.txt', async () => {
    const { env = {} } = stage;
    await replay('keys/unreached.txt', { ...stage, env: { ...env, VAULT_KMS_KEY_ID: 'alias/none' } });
  });

  test('what is under a key that no setting has is an exit code of its own', async () => {
    const { TOKEN_PEPPER_PREVIOUS: _pepper, SESSION_KEY_PREVIOUS: _session, ...env } = stage.env ?? {};
    service.standIn.setKmsKeyState('22222222-2222-3333-4444-555555555555', 'Enabled');
    const { code, stdout } = await runCommand('scripts/keys.ts', ['status', '--json'], { env });
    expect({ code, unknown: (JSON.parse(stdout) as { underUnknownKeys: number }).underUnknownKeys }).toEqual({
      code: 1,
      unknown: 4,
    });
  });
});
