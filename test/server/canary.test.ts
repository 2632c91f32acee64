import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import type { FaultRule } from '../aws/faults.ts';
import { AWS } from '../support/aws-keys.ts';
import { find, findInTables, findInVault, formsOf, secretOf } from '../support/canary.ts';
import { movingClock } from '../support/moving-clock.ts';
import {
  converseBody,
  directFields,
  directHeaders,
  MerchantPerson,
  onboard,
  operatorOf,
  Person,
} from '../support/people.ts';
import type { Answer } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startReceiver } from '../support/receiver.ts';
import { startServiceProcess } from '../support/process.ts';
import { auditSettings } from '../support/service-environment.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const monotonic = movingClock();
const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const WIRE = `/model/${MODEL}/converse`;
/** What a person wrote must not be kept either. */
const PROMPT = `canaryprompt${randomBytes(6).toString('hex')}`;
const SESSION_TOKEN = `canary+/${randomBytes(24).toString('base64')}`;
/** Nothing in it that a name or a model id could not have: one AWS secret in four is like this. */
const PLAIN_KEY = `canary${randomBytes(17).toString('hex')}`;
const BEDROCK_KEY = `ABSKcanary${randomBytes(24).toString('base64')}`;

/** Random, so that a hit cannot be anything else; with `/` and `+`, so that its encodings differ. */
const awsSecret = () => `c+/${randomBytes(30).toString('base64')}`.slice(0, 40);
const STORED = { ...AWS.merchantA, secretAccessKey: awsSecret() };
const DIRECT = { ...AWS.merchantADirect, secretAccessKey: awsSecret() };
const SERVICE = { ...AWS.service, secretAccessKey: awsSecret() };
const SERVICE_DEFAULT = { ...AWS.serviceDefault, secretAccessKey: awsSecret() };
/** Of a role's sessions: made by AWS, and in the memory of the service only. */
const ROLE = 'arn:aws:iam::100000000001:role/canary';
const SESSION = {
  secretAccessKey: awsSecret(),
  sessionToken: `canary/+${randomBytes(48).toString('base64')}`,
};
const TEMPORARY = {
  accessKeyId: 'ASIACANARYCANARY0000',
  secretAccessKey: awsSecret(),
  sessionToken: SESSION_TOKEN,
  accountId: AWS.merchantA.accountId,
};

let service: TestService;
let merchant: MerchantPerson;
let admin: pg.Client;
let processes: ReturnType<typeof startProcesses>;
let answers: { from: string; status: number; text: string }[] = [];
/** What must be found nowhere, by name. */
const secrets = new Map<string, string | Buffer>();

