import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { AWS } from '../support/aws-keys.ts';
import { movingClock } from '../support/moving-clock.ts';
import { converseBody, onboard, operatorOf } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { parsePolicy } from '../aws/identity/session-policy.ts';

const NOVA = 'amazon.nova-micro-v1:0';

interface Step {
  step: string;
  status: string;
  durationMs: number;
  detail: string;
  code?: string;
}

let service: TestService;
let merchant: MerchantPerson;
const monotonic = movingClock();

beforeAll(async () => {
  service = await startTestService({}, undefined, { monotonic });
  merchant = await onboard(service, 'path');
});
afterEach(() => {
  service.standIn.forget();
  service.standIn.addAccessKey(AWS.merchantA);
  service.standIn.addAccessKey(AWS.serviceDefault);
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

async function walk(who = merchant): Promise<{ ok: boolean; steps: Step[]; text: string }> {
  monotonic.rest();
  const answer = await who.get('/environment/test');
  expect(answer.status).toBe(200);
  return { ...(answer.json as { ok: boolean; steps: Step[] }), text: answer.text };
}
const shape = (steps: readonly Step[]) => steps.map(({ step, status }) => `${step} ${status}`);

test('a path that works, step by step, with an audit record and nothing billed', async () => {
  const { ok, steps } = await walk();
  expect(ok).toBe(true);
  expect(shape(steps)).toEqual([
    'configuration ok',
    'database ok',
    'vault ok',
    'region ok',
    'credential ok',
    'bedrock ok',
  ]);
  for (const { durationMs } of steps) expect(Number.isInteger(durationMs) && durationMs >= 0).toBe(true);
  expect(service.standIn.journal.map(({ operation }) => operation)).toEqual(
    expect.arrayContaining(['Decrypt', 'GetSecretValue', 'GetCallerIdentity', 'ListFoundationModels']),
  );
  expect(service.standIn.journal.some(({ path }) => path.startsWith('/model/'))).toBe(false);
  const { items } = (await merchant.get('/audit?limit=5')).json as { items: { action: string }[] };
  expect(items.map(({ action }) => action)).toContain('environment.tested');
});

test('the vault is opened anew each time, whatever is remembered', async () => {
  await walk();
  service.standIn.forget();
  await walk();
  expect(service.standIn.journal.filter(({ operation }) => operation === 'Decrypt')).toHaveLength(1);
});

test('one of a merchant at a time, and a rest after each', async () => {
  const other = await onboard(service, 'other');
  await walk();
  service.standIn.forget();
  expect(await merchant.get('/environment/test')).toMatchObject({
    status: 429,
    json: { code: 'limit.rate_exceeded' },
  });
  expect(service.standIn.journal).toEqual([]);
  expect((await other.get('/environment/test')).status).toBe(200);
  monotonic.rest();
  const both = await Promise.all([merchant.get('/environment/test'), merchant.get('/environment/test')]);
  expect(both.map(({ status }) => status).sort()).toEqual([200, 429]);
});

test.each<[string, () => void, string, string[]]>([
  [
    'a vault that is closed',
    () =>
      service.standIn.fault({
        operation: 'Decrypt',
        status: 400,
        type: 'DisabledException',
        times: 'always',
      }),
    'credential.unreadable',
    ['vault failed', 'region skipped', 'credential skipped', 'bedrock skipped'],
  ],
  [
    'keys that AWS does not know',
    () => {
      service.standIn.addAccessKey({ ...AWS.merchantA, state: 'deactivated' });
    },
    'credential.refused_by_aws',
    ['vault ok', 'region ok', 'credential failed', 'bedrock skipped'],
  ],
  [
    'a Bedrock that does not answer',
    () => service.standIn.fault({ operation: 'ListFoundationModels', reset: true, times: 'always' }),
    'upstream.unreachable',
    ['vault ok', 'region ok', 'credential ok', 'bedrock failed'],
  ],
])('%s: says where the path ends and what to do, and no host', async (_what, breakIt, code, expected) => {
  breakIt();
  const { ok, steps, text } = await walk();
  expect(ok).toBe(false);
  expect(shape(steps)).toEqual(['configuration ok', 'database ok', ...expected]);
  const failed = steps.find(({ status }) => status === 'failed');
  expect(failed?.code).toBe(code);
  expect(failed?.detail.length).toBeGreaterThan(20);
  expect(text).not.toMatch(/127\.0\.0\.1|localhost|amazonaws|arn:aws:kms/);
});

test('a merchant without a default credential, and one without an open region', async () => {
  const bare = await onboard(service, 'bare');
  await bare.send('DELETE', `/credentials/${bare.credentialId}`);
  const { ok, steps } = await walk(bare);
  expect(ok).toBe(false);
  expect(shape(steps).slice(2)).toEqual([
    'vault skipped',
    'region skipped',
    'credential skipped',
    'bedrock skipped',
  ]);
  expect(steps[2]?.detail).toContain('POST /credentials');
  const abroad = await onboard(service, 'abroad', { regions: ['eu-west-1'] });
  const { steps: there } = await walk(abroad);
  expect(there.find(({ step }) => step === 'region')).toMatchObject({
    status: 'failed',
    code: 'region.not_allowed',
  });
});

test('a denial of AWS says what to add: as a problem on our routes, after AWS’s own words on AWS’s', async () => {
  const policy = parsePolicy(
    JSON.stringify({ Statement: { Effect: 'Allow', Action: 'bedrock:List*', Resource: '*' } }),
  );
  service.standIn.addAccessKey({ ...AWS.merchantA, policy });
  service.standIn.addAccessKey({ ...AWS.serviceDefault, policy });
  const resource = `arn:aws:bedrock:us-east-1::foundation-model/${NOVA}`;
  const statement = { Effect: 'Allow', Action: ['bedrock:InvokeModel'], Resource: [resource] };
  const chat = await merchant.post('/chat', { modelId: NOVA, prompt: 'x' });
  expect([chat.status, chat.json]).toMatchObject([
    422,
    {
      code: 'upstream.access_denied',
      deniedBy: 'missing-permission',
      action: 'bedrock:InvokeModel',
      resource,
      principal: AWS.merchantA.arn,
      statement,
    },
  ]);
  const wire = await merchant.post(`/model/${NOVA}/converse`, converseBody('x'));
  expect(wire.status).toBe(403);
  expect(wire.headers.get('x-amzn-errortype')).toContain('AccessDeniedException');
  const { message } = wire.json as { message: string };
  expect(message).toMatch(
    new RegExp(`^User: ${AWS.merchantA.arn} is not authorized to perform: bedrock:InvokeModel`),
  );
  expect(message).toContain(JSON.stringify(statement));

  const ours = await merchant.post('/chat', { modelId: NOVA, prompt: 'x', useServiceDefaults: true });
  expect([ours.status, ours.json['code']]).toEqual([422, 'upstream.access_denied']);
  const oursOnTheWire = await merchant.post(`/model/${NOVA}/converse`, converseBody('x'), {
    'x-bedrock-use-service-defaults': 'true',
  });
  expect(oursOnTheWire.status).toBe(403);
  for (const { text } of [ours, oursOnTheWire]) {
    expect(text).not.toContain(AWS.serviceDefault.arn);
    expect(text).toContain('operator');
  }
});

test('suspended, the path is closed to the test as well', async () => {
  await onboard(service, 'halted').then(async (halted) => {
    await operatorOf(service).send('PATCH', '/api/ops/merchants/halted', { status: 'suspended' });
    expect((await halted.get('/environment/test')).status).toBe(403);
  });
});
