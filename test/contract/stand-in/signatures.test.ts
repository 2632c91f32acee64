import { createHash, createHmac } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { ListFoundationModelsCommand } from '@aws-sdk/client-bedrock';
import { ConverseCommand } from '@aws-sdk/client-bedrock-runtime';
import { ListAliasesCommand } from '@aws-sdk/client-kms';
import { ListSecretsCommand } from '@aws-sdk/client-secrets-manager';
import { GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import {
  ALICE,
  NOVA,
  bedrockClient,
  kmsClient,
  refusal,
  runtimeClient,
  secretsClient,
  startWithMerchants,
  stsClient,
  userSays,
} from './clients.ts';
import type { Credentials } from './clients.ts';
import type { StandIn } from '../../aws/stand-in.ts';

let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterEach(() => {
  standIn.forget();
});
afterAll(() => standIn.close());

const converse = new ConverseCommand({ modelId: NOVA, messages: userSays('hi') });

/** The same question to all five services. */
const CALLS: Record<string, (who: Credentials) => Promise<unknown>> = {
  'bedrock-runtime over h2': (who) => runtimeClient(standIn, 'h2', who).send(converse),
  'bedrock-runtime over h1': (who) => runtimeClient(standIn, 'h1', who).send(converse),
  bedrock: (who) => bedrockClient(standIn, who).send(new ListFoundationModelsCommand({})),
  kms: (who) => kmsClient(standIn, who).send(new ListAliasesCommand({})),
  secretsmanager: (who) => secretsClient(standIn, who).send(new ListSecretsCommand({})),
  sts: (who) => stsClient(standIn, who).send(new GetCallerIdentityCommand({})),
};

describe.each(Object.entries(CALLS))('%s', (name, call) => {
  const json11 = name === 'kms' || name === 'secretsmanager';
  const status = json11 ? 400 : 403;

  test('refuses a wrong secret', async () => {
    const expected = name === 'sts' ? 'SignatureDoesNotMatch' : 'InvalidSignatureException';
    expect(await refusal(call({ ...ALICE, secretAccessKey: 'wrong' }))).toMatchObject({
      name: expected,
      status,
    });
    expect(standIn.journal[0]).toMatchObject({
      verified: false,
      executed: false,
      accessKeyId: ALICE.accessKeyId,
    });
    expect(standIn.journal[0]).not.toHaveProperty('accountId');
  });

  test('refuses an unknown key', async () => {
    const expected = name === 'sts' ? 'InvalidClientTokenId' : 'UnrecognizedClientException';
    expect(await refusal(call({ accessKeyId: 'AKIANOBODY', secretAccessKey: 'x' }))).toMatchObject({
      name: expected,
      status,
    });
  });

  test('wants the session token of temporary credentials, and knows when they are over', async () => {
    const key = {
      accessKeyId: `ASIA-${name}`.replace(/\W/g, ''),
      secretAccessKey: 's',
      accountId: '444444444444',
    };
    standIn.addAccessKey({ ...key, sessionToken: 'right', state: 'expired' });
    const wrong = await refusal(call({ ...key, sessionToken: 'wrong' }));
    expect(wrong.message).toBe('The security token included in the request is invalid.');
    const expired = await refusal(call({ ...key, sessionToken: 'right' }));
    expect(expired).toMatchObject({
      name: name === 'sts' ? 'ExpiredToken' : 'ExpiredTokenException',
      status,
    });
    expect(JSON.stringify(standIn.journal)).not.toContain('"right"');
  });
});

test('a deactivated key is unknown, and a denied action is denied', async () => {
  const key = { accessKeyId: 'AKIATEMP', secretAccessKey: 's', accountId: '444444444444' };
  standIn.addAccessKey({ ...key, state: 'deactivated' });
  expect(await refusal(runtimeClient(standIn, 'h2', key).send(converse))).toMatchObject({
    name: 'UnrecognizedClientException',
  });
  standIn.addAccessKey({ ...key, deny: ['bedrock:InvokeModel'] });
  const denied = await refusal(runtimeClient(standIn, 'h2', key).send(converse));
  expect(denied).toMatchObject({ name: 'AccessDeniedException', status: 403 });
  expect(denied.message).toContain('bedrock:InvokeModel');
  await expect(bedrockClient(standIn, key).send(new ListFoundationModelsCommand({}))).resolves.toBeDefined();
});

/** Signs by hand, so that single parts can be wrong. */
function signedByHand(changes: {
  service?: string;
  date?: string;
  signed?: string[];
  bodyHash?: string;
  body?: string;
}): RequestInit {
  const date = changes.date ?? new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const body = '{"messages":[{"role":"user","content":[{"text":"hi"}]}]}';
  const headers: Record<string, string> = { host: new URL(standIn.url).host, 'x-amz-date': date };
  if (changes.bodyHash) headers['x-amz-content-sha256'] = changes.bodyHash;
  const signed = changes.signed ?? Object.keys(headers).sort();
  const scope = `${date.slice(0, 8)}/us-east-1/${changes.service ?? 'bedrock'}/aws4_request`;
  const canonical = [
    'POST',
    '/model/amazon.nova-micro-v1%253A0/converse',
    '',
    ...signed.map((name) => `${name}:${headers[name] ?? ''}`),
    '',
    signed.join(';'),
    createHash('sha256').update(body).digest('hex'),
  ].join('\n');
  let key: Buffer = Buffer.from(`AWS4${ALICE.secretAccessKey}`);
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest();
  const toSign = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(canonical).digest('hex')].join(
    '\n',
  );
  const signature = createHmac('sha256', key).update(toSign).digest('hex');
  const authorization = `AWS4-HMAC-SHA256 Credential=${ALICE.accessKeyId}/${scope}, SignedHeaders=${signed.join(';')}, Signature=${signature}`;
  return { method: 'POST', headers: { ...headers, authorization }, body: changes.body ?? body };
}

