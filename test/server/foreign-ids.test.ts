import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import { AWS } from '../support/aws-keys.ts';
import { movingClock } from '../support/moving-clock.ts';
import { converseBody, directFields, onboard, operatorOf, Person } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { parametersOf } from '../support/parameters.ts';
import type { Parameter } from '../support/parameters.ts';
import { startReceiver } from '../support/receiver.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const monotonic = movingClock();

/** What a value can name that is somebody's. `theirs` is B's; `nobodys` has the same form and is nobody's. */
interface Pair {
  theirs: string;
  nobodys: string;
}
type Kind = keyof ReturnType<typeof pairs>;

let service: TestService;
let a: MerchantPerson;
let b: MerchantPerson;
let admin: pg.Client;
let facts: ReturnType<typeof pairs>;
let ownWebhook = '';
/** A's credential of kind assume-role, which waits for its role. */
let ownRole = '';
let found: {
  session: string;
  webhook: string;
  delivery: string;
  call: string;
  alert: string;
  key: string;
  role: string;
};

function pairs() {
  const arn = (account: string, kind: string) => `arn:aws:bedrock:us-east-1:${account}:${kind}/abcdef123456`;
  const arns = (kind: string): Pair => ({
    theirs: arn(AWS.merchantB.accountId, kind),
    nobodys: arn('300000000003', kind),
  });
  const uuid = '01990000-0000-7000-8000-000000000001';
  return {
    merchant: { theirs: b.merchantId, nobodys: 'merchant-z-absent' },
    credential: { theirs: b.credentialId, nobodys: `cred_${'z'.repeat(22)}` },
    apiKey: { theirs: b.apiKeyId, nobodys: 'z'.repeat(12) },
    webhook: { theirs: found.webhook, nobodys: `wh_${'z'.repeat(22)}` },
    delivery: { theirs: found.delivery, nobodys: uuid },
    call: { theirs: found.call, nobodys: uuid },
    alert: { theirs: found.alert, nobodys: uuid },
    session: { theirs: found.session, nobodys: `${found.session.slice(0, -8)}AAAAAAAA` },
    idempotencyKey: { theirs: found.key, nobodys: 'nobody-has-used-this-key' },
    endUser: { theirs: 'end-user-of-b', nobodys: 'end-user-of-none' },
    provisioned: arns('provisioned-model'),
    profile: arns('application-inference-profile'),
    custom: arns('custom-model'),
    // B's trusts this service, with the ExternalId of B's credential; the other does not exist.
    role: { theirs: found.role, nobodys: 'arn:aws:iam::300000000003:role/absent' },
    account: { theirs: AWS.merchantB.accountId, nobodys: '300000000003' },
  } satisfies Record<string, Pair>;
}

/**
 * Every parameter of every route, wherever it stands, and what of somebody's it can name. A name that is not here fails the test
 * below: whoever adds a parameter says here whether another merchant's thing can be named by it.
 */