beforeAll(async () => {
  service = await startTestService(
    (standIn) => ({
      // One checkpoint, when the test asks for it.
      ...auditSettings(standIn, {
        AUDIT_CHECKPOINT_EVERY_MS: '3600000',
        AUDIT_CHECKPOINT_EVENTS: '1000000000',
      }),
      SERVICE_AWS_SECRET_ACCESS_KEY: SERVICE.secretAccessKey,
      SERVICE_DEFAULT_SECRET_ACCESS_KEY: SERVICE_DEFAULT.secretAccessKey,
      // Streams that hang or stall end by these; one that only meets a busy machine must not.
      UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '2500',
      UPSTREAM_IDLE_TIMEOUT_MS: '2500',
      ROTATION_MIN_INTERVAL_MS: '0',
      // Nothing stays open: every use of a stored credential meets KMS and Secrets Manager, and their faults.
      OPENED_CREDENTIALS_TTL_MS: '0',
      LOG_LEVEL: 'debug',
    }),
    undefined,
    { monotonic },
  );
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  merchant = await onboardWithCanary('merchant-a');
  processes = startProcesses();
  const env = (name: string) => Buffer.from(service.env[name] ?? '', 'base64');
  for (const [name, secret] of Object.entries({
    'stored secret': STORED.secretAccessKey,
    'direct secret': DIRECT.secretAccessKey,
    'temporary secret': TEMPORARY.secretAccessKey,
    'session token': SESSION_TOKEN,
    'secret of a role session': SESSION.secretAccessKey,
    'token of a role session': SESSION.sessionToken,
    'Bedrock API key': BEDROCK_KEY,
    'plain secret': PLAIN_KEY,
    "service's own secret": SERVICE.secretAccessKey,
    "service default's secret": SERVICE_DEFAULT.secretAccessKey,
    'API token': secretOf(merchant.token),
    'operator token': secretOf(service.operatorToken),
    pepper: env('TOKEN_PEPPER'),
    'session key': env('SESSION_KEY'),
  }))
    secrets.set(name, secret);
});
afterAll(async () => {
  const { running, folder } = await processes;
  await running[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
  await admin.end();
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  answers = [];
  service.standIn.forget();
  registerKeys(service);
});

function registerKeys({ standIn }: TestService): void {
  for (const key of [STORED, DIRECT, SERVICE, SERVICE_DEFAULT, TEMPORARY]) standIn.addAccessKey(key);
  standIn.addBedrockApiKey({ apiKey: BEDROCK_KEY, accountId: AWS.merchantA.accountId });
}

/** `onboard` registers the usual keys; here the same ids have canaries as their secrets, and stay. */
function onboardWithCanary(id: string, at: TestService = service): Promise<MerchantPerson> {
  registerKeys(at);
  const standIn = { ...at.standIn, addAccessKey: () => undefined };
  return onboard({ ...at, standIn }, id, { awsKey: STORED });
}

// The scanner -----------------------------------------------------------------------------------------------------

const withPrompt = () => new Map(secrets).set('prompt', PROMPT);

/** Answers may repeat the prompt, as models do; nothing else may. */
async function expectNothingLeaked(): Promise<void> {
  expect(answers.flatMap(({ from, text }) => find(secrets, from, text))).toEqual([]);
  const wanted = withPrompt();
  expect(find(wanted, 'the log', service.logLines.join('\n'))).toEqual([]);
  expect(await findInTables(wanted, admin)).toEqual([]);
  expect(findInVault(wanted, service.standIn.journal)).toEqual([]);
}

function findInFolder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(folder, name))
    .filter((file) => statSync(file).isFile())
    .flatMap((file) => find(withPrompt(), file, readFileSync(file, 'latin1')));
}

// What is sent ----------------------------------------------------------------------------------------------------

async function keep(from: string, ask: Promise<Answer>): Promise<Answer> {
  monotonic.rest();
  const answer = await ask;
  // Each header on its own: JSON around them would hide a raw one.
  const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join('\n');
  answers.push({ from, status: answer.status, text: `${answer.text}\n${headers}` });
  return answer;
}

/** Shown one time, in this reply only: from here on it is one more canary. */
function newCanary(name: string, shown: string, secret: string | Buffer = shown): void {
  const last = answers.at(-1);
  expect(last?.text).toContain(shown);
  if (last !== undefined) last.text = last.text.replace(shown, '');
  secrets.set(name, secret);
}

const chat = { modelId: MODEL, prompt: PROMPT };
const invokeBody = {
  anthropic_version: 'bedrock-2023-05-31',
  max_tokens: 20,
  messages: [{ role: 'user', content: PROMPT }],
};
const temporaryFields = () => ({ ...directFields(TEMPORARY), awsSessionToken: SESSION_TOKEN });
const newAccessKey = () => {
  const { awsAccessKeyId, awsSecretAccessKey } = directFields(DIRECT);
  return { kind: 'access-key', name: 'x', region: 'us-east-1', awsAccessKeyId, awsSecretAccessKey };
};
const newMaterial = () => {
  const { name: _name, region: _region, ...material } = newAccessKey();
  return material;
};
const newBedrockKey = { kind: 'bedrock-api-key', name: 'x', region: 'us-east-1', bedrockApiKey: BEDROCK_KEY };