const minutesAgo = (minutes: number) =>
  new Date(Date.now() - minutes * 60_000).toISOString().replace(/[-:]|\.\d+/g, '');

describe('a signature made by hand', () => {
  const send = async (init: RequestInit) => {
    const answer = await fetch(`${standIn.url}/model/amazon.nova-micro-v1%3A0/converse`, init);
    return {
      status: answer.status,
      type: (answer.headers.get('x-amzn-errortype') ?? '').split(':')[0],
      text: await answer.text(),
    };
  };

  test('holds', async () => {
    expect(await send(signedByHand({}))).toMatchObject({ status: 200 });
  });

  test.each([
    ['for another service', { service: 'kms' }, "correct service: 'bedrock'"],
    ['of six minutes ago', { date: minutesAgo(6) }, 'Signature expired'],
    ['of the future', { date: minutesAgo(-6) }, 'not yet current'],
    ['that leaves out the host', { signed: ['x-amz-date'] }, 'host'],
    ['of another body', { body: '{"messages":[]}' }, 'does not match'],
    ['with a hash of another body', { bodyHash: 'a'.repeat(64) }, 'x-amz-content-sha256'],
    ['without a body hash', { bodyHash: 'UNSIGNED-PAYLOAD' }, 'x-amz-content-sha256'],
  ])('%s does not', async (_name, changes, message) => {
    const answer = await send(signedByHand(changes));
    expect(answer).toMatchObject({ status: 403, type: 'InvalidSignatureException' });
    expect(answer.text).toContain(message);
  });

  test('is missed when absent or malformed', async () => {
    expect(await send({ method: 'POST', body: '{}' })).toMatchObject({
      status: 403,
      type: 'MissingAuthenticationTokenException',
    });
    expect(
      await send({ method: 'POST', body: '{}', headers: { authorization: 'AWS4-HMAC-SHA256 nonsense' } }),
    ).toMatchObject({
      status: 400,
      type: 'IncompleteSignatureException',
    });
  });
});