const NAMES_SOMETHING: Record<string, readonly Kind[]> = {
  'path id': ['merchant'],
  'path cid': ['credential'],
  'path kid': ['apiKey'],
  'path wid': ['webhook'],
  'path did': ['delivery'],
  'path callId': ['call'],
  'path modelId': ['provisioned', 'profile', 'custom'],
  'query cursor': ['call', 'alert', 'delivery'],
  'query apiKey': ['apiKey'],
  'query endUser': ['endUser'],
  'query model': ['provisioned'],
  'query models': ['provisioned', 'profile', 'custom'],
  'query merchant': [],
  'query merchantId': [],
  'query modelId': [],
  'body credentialId': ['credential'],
  'body session': ['session'],
  'body modelId': ['provisioned', 'profile', 'custom'],
  'body models': ['provisioned', 'profile', 'custom'],
  'body roleArn': ['role'],
  // To close a merchant, named once more.
  'body merchantId': ['merchant'],
  'body accountId': ['account'],
  'body apiKeys': ['apiKey'],
  'body endUsers': ['endUser'],
  'body invocationLogs': ['credential'],
  'header x-bedrock-credential-id': ['credential'],
  'header x-bedrock-session': ['session'],
  'header x-bedrock-end-user': ['endUser'],
  'header idempotency-key': ['idempotencyKey'],
};
/** Names nothing of anybody's: words of the request itself. Who calls is asked of the token (auth-table.test.ts). */
const NAMES_NOTHING = new Set([
  ...['limit', 'state', 'from', 'to', 'timeframe', 'groupBy', 'format'].map((name) => `query ${name}`),
  ...[
    'prompt messages system temperature topP maxTokens stopSequences stream name scopes expiresInDays kind region makeDefault',
    'isDefault bedrockApiKey awsAccessKeyId awsSecretAccessKey awsSessionToken awsRegion useServiceDefaults url events',
    'id directAllowed serviceDefaultsAllowed regions apiKey credential plan status override spec reason state inputTokens outputTokens',
    'cacheReadTokens cacheWrite5mTokens cacheWrite1hTokens images',
    // Words of a list that we wrote, a yes, and a number of hours.
    'mode uses probes consent overlapHours',
  ]
    .flatMap((names) => names.split(' '))
    .map((name) => `body ${name}`),
  ...[
    'x-bedrock-aws-access-key-id x-bedrock-aws-secret-access-key x-bedrock-aws-session-token x-bedrock-aws-region x-bedrock-region',
    'x-bedrock-use-service-defaults x-api-key x-forwarded-for amz-sdk-invocation-id x-amzn-bedrock-accept x-amzn-bedrock-trace',
    // AWS decides about guardrails: they are of the account that signs, or shared with it.
    'x-amzn-bedrock-guardrailidentifier x-amzn-bedrock-guardrailversion x-amzn-bedrock-performanceconfig-latency x-amzn-bedrock-service-tier',
  ]
    .flatMap((names) => names.split(' '))
    .map((name) => `header ${name}`),
]);
/** Headers of answers, of AWS's and of what goes to AWS: nobody sends them to us. */
const NOT_OF_REQUESTS = [
  /^x-(amzn-(requestid|errortype|bedrock-request-metadata)|request-id|permission|powered-by|amz-(retry-after|security-token))$/,
  /^x-bedrock-(credential-(source|region|account)|call-id|max-tokens|idempotent-replay|error-code|export-[a-z]+)$/,
];

const titleOf = ({ method, path: at }: Route): string =>
  `${method} ${at.replace('/api/merchants/:id/bedrock', '…')}`;
const ALL: Parameter[] = ROUTES.flatMap(parametersOf);

beforeAll(async () => {
  service = await startTestService({}, undefined, { monotonic });
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  a = await onboard(service, 'merchant-a');
  b = await onboard(service, 'merchant-b-secret-name', { awsKey: AWS.merchantB });
  found = await thingsOf(b);
  facts = pairs();
  // AWS has what is B's.
  for (const { theirs } of [facts.provisioned, facts.profile]) service.standIn.addModelArn(theirs, MODEL);
  // Opens A's credential, which is an event of its own the first time.
  await a.post('/chat', { modelId: MODEL, prompt: 'x' });
  const pending = { kind: 'assume-role', name: 'role', region: 'us-east-1' };
  ownRole = (await a.post('/credentials', pending)).json['id'] as string;
  ownWebhook = (await a.post('/webhooks', { url: 'https://a.example/in' })).json['id'] as string;
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});

/** One of everything that a merchant can have. */
async function thingsOf(person: MerchantPerson) {
  const key = 'the-key-of-both';
  await using receiver = await startReceiver();
  const made = await person.post('/initialize', { modelId: MODEL, ...directFields(AWS.merchantB) });
  const chat = await person.post(
    '/chat',
    { modelId: MODEL, prompt: 'of b' },
    { 'idempotency-key': key, 'x-bedrock-end-user': 'end-user-of-b' },
  );
  const webhook = (await person.post('/webhooks', { url: `${receiver.url}/in` })).json['id'] as string;
  const delivery = (await person.post(`/webhooks/${webhook}/test`, undefined)).json['deliveryId'] as string;
  const alert = await admin.query<{ id: string }>(
    `INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used)
     VALUES ($1, uuid_v7(), 'threshold', 'merchant', '', 'x', now(), 50, 1) RETURNING id`,
    [person.merchantId],
  );
  const pending = { kind: 'assume-role', name: 'role', region: 'us-east-1' };
  const waiting = (await person.post('/credentials', pending)).json as { id: string; externalId: string };
  const role = `arn:aws:iam::${AWS.merchantB.accountId}:role/of-b`;
  service.standIn.addRole({ arn: role, trusts: [AWS.service.arn], externalId: waiting.externalId });
  const active = await person.post(`/credentials/${waiting.id}/activate`, { roleArn: role });
  expect([made.status, chat.status, active.status]).toEqual([200, 200, 200]);
  return {
    session: made.json['session'] as string,
    webhook,
    delivery,
    call: chat.json['callId'] as string,
    alert: alert.rows[0]?.id ?? '',
    key,
    role,
  };
}