/** A role, whose sessions have canaries for keys: stored, proven and used. */
async function newRole(person: MerchantPerson): Promise<string> {
  const body = { kind: 'assume-role', name: 'role', region: 'us-east-1' };
  const made = (await keep('store role', person.post('/credentials', body))).json;
  const { id, externalId } = made as { id: string; externalId: string };
  service.standIn.addRole({ arn: ROLE, externalId, sessionKeys: SESSION });
  await keep('activate', person.post(`/credentials/${id}/activate`, { roleArn: ROLE }));
  return id;
}

/** Every legal way to hand a secret in. */
async function useEverySecret(person: MerchantPerson = merchant): Promise<void> {
  const credentialId = await newRole(person);
  await Promise.all([
    keep('chat role', person.post('/chat', { ...chat, credentialId })),
    keep('test role', person.post(`/credentials/${credentialId}/test`, {})),
    keep('chat direct', person.post('/chat', { ...chat, ...directFields(DIRECT) })),
    keep('chat temporary', person.post('/chat', { ...chat, ...temporaryFields() })),
    keep('chat stored', person.post('/chat', { ...chat, stream: true })),
    keep('chat default', person.post('/chat', { ...chat, useServiceDefaults: true })),
    keep('wire direct', person.post(WIRE, converseBody(PROMPT), directHeaders(DIRECT))),
    keep('wire stream', person.post(`${WIRE}-stream`, converseBody(PROMPT))),
    keep('initialize', person.post('/initialize', { modelId: MODEL })),
    keep('initialize default', person.post('/initialize', { modelId: MODEL, useServiceDefaults: true })),
    keep('store', person.post('/credentials', newAccessKey())),
    keep('store key', person.post('/credentials', newBedrockKey)),
    // One after the other: a test would tell that its version is replaced meanwhile.
    keep('test', person.post(`/credentials/${person.credentialId}/test`, {}))
      .then(() => keep('rotate', person.post(`/credentials/${person.credentialId}/rotate`, newMaterial())))
      .then(() => keep('roll back', person.send('POST', `/credentials/${person.credentialId}/rollback`))),
  ]);
}

