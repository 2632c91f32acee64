import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { SessionPolicy } from '../aws/identity/session-policy.ts';
import { parsePolicy } from '../aws/identity/session-policy.ts';
import { AWS } from '../support/aws-keys.ts';
import { setPlan, withAdmin } from '../support/limits.ts';
import { directFields, onboard, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const NOVA = 'amazon.nova-micro-v1:0';
const HAIKU = 'anthropic.claude-3-haiku-20240307-v1:0';
const PROFILE_ONLY = 'anthropic.claude-opus-4-20250514-v1:0';
const OF_A = `arn:aws:bedrock:us-east-1:${AWS.merchantA.accountId}`;
const PROVISIONED = `${OF_A}:provisioned-model/abcdefghijkl`;
const APPLICATION = `${OF_A}:application-inference-profile/mnopqrstuvwx`;

interface Denied {
  action: string;
  resource?: string;
  principal?: string;
  statements?: { Action: string[]; Resource: string[] }[];
}
interface Cell {
  modelId: string;
  region: string;
  verdict: string;
  probe: string;
  certainty: string;
  why: string;
  fix?: string;
  profiles?: string[];
  denied?: Denied;
  callId?: string;
  checks: { probe: string; outcome: string; why: string; denied?: Denied }[];
}
interface Report {
  principal: string | null;
  accountId: string | null;
  checks: (Cell['checks'][number] & { region: string })[];
  cells: Cell[];
  policy: { Statement: { Sid: string; Action: string[]; Resource: string[] }[] } | null;
  policyCharacters: number | null;
  policyFits: boolean | null;
  notInPolicy: { modelId: string; why: string }[];
  timedOut: boolean;
}

let service: TestService;
let merchant: MerchantPerson;
let other: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, 'permitted');
  other = await onboard(service, 'other', { awsKey: AWS.merchantB });
  for (const arn of [PROVISIONED, APPLICATION]) service.standIn.addModelArn(arn, NOVA);
});
afterEach(() => {
  service.standIn.forget();
  allowOnly();
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** The policy of the merchant's principal at AWS; nothing: all is allowed. */
function allowOnly(policy?: SessionPolicy): void {
  service.standIn.addAccessKey(policy === undefined ? AWS.merchantA : { ...AWS.merchantA, policy });
}
const statements = (...all: object[]) => parsePolicy(JSON.stringify({ Statement: all }));
const ALL_BUT = (...actions: string[]) =>
  statements(
    { Effect: 'Allow', Action: '*', Resource: '*' },
    { Effect: 'Deny', Action: actions, Resource: '*' },
  );
const EVERYTHING_BUT_INVOKE = statements({
  Effect: 'Allow',
  Action: ['bedrock:List*', 'bedrock:Get*', 'bedrock:CountTokens'],
  Resource: '*',
});

const ask = (body: object, who = merchant): Promise<Answer> => who.post('/permissions/test', body);
async function report(body: object): Promise<Report> {
  const answer = await ask(body);
  expect([answer.status, answer.text]).toEqual([200, answer.text]);
  return answer.json as unknown as Report;
}
async function cellOf(body: { models: string[] } & Record<string, unknown>): Promise<Cell> {
  const { cells } = await report(body);
  expect(cells).toHaveLength(1);
  return cells[0] as Cell;
}
const operations = () => service.standIn.journal.map(({ operation }) => operation);
async function rows(merchantId = merchant.merchantId) {
  return withAdmin(service, async (admin) => {
    const found = await admin.query<{ state: string; call_id: string }>(
      'SELECT id AS call_id, state FROM calls WHERE merchant_id = $1',
      [merchantId],
    );
    return found.rows;
  });
}

test('free questions say yes to nothing: where none said no, the verdict is unknown and says how to know', async () => {
  const cell = await cellOf({ models: [HAIKU] });
  expect(cell).toMatchObject({
    verdict: 'unknown',
    certainty: 'none',
    probe: 'CountTokens',
    region: 'us-east-1',
  });
  expect(cell.checks.map(({ probe, outcome }) => [probe, outcome])).toEqual([
    ['GetFoundationModelAvailability', 'ok'],
    ['CountTokens', 'ok'],
  ]);
  expect(cell.fix).toContain('invalid-body');
  expect(runtimeCalls(service).map(({ operation, executed }) => [operation, executed])).toEqual([
    ['CountTokens', false],
  ]);
  expect(service.standIn.journal.some(({ usage }) => usage !== undefined)).toBe(false);
});

test('the order of the questions is the cheapest first, and the test is on record before any', async () => {
  const before = (await merchant.get('/audit?limit=1')).json as { items: { seq: number }[] };
  service.standIn.forget();
  await report({ models: [HAIKU] });
  const asked = operations().filter((name) => !['Decrypt', 'GetSecretValue'].includes(name));
  expect(asked[0]).toBe('GetCallerIdentity');
  expect(asked.slice(1, 4).sort()).toEqual([
    'ListFoundationModels',
    'ListInferenceProfiles',
    'ListInferenceProfiles',
  ]);
  expect(asked.slice(4)).toEqual(['GetFoundationModelAvailability', 'CountTokens']);
  const { items } = (await merchant.get('/audit?limit=10')).json as {
    items: { seq: number; action: string; resource: string }[];
  };
  const last = before.items[0]?.seq ?? 0;
  expect(
    items.filter(({ seq }) => seq > last).map(({ action, resource }) => [action, resource]),
  ).toContainEqual(['permissions.tested', `credential/${merchant.credentialId}`]);
});

test('keys that AWS refuses as soon as it is asked whose they are leave their event', async () => {
  service.standIn.forget();
  service.standIn.addAccessKey({ ...AWS.merchantADirect, state: 'deactivated' });
  const refused = await ask({ models: [NOVA], regions: ['us-east-1'], ...directFields() });
  service.standIn.addAccessKey(AWS.merchantADirect);
  expect([refused.status, refused.json['code']]).toEqual([422, 'credential.refused_by_aws']);
  expect(operations()).toEqual(['GetCallerIdentity']);
  const { items } = (await merchant.get('/audit?limit=2')).json as { items: object[] };
  expect(items).toMatchObject([
    { action: 'aws.asked', resource: 'direct' },
    { action: 'permissions.tested', resource: 'direct' },
  ]);
});

test('allowed: likely by an invalid body, which runs nothing and leaves no row', async () => {
  const before = await rows();
  const cell = await cellOf({ models: [NOVA], probes: ['invalid-body'] });
  expect(cell).toMatchObject({ verdict: 'allowed', probe: 'invalid-body', certainty: 'likely' });
  expect(cell.why).toContain('does not promise');
  expect(
    runtimeCalls(service).map(({ operation, executed, status }) => [operation, executed, status]),
  ).toEqual([['InvokeModel', false, 400]]);
  expect(service.standIn.journal.some(({ usage }) => usage !== undefined)).toBe(false);
  expect(await rows()).toEqual(before);
});

test('allowed: proven by one paid token, through the ledger', async () => {
  const before = await rows();
  const cell = await cellOf({ models: [NOVA], probes: ['paid'], consent: true });
  expect(cell).toMatchObject({ verdict: 'allowed', probe: 'paid', certainty: 'proven' });
  const added = (await rows()).filter((row) => !before.some(({ call_id }) => call_id === row.call_id));
  expect(added).toEqual([{ call_id: cell.callId, state: 'settled' }]);
  const [call] = runtimeCalls(service);
  expect(JSON.parse(Buffer.from(call?.bodyBase64 ?? '', 'base64').toString())).toMatchObject({
    inferenceConfig: { maxTokens: 1 },
  });
  const { items } = (await merchant.get('/audit?limit=10')).json as { items: { action: string }[] };
  expect(items.map(({ action }) => action)).toEqual(
    expect.arrayContaining(['permissions.tested', 'call.admitted', 'call.settled']),
  );
});

test('a merchant that is suspended while its test runs: what is under way ends, and nothing more is asked', async () => {
  const stopped = await onboard(service, 'stopped');
  service.standIn.forget();
  const slow = service.standIn.fault({ operation: 'GetFoundationModelAvailability', delayMs: 3_000 });
  const answer = ask({ models: [NOVA], probes: ['invalid-body', 'paid'], consent: true }, stopped);
  await until('it is asked', () => slow.hits() > 0);
  await withAdmin(service, (admin) =>
    admin.query(`UPDATE merchants SET status = 'suspended' WHERE id = $1`, [stopped.merchantId]),
  );
  expect((await answer).json).toMatchObject({ status: 403, code: 'merchant.not_active' });
  expect(runtimeCalls(service)).toEqual([]);
});

test('the paid probe needs consent, and keeps to the limits', async () => {
  const refused = await ask({ models: [NOVA], probes: ['paid'] });
  expect([refused.status, refused.json['code']]).toEqual([400, 'request.invalid']);
  expect(refused.text).toContain('consent');
  const limited = await onboard(service, 'limited');
  await setPlan(service, limited.merchantId, { models: ['meta.*'] });
  const answer = await ask({ models: [NOVA], probes: ['paid'], consent: true }, limited);
  const [cell] = (answer.json as unknown as Report).cells;
  expect(cell).toMatchObject({ verdict: 'unknown', probe: 'paid', certainty: 'none' });
  expect(cell?.why).toContain('limit.model_not_allowed');
  expect(runtimeCalls(service)).toEqual([]);
});

test('a question that comes to nothing takes back no answer, and every question is among the checks', async () => {
  const both = { models: [NOVA], probes: ['invalid-body', 'paid'], consent: true };
  const limited = await onboard(service, 'limited-too');
  await setPlan(service, limited.merchantId, { models: ['meta.*'] });
  const [cell] = ((await ask(both, limited)).json as unknown as Report).cells;
  expect(cell).toMatchObject({ verdict: 'allowed', probe: 'invalid-body', certainty: 'likely' });
  expect(cell?.checks.map(({ probe, outcome }) => [probe, outcome])).toEqual([
    ['GetFoundationModelAvailability', 'ok'],
    ['invalid-body', 'invalid'],
    ['paid', 'failed'],
  ]);
  expect(cell?.checks.at(-1)?.why).toContain('limit.model_not_allowed');

  service.standIn.withholdModel({ modelId: NOVA, from: 'account' });
  for (const fault of [{ reset: true }, { status: 429, type: 'ThrottlingException' }] as const) {
    service.standIn.fault({ operation: 'InvokeModel', ...fault, times: 'always' });
    expect(await cellOf({ models: [NOVA], probes: ['invalid-body'] })).toMatchObject({
      verdict: 'model-not-available-to-account',
      probe: 'GetFoundationModelAvailability',
    });
  }
});

test.each([
  ['invalid-body', {}],
  ['paid', { consent: true }],
])(
  'denied-by-iam by %s: the action, the resource, the principal and the statement to add',
  async (probe, more) => {
    allowOnly(EVERYTHING_BUT_INVOKE);
    const cell = await cellOf({ models: [`us.${NOVA}`], probes: [probe], ...more });
    const profile = `${OF_A}:inference-profile/us.${NOVA}`;
    expect(cell).toMatchObject({
      verdict: 'denied-by-iam',
      probe,
      certainty: 'proven',
      denied: { action: 'bedrock:InvokeModel', resource: profile, principal: AWS.merchantA.arn },
    });
    expect(cell.denied?.statements?.flatMap(({ Resource }) => Resource)).toEqual([
      profile,
      ...['us-east-1', 'us-east-2', 'us-west-2'].map(
        (region) => `arn:aws:bedrock:${region}::foundation-model/${NOVA}`,
      ),
    ]);
    expect(cell.fix).toContain(AWS.merchantA.arn);
    // What was said to be added is all that lacked.
    allowOnly([...EVERYTHING_BUT_INVOKE, ...statements(...(cell.denied?.statements ?? []))]);
    const after = await cellOf({ models: [`us.${NOVA}`], probes: [probe], ...more });
    expect(after.verdict).toBe('allowed');
  },
);

test('an explicit deny has no statement to add, and says so', async () => {
  allowOnly(ALL_BUT('bedrock:InvokeModel'));
  const cell = await cellOf({ models: [NOVA], probes: ['invalid-body'] });
  expect(cell.verdict).toBe('denied-by-iam');
  expect(cell.denied?.statements).toBeUndefined();
  expect(cell.fix).toContain('does not help');
});

test('a denied question is a finding about that question only', async () => {
  allowOnly(
    ALL_BUT('bedrock:CountTokens', 'bedrock:ListInferenceProfiles', 'bedrock:GetFoundationModelAvailability'),
  );
  const { cells, checks } = await report({ models: [HAIKU] });
  expect(cells[0]).toMatchObject({ verdict: 'unknown', certainty: 'none' });
  expect(cells[0]?.checks.map(({ probe, outcome }) => [probe, outcome])).toEqual([
    ['GetFoundationModelAvailability', 'denied'],
    ['CountTokens', 'denied'],
  ]);
  expect(checks.map(({ probe, outcome, denied }) => [probe, outcome, denied?.action])).toEqual([
    ['GetCallerIdentity', 'ok', undefined],
    ['ListFoundationModels', 'ok', undefined],
    ['ListInferenceProfiles', 'denied', 'bedrock:ListInferenceProfiles'],
  ]);
});

test('model-not-available-to-account: likely by the question, proven by the call', async () => {
  service.standIn.withholdModel({ modelId: NOVA, from: 'account' });
  expect(await cellOf({ models: [NOVA] })).toMatchObject({
    verdict: 'model-not-available-to-account',
    probe: 'GetFoundationModelAvailability',
    certainty: 'likely',
  });
  expect(await cellOf({ models: [NOVA], probes: ['invalid-body'] })).toMatchObject({
    verdict: 'model-not-available-to-account',
    probe: 'invalid-body',
    certainty: 'proven',
  });
  const foreign = `arn:aws:bedrock:us-east-1:${AWS.merchantB.accountId}:provisioned-model/abcdefghijkl`;
  service.standIn.forget();
  expect(await cellOf({ models: [foreign], probes: ['invalid-body'] })).toMatchObject({
    verdict: 'model-not-available-to-account',
    probe: 'identifier',
  });
  // Nor is what lies in the operator's account anybody's.
  const ours = `arn:aws:bedrock:us-east-1:${AWS.serviceDefault.accountId}:provisioned-model/abcdefghijkl`;
  const { cells } = await report({ models: [ours, 'abcdefghijkl'], useServiceDefaults: true });
  expect(cells.map(({ verdict, probe }) => [verdict, probe])).toEqual(
    cells.map(() => ['model-not-available-to-account', 'identifier']),
  );
  expect(cells).toHaveLength(2);
  expect(runtimeCalls(service)).toEqual([]);
});

test('not-in-this-region, while another region has it', async () => {
  service.standIn.withholdModel({ modelId: NOVA, from: 'region', region: 'eu-west-1' });
  const { cells } = await report({ models: [NOVA, 'no.such-model'], regions: ['us-east-1', 'eu-west-1'] });
  expect(cells.map(({ modelId, region, verdict }) => [modelId, region, verdict])).toEqual([
    [NOVA, 'us-east-1', 'unknown'],
    ['no.such-model', 'us-east-1', 'not-in-this-region'],
    [NOVA, 'eu-west-1', 'not-in-this-region'],
    ['no.such-model', 'eu-west-1', 'not-in-this-region'],
  ]);
});

test('needs-inference-profile names the profiles of the region', async () => {
  const { cells, notInPolicy } = await report({ models: [PROFILE_ONLY] });
  expect(cells[0]).toMatchObject({
    verdict: 'needs-inference-profile',
    probe: 'ListFoundationModels',
    certainty: 'proven',
    profiles: [`us.${PROFILE_ONLY}`],
  });
  expect(notInPolicy).toMatchObject([{ modelId: PROFILE_ONLY }]);
  service.standIn.withholdModel({ modelId: NOVA, from: 'on-demand' });
  expect(await cellOf({ models: [NOVA], probes: ['invalid-body'] })).toMatchObject({
    verdict: 'needs-inference-profile',
    probe: 'invalid-body',
  });
});

test('throttled is said of whatever was throttled', async () => {
  const fault = { status: 429, type: 'ThrottlingException', times: 'always' } as const;
  service.standIn.fault({ operation: 'GetFoundationModelAvailability', ...fault });
  expect(await cellOf({ models: [NOVA] })).toMatchObject({
    verdict: 'throttled',
    probe: 'GetFoundationModelAvailability',
  });
  service.standIn.forget();
  service.standIn.fault({ operation: 'InvokeModel', ...fault });
  expect(await cellOf({ models: [NOVA], probes: ['invalid-body'] })).toMatchObject({
    verdict: 'throttled',
    probe: 'invalid-body',
  });
  service.standIn.forget();
  service.standIn.fault({ operation: 'ListFoundationModels', ...fault });
  expect(await cellOf({ models: [NOVA] })).toMatchObject({
    verdict: 'throttled',
    probe: 'ListFoundationModels',
  });
});

test.each(['deactivated', 'expired'] as const)(
  'credential-broken (%s), and no model is asked about',
  async (state) => {
    service.standIn.addAccessKey({ ...AWS.merchantA, state });
    const { cells, checks, policy } = await report({ models: [NOVA, HAIKU] });
    expect(cells.map(({ verdict, probe, certainty }) => [verdict, probe, certainty])).toEqual([
      ['credential-broken', 'GetCallerIdentity', 'proven'],
      ['credential-broken', 'GetCallerIdentity', 'proven'],
    ]);
    expect(checks).toMatchObject([{ probe: 'GetCallerIdentity', outcome: 'credential-broken' }]);
    expect(policy?.Statement).toEqual([]);
    expect(operations()).not.toContain('ListFoundationModels');
  },
);

test('what AWS does not answer is unknown, and the rest of the matrix stands', async () => {
  service.standIn.fault({ operation: 'InvokeModel', modelId: NOVA, reset: true, times: 'always' });
  const { cells } = await report({ models: [NOVA, HAIKU], probes: ['invalid-body'] });
  expect(cells.map(({ verdict, probe }) => [verdict, probe])).toEqual([
    ['unknown', 'invalid-body'],
    ['allowed', 'invalid-body'],
  ]);
});

test('the returned policy allows exactly what was asked, provisioned models and profiles of the account included', async () => {
  allowOnly(EVERYTHING_BUT_INVOKE);
  const models = [
    NOVA,
    `us.${HAIKU}`,
    `global.anthropic.claude-sonnet-4-20250514-v1:0`,
    PROVISIONED,
    APPLICATION,
  ];
  const { policy, notInPolicy, policyCharacters, policyFits } = await report({ models });
  expect(notInPolicy).toEqual([]);
  expect([policyCharacters, policyFits]).toEqual([JSON.stringify(policy).length, true]);
  expect(JSON.stringify(policy)).not.toMatch(/bedrock:Converse|ProvisionedThroughput"|StartAsyncInvoke/);
  allowOnly(parsePolicy(JSON.stringify(policy)));
  const { cells } = await report({ models: [...models, 'amazon.nova-pro-v1:0'], probes: ['invalid-body'] });
  expect(cells.map(({ verdict }) => verdict)).toEqual([...models.map(() => 'allowed'), 'denied-by-iam']);
  const free = cells.flatMap(({ checks }) => checks).filter(({ probe }) => probe !== 'invalid-body');
  expect(free.filter(({ outcome }) => outcome !== 'ok')).toEqual([]);
});

test('another’s credential and one that nobody has are the same 404', async () => {
  const strangers = await ask({ models: [NOVA], credentialId: other.credentialId });
  const nobodys = await ask({ models: [NOVA], credentialId: `cred_${'0'.repeat(22)}` });
  const known = ({ status, json }: Answer) => [status, json['code'], json['detail']];
  expect(known(strangers)).toEqual(known(nobodys));
  expect(strangers.status).toBe(404);
  expect(service.standIn.journal).toEqual([]);
});

test('direct keys work like stored ones; the account of the service is not told of', async () => {
  expect(await report({ models: [NOVA], ...directFields() })).toMatchObject({
    credentialSource: 'direct',
    principal: AWS.merchantADirect.arn,
  });
  service.standIn.addAccessKey({ ...AWS.serviceDefault, policy: EVERYTHING_BUT_INVOKE });
  const answer = await ask({
    models: [NOVA, `us.${NOVA}`],
    useServiceDefaults: true,
    probes: ['invalid-body'],
  });
  service.standIn.addAccessKey(AWS.serviceDefault);
  const { cells, policy, principal } = answer.json as unknown as Report;
  expect(cells.map(({ verdict }) => verdict)).toEqual(['denied-by-iam', 'denied-by-iam']);
  expect([policy, principal]).toEqual([null, null]);
  // The number is no secret: every answer to a call has it.
  expect(answer.json['accountId']).toBe(AWS.serviceDefault.accountId);
  expect(answer.text).not.toContain(AWS.serviceDefault.arn);
  expect(answer.text).not.toContain(':inference-profile/');
});

test.each([
  [{ models: [] }],
  [{ models: Array.from({ length: 21 }, (_, at) => `amazon.model-${String(at)}`) }],
  [
    {
      models: [NOVA],
      regions: ['us-east-1', 'us-east-2', 'us-west-1', 'us-west-2', 'eu-west-1', 'eu-west-2'],
    },
  ],
  [{ models: [NOVA], regions: ['mars-north-1'] }],
  [{ models: [NOVA], probes: ['simulate'] }],
  [{ models: ['../credentials'] }],
  [{}],
])('a question that is none is refused before anything is asked: %j', async (body) => {
  const answer = await ask(body);
  expect(answer.status).toBe(400);
  expect(service.standIn.journal).toEqual([]);
});