test('every parameter of every route says whether it can name what is another merchant’s', () => {
  const known = (name: string) => name in NAMES_SOMETHING || NAMES_NOTHING.has(name);
  expect(
    ALL.filter(({ name }) => !known(name)).map(({ route, name }) => `${titleOf(route)}: ${name}`),
  ).toEqual([]);
  expect(
    Object.keys(NAMES_SOMETHING).filter(
      (name) => !name.startsWith('header') && !ALL.some((one) => one.name === name),
    ),
  ).toEqual([]);
});

test('every header that the code knows by name says it too', () => {
  const folder = new URL('../../src', import.meta.url).pathname;
  const named = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('-aws.ts') && !file.startsWith('generated'))
    .flatMap((file) => [
      ...readFileSync(path.join(folder, file), 'utf8').matchAll(
        /['"]((?:x-(?!forwarded-proto)|amz-sdk-|idempotency-)[a-z0-9-]*[a-z0-9])['"]/g,
      ),
    ])
    .map(([, name = '']) => name)
    .filter((name) => !NOT_OF_REQUESTS.some((pattern) => pattern.test(name)));
  expect(named.length).toBeGreaterThan(15);
  const known = (name: string) => `header ${name}` in NAMES_SOMETHING || NAMES_NOTHING.has(`header ${name}`);
  expect([...new Set(named)].filter((name) => !known(name))).toEqual([]);
});

// One request with one foreign value ------------------------------------------------------------------------------

interface Case {
  route: Route;
  name: string;
  kind: Kind;
}
const CASES: Case[] = ALL.flatMap(({ route, name }) =>
  (NAMES_SOMETHING[name] ?? [])
    .filter((kind) => fits(route, name, kind))
    .map((kind) => ({ route, name, kind })),
);

/** A cursor is of one kind on each route; a merchant's own path is the matrix's, but for operators' routes. */
function fits(route: Route, name: string, kind: Kind): boolean {
  if (name === 'query cursor') {
    const of: Record<string, Kind> = { records: 'call', alerts: 'alert', deliveries: 'delivery' };
    return of[route.path.split('/').at(-1) ?? ''] === kind && route.endpoint.kind === 'merchant';
  }
  // AWS's own words about what is not on the list of count-tokens come from AWS.
  if (name === 'path id') return route.endpoint.kind === 'operator';
  return true;
}

function targetOf({ route, name }: Case, value: string): string {
  const set = (parameter: string, otherwise: string) =>
    encodeURIComponent(name === `path ${parameter}` ? value : otherwise);
  const at = route.path
    .replace(':id', set('id', a.merchantId))
    .replace(':cid', set('cid', /\/(activate|policies)$/.test(route.path) ? ownRole : a.credentialId))
    .replace(':kid', set('kid', a.apiKeyId))
    .replace(':wid', set('wid', ownWebhook))
    .replace(':did', set('did', facts.delivery.nobodys))
    .replace(':callId', set('callId', facts.call.nobodys))
    .replace('*modelId', set('modelId', MODEL));
  return name.startsWith('query ')
    ? `${at}?${new URLSearchParams({ [name.slice(6)]: value }).toString()}`
    : at;
}