/** Every secret in every place where it does not belong. */
async function misplace(misplaced: string[], person: MerchantPerson = merchant): Promise<void> {
  for (const secret of misplaced) {
    const quoted = encodeURIComponent(secret);
    const nobody = new Person(person.baseUrl.slice(0, -person.prefix.length));
    const rotate = (body: object) => person.post(`/credentials/${person.credentialId}/rotate`, body);
    await Promise.all([
      keep('malformed JSON', person.post('/chat', `{"awsSecretAccessKey": "${secret}", `)),
      keep('not JSON at all', person.post('/chat', secret)),
      keep('another content type', person.post('/chat', secret, { 'content-type': `text/${quoted}` })),
      keep('as a member name', person.post('/chat', { ...chat, [secret]: 1 })),
      keep('as an unknown member', person.post('/chat', { ...chat, mySecret: secret })),
      keep('half a pair', person.post('/chat', { ...chat, awsSecretAccessKey: secret })),
      keep('wrong type', person.post('/chat', { modelId: { secret }, prompt: PROMPT })),
      keep(
        'as an access key id',
        person.post('/chat', { ...chat, ...directFields({ ...DIRECT, accessKeyId: secret }) }),
      ),
      keep('as a region', person.post('/chat', { ...chat, ...directFields(DIRECT, secret) })),
      keep('as a model', person.post('/chat', { ...chat, modelId: secret })),
      keep('as a model in a path', person.post(`/model/${quoted}/converse`, converseBody(PROMPT))),
      keep(
        'as an invocation id',
        person.post(WIRE, converseBody(PROMPT), { 'amz-sdk-invocation-id': secret }),
      ),
      keep('as an id', person.post('/chat', { ...chat, credentialId: secret })),
      keep('as a session', person.post('/chat', { ...chat, session: secret })),
      keep('as a kind', person.post('/credentials', { ...newAccessKey(), kind: secret })),
      keep('as a kind to rotate to', rotate({ ...newMaterial(), kind: secret })),
      keep('as a key id to rotate to', rotate({ ...newMaterial(), awsAccessKeyId: secret })),
      keep('as a scope', person.post('/api-keys', { name: 'x', scopes: [secret] })),
      keep('in a query', person.get(`/usage?secret=${quoted}`)),
      keep('as a timeframe', person.get(`/usage?timeframe=${quoted}`)),
      keep('as a cursor', person.get(`/audit?cursor=${quoted}`)),
      keep('token in a query', person.get(`/usage?access_token=${quoted}`)),
      keep('in a path', person.get(`/credentials/${quoted}`)),
      keep('as a key to revoke', person.send('DELETE', `/api-keys/${quoted}`)),
      keep('as a route', person.get(`/${quoted}`)),
      keep('as a merchant', person.get(`/api/merchants/${quoted}/bedrock/usage`)),
      keep('as a bearer', nobody.get(`${person.prefix}/usage`, { authorization: `Bearer ${secret}` })),
      keep('as basic', nobody.get(`${person.prefix}/usage`, { authorization: `Basic ${btoa(secret)}` })),
      keep('as a cookie', nobody.get(`${person.prefix}/usage`, { cookie: `token=${secret}` })),
      keep('in a header of ours', person.get('/usage', { 'x-bedrock-aws-secret': secret })),
      keep(
        'as a header name',
        person.get('/usage', { [`x-bedrock-${secret.replace(/[^a-zA-Z0-9]/g, '')}`]: 'x' }),
      ),
      keep('as a request id', person.get('/usage', { 'x-request-id': secret, 'x-amzn-trace-id': secret })),
      keep('in a header of AWS', person.post(WIRE, converseBody(PROMPT), { 'x-amzn-bedrock-trace': secret })),
      keep(
        'as a signature',
        nobody.post(person.prefix + WIRE, '{}', {
          authorization: `AWS4-HMAC-SHA256 Credential=${secret}`,
          'x-amz-security-token': SESSION_TOKEN,
        }),
      ),
      notHttp(person, `GET /${secret} HTTP/1.1\r\nbad header ${secret}\r\n\r\n`),
      notHttp(person, `${secret}\r\n\r\n`),
      notHttp(person, `GET / HTTP/1.1\r\nx-long: ${secret.repeat(1_000)}\r\n\r\n`),
    ]);
  }
}

/** Bytes that the parser refuses, so that the error is the server's and not a route's. */
async function notHttp(person: MerchantPerson, bytes: string): Promise<void> {
  const { hostname, port } = new URL(person.baseUrl);
  const socket = connect(Number(port), hostname);
  let text = '';
  socket.setEncoding('latin1').on('data', (piece: string) => (text += piece));
  socket.on('error', () => undefined);
  socket.end(bytes);
  await new Promise((resolve) => socket.once('close', resolve)); // once() would reject on a reset
  answers.push({ from: 'not HTTP', status: Number(text.split(' ')[1]), text });
}

// The tests -------------------------------------------------------------------------------------------------------

describe('the scanner', () => {
  const awkward = `quote"slash/plus+${randomBytes(8).toString('hex')}`;
  test.each(Object.keys(formsOf(awkward)))('finds a planted secret as %s', (form) => {
    const planted = new Map([['canary', awkward]]);
    for (const text of formsOf(awkward)[form] ?? [])
      expect(find(planted, 'plant', `x${text}y`)).toContain(`canary as ${form} in plant`);
  });

  test('finds it inside base64 of something larger, and raw bytes', () => {
    const inside = Buffer.from(`{"a":"${DIRECT.secretAccessKey}"}`).toString('base64');
    expect(find(secrets, 'plant', inside)).toContain('direct secret as base64 in plant');
    const key = secrets.get('session key') as Buffer;
    expect(find(secrets, 'plant', `x${key.toString('latin1')}y`)).toEqual(['session key as raw in plant']);
    expect(find(secrets, 'plant', 'nothing here')).toEqual([]);
  });

  test('finds it in a log line, a row and an answer', async () => {
    answers.push({ from: 'plant', status: 200, text: `x-y: ${BEDROCK_KEY}` });
    await expect(expectNothingLeaked()).rejects.toThrow(/Bedrock API key as raw in plant/);
    answers = [];
    service.logLines.push(`{"msg":"${PROMPT}"}`);
    await expect(expectNothingLeaked()).rejects.toThrow(/prompt as raw in the log/);
    service.logLines.pop();
    await admin.query('UPDATE merchants SET name = $1', [STORED.secretAccessKey]);
    await expect(expectNothingLeaked()).rejects.toThrow(/stored secret as raw in table merchants/);
    await admin.query(`UPDATE merchants SET name = 'x'`);
    await expectNothingLeaked();
  });
});