/** What a route needs besides, by the end of its path: so that what is answered is about the value and not about what is missing. */
const BODIES: readonly [end: string, body: Record<string, unknown>][] = [
  ['/chat', { modelId: MODEL, prompt: 'x' }],
  ['/resolve', { state: 'void', reason: 'x' }],
  ['/api/ops/merchants/:id', { status: 'active' }],
  // Never A's own, which would be closed.
  ['/close', { merchantId: 'merchant-z-absent' }],
  ['/credentials', { kind: 'assume-role', name: 'x', region: 'us-east-1' }],
  ['/activate', { roleArn: 'arn:aws:iam::300000000003:role/absent' }],
  ['/rotate', { mode: 'iam' }],
  ['/approve-account', { accountId: '300000000003', reason: 'x' }],
  ['/permissions/test', { models: [MODEL] }],
  ['/:cid', { isDefault: true }],
];

function bodyFor({ route, name }: Case, value: string): unknown {
  if (route.endpoint.body === undefined) return undefined;
  if (route.endpoint.body === 'bytes')
    return route.path.endsWith('count-tokens')
      ? { input: { converse: converseBody('x') } }
      : converseBody('x');
  const base = BODIES.find(([end]) => route.path.endsWith(end))?.[1] ?? {};
  const one = { callsInFlight: { max: 100 } };
  if (name === 'body apiKeys') return { apiKeys: { byId: { [value]: one } } };
  if (name === 'body endUsers') return { endUsers: { byId: { [value]: one } } };
  if (name === 'body invocationLogs')
    return { invocationLogs: { credentialId: value, cloudWatch: { logGroup: 'x' } } };
  if (name === 'body models') return { ...base, models: [value] };
  return name.startsWith('body ') ? { ...base, [name.slice(5)]: value } : base;
}

function ask(person: Person, one: Case, value: string): Promise<Answer> {
  monotonic.rest();
  const headers = one.name.startsWith('header ') ? { [one.name.slice(7)]: value } : {};
  return person.send(one.route.method, targetOf(one, value), bodyFor(one, value), headers);
}

/** What a credential that was just made has of its own: id, ExternalId, and the name of its role, which ends as the id does. */
function drawn({ status, json }: Answer): string[] {
  const { id, externalId } = json;
  if (status !== 201 || typeof id !== 'string' || typeof externalId !== 'string') return [];
  return [id, externalId, id.slice(-8)];
}

/** Ids that are new with each request, and what was sent, under one name. */
function plain(text: string, value: string, made: readonly string[] = []): string {
  return made
    .reduce((rest, one, index) => rest.replaceAll(one, `<made ${String(index)}>`), text)
    .replaceAll(value, '<value>')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .replaceAll(/"(latencyMs|timeToFirstByteMs)":[\d.]+/g, '"$1":0')
    .replaceAll(/;t=\d+/g, ';t=0');
}

function comparable(answer: Answer, value: string) {
  const headers = [...answer.headers].filter(([name]) => name !== 'date' && name !== 'content-length');
  return {
    status: answer.status,
    body: plain(answer.text, value, drawn(answer)),
    headers: plain(JSON.stringify(headers), value, drawn(answer)),
  };
}

/** What a request did: new events and calls of A, without what is new each time. */
async function effectOf(work: () => Promise<Answer>, value: string) {
  const seq = async () =>
    (
      await admin.query<{ seq: string }>(
        'SELECT coalesce(max(seq), 0) AS seq FROM audit_events WHERE merchant_id = $1',
        [a.merchantId],
      )
    ).rows[0]?.seq;
  const calls = async () =>
    (
      await admin.query<{ n: number }>('SELECT count(*)::int AS n FROM calls WHERE merchant_id = $1', [
        a.merchantId,
      ])
    ).rows[0]?.n ?? 0;
  const before = { seq: await seq(), calls: await calls(), aws: service.standIn.journal.length };
  const answer = await work();
  const { rows } = await admin.query(
    'SELECT actor, action, resource, outcome, body FROM audit_events WHERE merchant_id = $1 AND seq > $2 ORDER BY seq',
    [a.merchantId, before.seq],
  );
  return {
    answer,
    effect: {
      audit: plain(JSON.stringify(rows), value, drawn(answer)),
      calls: (await calls()) - before.calls,
      aws: service.standIn.journal
        .slice(before.aws)
        .map((entry) => `${entry.operation} ${entry.accountId ?? ''}`),
    },
  };
}

/** Everything of B, row by row, in one hash for each table. */
async function stateOfB(): Promise<Record<string, string>> {
  const { rows } = await admin.query<{ name: string; hash: string }>(`
    SELECT c.relname AS name, (xpath('/row/h/text()', query_to_xml(format(
      'SELECT md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '''')) AS h FROM %I t WHERE %I = %L', c.relname,
      CASE c.relname WHEN 'merchants' THEN 'id' ELSE 'merchant_id' END, '${b.merchantId}'), false, true, '')))[1]::text AS hash
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND (c.relname = 'merchants' OR EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = c.oid AND attname = 'merchant_id'))
      -- The deliverer and the janitor write to these by themselves.
      AND c.relname NOT IN ('webhook_deliveries')`);
  return Object.fromEntries(rows.map(({ name, hash }) => [name, hash]));
}

const CASES_BY_NAME: [string, Case][] = CASES.map((one) => [
  `${titleOf(one.route)}, ${one.name}: ${one.kind}`,
  one,
]);

test('there is a case for each place and kind', () => {
  expect(CASES.length).toBeGreaterThan(60);
  for (const [name, kinds] of Object.entries(NAMES_SOMETHING))
    for (const kind of kinds)
      expect(CASES.some((one) => one.name === name && one.kind === kind) || `${name} ${kind}`).toBe(true);
});

const PATHS_OF_MERCHANTS = new Set(['cid', 'kid', 'wid', 'did', 'callId'].map((name) => `path ${name}`));

describe.each(CASES_BY_NAME)('%s', (_title, one) => {
  test('what is B’s is answered as what is nobody’s, byte for byte, with the same effect, and none on B', async () => {
    const person = one.route.endpoint.kind === 'operator' && one.name !== 'path id' ? operatorOf(service) : a;
    const { theirs, nobodys } = facts[one.kind];
    const before = await stateOfB();
    const onTheirs = await effectOf(() => ask(person, one, theirs), theirs);
    const onNobodys = await effectOf(() => ask(person, one, nobodys), nobodys);
    expect(comparable(onTheirs.answer, theirs)).toEqual(comparable(onNobodys.answer, nobodys));
    expect(onTheirs.effect).toEqual(onNobodys.effect);
    // Not refused for something else before anybody looked.
    if (PATHS_OF_MERCHANTS.has(one.name)) expect(onTheirs.answer.status).toBe(404);
    expect(await stateOfB()).toEqual(before);
    const everything = plain(onTheirs.answer.text + JSON.stringify([...onTheirs.answer.headers]), theirs);
    for (const secret of [
      b.merchantId,
      b.credentialId,
      b.apiKeyId,
      AWS.merchantB.accountId,
      found.call,
      found.webhook,
    ])
      expect(everything).not.toContain(secret);
    expect(onTheirs.effect.aws.filter((call) => call.endsWith(AWS.merchantB.accountId))).toEqual([]);
  });
});

test('the same names in two places of one merchant’s own are found: the cases above compare more than refusals', async () => {
  expect((await b.get(`/usage/records?apiKey=${b.apiKeyId}`)).json['items']).toHaveLength(1);
  expect((await b.get('/usage/records?endUser=end-user-of-b')).json['items']).toHaveLength(1);
  expect((await b.get(`/webhooks/${found.webhook}/deliveries`)).json['items']).not.toHaveLength(0);
  const again = await b.post(
    '/chat',
    { modelId: MODEL, prompt: 'of b' },
    { 'idempotency-key': found.key, 'x-bedrock-end-user': 'end-user-of-b' },
  );
  expect(again.json['callId']).toBe(found.call);
  expect((await b.post('/chat', { modelId: MODEL, prompt: 'x', session: found.session })).status).toBe(200);
});

test('a session made by one API key is nobody’s to another key of the same merchant', async () => {
  const { token } = (await b.post('/api-keys', { name: 'other' })).json as { token: string };
  const other = new Person(service.url, token);
  const chat = (session: string) => other.post(`${b.prefix}/chat`, { modelId: MODEL, prompt: 'x', session });
  const theirs = await chat(found.session);
  expect(theirs.status).toBe(401);
  expect(comparable(theirs, found.session)).toEqual(
    comparable(await chat(facts.session.nobodys), facts.session.nobodys),
  );
});