test('every route, with everything as it should be', async () => {
  const made = await keep('session', merchant.post('/initialize', { modelId: MODEL, ...temporaryFields() }));
  const { session } = made.json as { session: string };
  // The session is sealed: what it carries cannot be read out of it.
  const opened = Buffer.from(session.split('.').at(-1) ?? session, 'base64url').toString('latin1');
  expect(find(secrets, 'the session', opened + session)).toEqual([]);
  newCanary('session', session);
  expect((await keep('chat session', merchant.post('/chat', { ...chat, session }))).status).toBe(200);

  const leaving = await onboardWithCanary('merchant-leaving');
  const { id: kid } = (await merchant.post('/api-keys', { name: 'to revoke' })).json as { id: string };
  const { id: rolled } = (await merchant.post('/api-keys', { name: 'to roll' })).json as { id: string };
  const { id: cid } = (await merchant.post('/credentials', newAccessKey())).json as { id: string };
  const role = await newRole(merchant);
  await using receiver = await startReceiver();
  const webhook = { url: `${receiver.url}/in` };
  const { id: unused } = (await merchant.post('/webhooks', webhook)).json as { id: string };
  const { wid, did } = await webhookThatWasTested(webhook);
  service.standIn.fault({ operation: 'Converse', cutBody: true });
  await merchant.post(`/model/${MODEL}/converse`, converseBody(PROMPT));
  const lost = await admin.query<{ id: string }>(
    `SELECT id FROM calls WHERE merchant_id = $1 AND state = 'unknown' LIMIT 1`,
    [merchant.merchantId],
  );
  const bodies: Record<string, unknown> = {
    resolve: { state: 'void', reason: 'the canary says so' },
    webhooks: webhook,
    converse: converseBody(PROMPT),
    'converse-stream': converseBody(PROMPT),
    invoke: invokeBody,
    'invoke-with-response-stream': invokeBody,
    'count-tokens': { input: { converse: converseBody(PROMPT) } },
    chat: { ...chat, ...temporaryFields() },
    initialize: { modelId: MODEL },
    credentials: newBedrockKey,
    ':cid': { isDefault: true },
    test: {},
    permissions: { models: [MODEL], probes: ['invalid-body', 'paid'], consent: true, ...temporaryFields() },
    freeze: { reason: 'the canary says so' },
    thaw: {},
    close: { merchantId: leaving.merchantId },
    activate: { roleArn: ROLE },
    rotate: newMaterial(),
    'approve-account': { accountId: AWS.merchantA.accountId, reason: 'the canary says so' },
    'api-keys': { name: 'x' },
    roll: { overlapHours: 1 },
    limits: { endUsers: { each: { callsInFlight: { max: 100 } } } },
    plans: { id: 'canary', spec: { callsInFlight: { max: 100 } } },
    merchants: { id: 'merchant-new', name: 'x', apiKey: { name: 'x' }, credential: newAccessKey() },
    ':id': { status: 'active' },
  };
  // Something on the operators' chain, so that a checkpoint has it.
  await operatorOf(service).get('/api/ops/audit');
  await service.service.checkpoint();
  const day = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10);
  for (const route of ROUTES) {
    const at = route.path
      .replace(':id', route.path.endsWith('/close') ? leaving.merchantId : merchant.merchantId)
      .replace(':cid/activate', `${role}/activate`)
      .replace(':cid/policies', `${role}/policies`)
      .replace(':cid', route.method === 'DELETE' ? cid : merchant.credentialId)
      .replace(':kid', route.method === 'DELETE' ? kid : rolled)
      .replace(':callId', lost.rows[0]?.id ?? '')
      .replace(':wid', route.method === 'DELETE' ? unused : wid)
      .replace(':did', did)
      .replace('*modelId', MODEL)
      .replace('bedrock/usage/export', `bedrock/usage/export?format=ndjson&from=${day(0)}&to=${day(1)}`);
    const person = personOf(route);
    const name = route.path.endsWith('/permissions/test') ? 'permissions' : route.path.split('/').at(-1);
    const body = route.endpoint.body === undefined ? undefined : bodies[name ?? ''];
    const answer = await keep(`${route.method} ${route.path}`, person.send(route.method, at, body));
    expect({ ...named(route), status: answer.status }).toEqual({
      ...named(route),
      status: answer.status < 300 ? answer.status : 'a success',
    });
    const { token = (answer.json['apiKey'] as { token?: string } | undefined)?.token } = answer.json as {
      token?: string;
    };
    if (token !== undefined) newCanary(`token of ${route.path}`, token, secretOf(token));
    const { secret } = answer.json as { secret?: string };
    if (secret !== undefined) newCanary(`secret of ${route.path}`, secret, signingKeyOf(secret));
  }
  await useEverySecret();
  for (const { headers, body } of receiver.seen)
    answers.push({ from: 'what a receiver got', status: 200, text: JSON.stringify(headers) + body });
  expect(answers.filter(({ status }) => status >= 300)).toEqual([]);
  await expectNothingLeaked();
  expect(service.logLines.length).toBeGreaterThan(answers.length);
}, 120_000);

/** A webhook that got its test event; its secret is looked for from now on. */
async function webhookThatWasTested(webhook: object): Promise<{ wid: string; did: string }> {
  const made = await keep('webhook', merchant.post('/webhooks', webhook));
  const { id: wid, secret } = made.json as { id: string; secret: string };
  newCanary('secret of a webhook', secret, signingKeyOf(secret));
  const { deliveryId: did } = (await merchant.post(`/webhooks/${wid}/test`, undefined)).json as {
    deliveryId: string;
  };
  for (const end = Date.now() + 20_000; ;) {
    const { items } = (await merchant.get(`/webhooks/${wid}/deliveries?state=delivered`)).json as {
      items: unknown[];
    };
    if (items.length > 0) return { wid, did };
    if (Date.now() > end) throw new Error('the test event was not delivered');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The bytes that sign. */
function signingKeyOf(secret: string): Buffer {
  return Buffer.from(secret.slice('whsec_'.length), 'base64');
}

function personOf(route: Route): Person {
  if (route.endpoint.kind === 'merchant') return merchant;
  return route.endpoint.kind === 'operator' ? operatorOf(service) : new Person(service.url);
}

function named({ method, path: at }: Route) {
  return { method, path: at };
}

test('every route, with secrets where none belong', async () => {
  const misfit = { ...directFields(DIRECT), name: 'x', note: STORED.secretAccessKey, prompt: PROMPT };
  for (const route of ROUTES.filter(({ method }) => method !== 'DELETE')) {
    const at = route.path
      .replace(':id', merchant.merchantId)
      .replace(':cid', merchant.credentialId)
      .replace('*modelId', encodeURIComponent(DIRECT.secretAccessKey));
    for (const person of [merchant, operatorOf(service), new Person(service.url, secretOf(merchant.token))])
      await keep(
        `misfit ${route.method} ${route.path}`,
        person.send(route.method, `${at}?x=${BEDROCK_KEY}`, route.method === 'GET' ? undefined : misfit),
      );
  }
  await misplace([DIRECT.secretAccessKey, SESSION_TOKEN, BEDROCK_KEY, PLAIN_KEY, merchant.token ?? '']);
  expect(new Set(answers.map(({ status }) => status))).toEqual(
    new Set([200, 400, 401, 403, 404, 409, 415, 431]),
  );
  await expectNothingLeaked();
});

describe('every dependency, failing in every way', () => {
  const message = `not now: ${PROMPT}`;
  const ways: Record<string, FaultRule> = {
    refused: { status: 400, type: 'ValidationException', message },
    'access denied': { status: 403, type: 'AccessDeniedException', message },
    // Not always: SDKs wait before each further attempt.
    throttled: { status: 429, type: 'ThrottlingException', message, times: 1 },
    broken: { status: 500, type: 'InternalServerException', message },
    cut: { reset: true },
  };
  test.each(Object.entries(ways))('%s', async (_name, fault) => {
    // Two rounds: what stands before a dependency must hold for it to be asked at all.
    for (const names of [
      ['bedrock-runtime', 'kms', 'bedrock'],
      ['secretsmanager', 'sts'],
    ] as const) {
      service.standIn.forget();
      const met = names.map((name) => service.standIn.fault({ times: 'always', ...fault, service: name }));
      await useEverySecret();
      expect(met.map((handle) => handle.hits() > 0)).toEqual(names.map(() => true));
    }
    expect(answers.some(({ status }) => status >= 400)).toBe(true);
    await expectNothingLeaked();
  });

  test.each<[string, FaultRule]>([
    ['hang', { hangHeaders: true }],
    ['stall', { stallAtEvent: 1 }],
    ['cut in a frame', { cutAtEvent: 1, midFrame: true }],
    ['exception frame', { exceptionAtEvent: 1, message }],
    ['error frame', { errorFrameAtEvent: 1, type: 'x', message }],
    ['bad checksum', { corruptCrcAtEvent: 1 }],
    ['silent end', { endCleanlyAtEvent: 1 }],
  ])('streams that %s', async (_name, fault) => {
    const met = service.standIn.fault({ operation: 'ConverseStream', ...fault, times: 'always' });
    await Promise.all([
      keep('wire', merchant.post(`${WIRE}-stream`, converseBody(PROMPT), directHeaders(DIRECT))),
      keep('sse', merchant.post(`${WIRE}-stream`, converseBody(PROMPT), { accept: 'text/event-stream' })),
      keep('chat', merchant.post('/chat', { ...chat, ...temporaryFields(), stream: true })),
    ]).catch((error: unknown) => {
      // A stream that AWS cut is cut for the caller too.
      expect(String(error)).toContain('terminated');
    });
    expect(met.hits()).toBe(3);
    await expectNothingLeaked();
  });

  test('signatures that do not hold', async () => {
    for (const key of [STORED, DIRECT, SERVICE, SERVICE_DEFAULT, TEMPORARY])
      service.standIn.addAccessKey({ ...key, secretAccessKey: 'z'.repeat(40) });
    await useEverySecret();
    await useEverySecret();
    // Neither needs a signature: a Bedrock API key is a bearer's, and a role is not asked about before it is activated.
    const unsigned = new Set(['store key', 'store role']);
    expect(answers.filter(({ from }) => !unsigned.has(from)).every(({ status }) => status >= 400)).toBe(true);
    await expectNothingLeaked();
  });

  test('the vault falls silent for what it opened before, and secrets are left over', async () => {
    await using silent = await startTestService(
      {
        SERVICE_AWS_SECRET_ACCESS_KEY: SERVICE.secretAccessKey,
        SERVICE_DEFAULT_SECRET_ACCESS_KEY: SERVICE_DEFAULT.secretAccessKey,
        OPENED_CREDENTIALS_TTL_MS: '1',
        VAULT_TIMEOUT_MS: '1500',
        LOG_LEVEL: 'debug',
      },
      service.database,
    );
    const person = await onboardWithCanary('merchant-silent', silent);
    secrets.set('API token of a silent vault', secretOf(person.token));
    secrets.set('its session key', Buffer.from(silent.env['SESSION_KEY'] ?? '', 'base64'));
    await useEverySecret(person);
    const faults: FaultRule[] = [
      { service: 'kms', status: 500 },
      { service: 'secretsmanager', status: 429, type: 'ThrottlingException' },
      { service: 'kms', operation: 'Decrypt', hangHeaders: true },
      { service: 'secretsmanager', operation: 'CreateSecret', hangHeaders: true },
      { service: 'kms', status: 400, type: 'DisabledException' },
    ];
    for (const fault of faults) {
      const met = silent.standIn.fault({ ...fault, times: 'always' });
      await useEverySecret(person);
      met.remove();
    }
    await admin.query(`UPDATE secret_intents SET created_at = created_at - interval '1 day'`);
    silent.standIn.fault({ operation: 'DeleteSecret', status: 500, times: 'always' });
    await silent.service.sweepLeftovers();
    const used = await admin.query(`SELECT 1 FROM audit_events WHERE action = 'credential.used_stale'`);
    expect(used.rows.length).toBeGreaterThan(0);
    expect(find(withPrompt(), 'its log', silent.logLines.join('\n'))).toEqual([]);
    expect(silent.logLines.some((line) => line.includes('left behind'))).toBe(true);
    await expectNothingLeaked();
  }, 120_000);

  test('our own mistake: a table is not there', async () => {
    await admin.query('ALTER TABLE calls RENAME TO calls_away');
    await useEverySecret();
    await admin.query('ALTER TABLE calls_away RENAME TO calls');
    expect(answers.map(({ status }) => status)).toContain(500);
    await expectNothingLeaked();
  });

  test('Postgres goes away in the middle of calls', async () => {
    service.standIn.fault({ service: 'bedrock-runtime', delayMs: 100, times: 'always' });
    const running = useEverySecret();
    await new Promise((resolve) => setTimeout(resolve, 60));
    await withoutPostgres(async () => {
      await useEverySecret();
      await keep('readyz', new Person(service.url).get('/readyz'));
    });
    await running;
    expect(answers.map(({ status }) => status)).toContain(503);
    await expectNothingLeaked();
  });
});

/** Cuts the service's connections and lets it make no new ones. */
async function withoutPostgres(work: () => Promise<void>): Promise<void> {
  const { name } = service.database;
  await onServer(process.env['TEST_ADMIN_URL'] ?? '', async (server) => {
    await server.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS false`);
    try {
      await server.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'merchant_bedrock_service'`,
        [name],
      );
      await work();
    } finally {
      await server.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS true`);
    }
  });
}

describe('a process of its own', () => {
  test('says nothing of a secret on standard output and error, and leaves it in no file', async () => {
    const { running, refused, folder } = await processes;
    const { merchantId, credentialId, apiKeyId, token = '' } = merchant;
    const person = new MerchantPerson(running.url, { merchantId, credentialId, apiKeyId, token });
    await useEverySecret(person);
    await misplace([DIRECT.secretAccessKey, token], person);
    await withoutPostgres(() => useEverySecret(person));
    await running.end('SIGTERM');
    expect(running.output().split('\n').length).toBeGreaterThan(answers.length);
    expect(find(withPrompt(), 'the output', running.output())).toEqual([]);
    expect(refused.flatMap((text) => find(withPrompt(), 'the refusal', text))).toEqual([]);
    expect(findInFolder(folder)).toEqual([]);
    await expectNothingLeaked();
  });
});

/** A service as a process, and two that refuse to start; begun early, because starting takes a while. */
async function startProcesses() {
  const folder = mkdtempSync(path.join(tmpdir(), 'canary-'));
  const env = { ...service.env, TMPDIR: folder, HOME: folder };
  const password = encodeURIComponent(DIRECT.secretAccessKey);
  const [running, ...refused] = await Promise.all([
    startServiceProcess(env),
    startFails({ ...env, TOKEN_PEPPER: DIRECT.secretAccessKey, AWS_ENDPOINT_URL: SESSION_TOKEN }),
    startFails({ ...env, DATABASE_URL: `postgres://x:${password}@127.0.0.1:1/x` }),
  ]);
  return { running, refused, folder };
}

/** What a service says that does not start. */
async function startFails(env: Record<string, string>): Promise<string> {
  const error = await startServiceProcess(env).then(
    () => new Error('it started'),
    (reason: unknown) => reason as Error,
  );
  expect(error.message).toMatch(/ended with code [12]/);
  return error.message;
}
