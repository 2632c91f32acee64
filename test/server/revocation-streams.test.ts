import { BedrockRuntimeClient, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { AWS } from '../support/aws-keys.ts';
import { JWT_SETTINGS, signJwt } from '../support/jwt.ts';
import { converseBody, directHeaders, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { withAdmin } from '../support/limits.ts';
import { lastFrame, openStream } from '../support/raw-stream.ts';
import type { Protocol, RawStream } from '../support/raw-stream.ts';
import { startReplica } from '../support/replicas.ts';
import type { FaultHandle } from '../aws/faults.ts';
import type { Replica } from '../support/replicas.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { takeOver } from '../support/take-over.ts';
import { eventually, until } from '../support/until.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const PROMPT = 'STAND_IN_WORDS=40';
/** What is promised. A look is far more frequent here, so a stream that takes this long was never cut. Milliseconds. */
const BOUND_MS = 10_000;
/** Of a token: all its streams begin before it ends, on a slow machine too. */
const LIFE_S = 8;

/** Where calls run, and where rights are taken away: two services, as on two machines. */
let service: TestService;
let other: Replica;
let operator: Person;
/** Streams of somebody else, which run through everything that happens here. */
let bystander: MerchantPerson;
let bystanders: Running[];
let silence: FaultHandle;

interface Running extends RawStream {
  kind: Kind;
  callId: string;
}

type Kind = 'converse-stream' | 'invoke-with-response-stream' | 'chat' | 'converse-stream as SSE';
const KINDS: readonly Kind[] = [
  'converse-stream',
  'invoke-with-response-stream',
  'chat',
  'converse-stream as SSE',
];
const PROTOCOLS: readonly Protocol[] = ['h1', 'h2'];

beforeAll(async () => {
  service = await startTestService({
    REVOCATION_LOOK_MS: '200',
    // AWS is silent for as long as this file takes.
    UPSTREAM_IDLE_TIMEOUT_MS: '300000',
    ...JWT_SETTINGS,
  });
  other = await startReplica(service);
  // A test here ends an overlap by itself.
  for (const one of [service.service, other.service]) takeOver(one, 'rotate');
  operator = new Person(other.url, service.operatorToken);
  // All streams go on until somebody ends them: AWS falls silent after five frames.
  silence = service.standIn.fault({ pathIncludes: 'stream', stallAtEvent: 5, times: 'always' });
  bystander = await onboard(service, 'merchant-bystander');
  bystanders = await runAll(bystander);
});
afterAll(async () => {
  for (const stream of bystanders) stream.leave();
  service.service.cutNow();
  await other[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

const invokeBody = {
  anthropic_version: 'bedrock-2023-05-31',
  max_tokens: 200,
  messages: [{ role: 'user', content: PROMPT }],
};

function requestOf(kind: Kind): { path: string; body: unknown; headers?: Record<string, string> } {
  if (kind === 'chat') return { path: '/chat', body: { modelId: MODEL, prompt: PROMPT, stream: true } };
  if (kind === 'invoke-with-response-stream') return { path: `/model/${MODEL}/${kind}`, body: invokeBody };
  const path = `/model/${MODEL}/converse-stream`;
  const sse = kind === 'converse-stream as SSE';
  return { path, body: converseBody(PROMPT), ...(sse && { headers: { accept: 'text/event-stream' } }) };
}

/** A stream that has begun. */
async function run(
  person: MerchantPerson,
  kind: Kind,
  protocol: Protocol,
  headers: Record<string, string> = {},
): Promise<Running> {
  const { path, body, headers: own } = requestOf(kind);
  const authorization = `Bearer ${person.token ?? ''}`;
  const stream = await openStream(protocol, {
    url: service.url,
    path: person.prefix + path,
    headers: { authorization, ...own, ...headers },
    body,
  });
  expect({ kind, protocol, status: stream.status }).toEqual({ kind, protocol, status: 200 });
  await stream.until(1);
  return { ...stream, kind, callId: String(stream.callId) };
}

async function runAll(person: MerchantPerson, headers?: Record<string, string>): Promise<Running[]> {
  return Promise.all(
    KINDS.flatMap((kind) => PROTOCOLS.map((protocol) => run(person, kind, protocol, headers))),
  );
}

/** The error that a stream ended with, as its kind says it. */
async function lastWord({ kind, ended }: Running): Promise<Record<string, unknown>> {
  const body = await ended;
  if (kind === 'chat' || kind.endsWith('SSE')) {
    const last = body.toString('utf8').trim().split('\n\n').at(-1) ?? '';
    const [, data] = /^event: error\ndata: (.*)$/.exec(last) ?? [];
    return JSON.parse(data ?? `{"no error event in": ${JSON.stringify(last)}}`) as Record<string, unknown>;
  }
  const frame = await lastFrame(body);
  const payload = JSON.parse(frame?.payload.toString('utf8') ?? '{}') as Record<string, unknown>;
  return { type: frame?.exceptionType, ...payload };
}

async function within<T>(ms: number, work: Promise<T>): Promise<T | 'still running'> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'still running'>((resolve) => {
    timer = setTimeout(() => {
      resolve('still running');
    }, ms);
  });
  return Promise.race([work, late]).finally(() => {
    clearTimeout(timer);
  });
}

interface Row {
  state: string;
  reason: string | null;
}

function rowsOf(merchantId: string, callIds: readonly string[]): Promise<Row[]> {
  return withAdmin(service, async (admin) => {
    const { rows } = await admin.query<Row>(
      `SELECT state, reason FROM calls WHERE merchant_id = $1 AND id = ANY ($2::uuid[])`,
      [merchantId, callIds],
    );
    return rows;
  });
}

/** All of them ended with the typed error, upstream too, and the ledger knows why. */
async function expectCut(
  name: string,
  merchantId: string,
  streams: readonly Running[],
  boundMs = BOUND_MS,
): Promise<void> {
  const words = await Promise.all(
    streams.map(async (stream) => ({
      name,
      kind: stream.kind,
      word: await within(boundMs, lastWord(stream)),
    })),
  );
  expect(words).toEqual(
    streams.map(({ kind }) => ({
      name,
      kind,
      word: expect.objectContaining({
        type: 'accessDeniedException',
        code: 'call.revoked',
        message: expect.stringContaining('while'),
      }),
    })),
  );
  const callIds = streams.map(({ callId }) => callId);
  const rows = await eventually(
    () => rowsOf(merchantId, callIds),
    (all) => all.every(({ state }) => state !== 'held'),
  );
  expect(rows).toEqual(streams.map(() => ({ state: 'unknown', reason: 'ended: its right was revoked' })));
  const atAws = () =>
    runtimeCalls(service)
      .filter(({ requestMetadata }) => callIds.includes(requestMetadata?.['merchantBedrockCall'] ?? ''))
      .map(({ outcome }) => outcome);
  expect(await eventually(atAws, (outcomes) => !outcomes.includes('open'))).toEqual(
    streams.map(() => 'client-aborted'),
  );
  expect(bystanders.filter((stream) => stream.hasEnded())).toEqual([]);
}

function sql(text: string, values: unknown[]): Promise<unknown> {
  return withAdmin(service, (admin) => admin.query(text, values));
}

/** Ways to take a right away, all on the other service. */
const TAKEN: [string, (of: MerchantPerson) => Promise<unknown>, Record<string, string>?][] = [
  ['its API key is revoked', (of) => elsewhere(of).send('DELETE', `/api-keys/${of.apiKeyId}`)],
  [
    'its API key expires',
    (of) => sql(`UPDATE api_keys SET expires_at = now() WHERE merchant_id = $1`, [of.merchantId]),
  ],
  ['its credential is frozen', (of) => elsewhere(of).post(`/credentials/${of.credentialId}/freeze`, {})],
  [
    'an operator freezes its credential',
    (of) =>
      operator.post(`/api/ops/merchants/${of.merchantId}/credentials/${of.credentialId}/freeze`, {
        reason: 'leaked',
      }),
  ],
  ['its credential is deleted', (of) => elsewhere(of).send('DELETE', `/credentials/${of.credentialId}`)],
  [
    'its merchant is suspended',
    (of) => operator.send('PATCH', `/api/ops/merchants/${of.merchantId}`, { status: 'suspended' }),
  ],
  [
    'its merchant is closed',
    (of) => operator.post(`/api/ops/merchants/${of.merchantId}/close`, { merchantId: of.merchantId }),
  ],
  [
    'direct credentials are turned off',
    (of) => sql(`UPDATE merchants SET direct_allowed = false WHERE id = $1`, [of.merchantId]),
    directHeaders(),
  ],
  [
    'service defaults are turned off',
    (of) => sql(`UPDATE merchants SET service_defaults_allowed = false WHERE id = $1`, [of.merchantId]),
    { 'x-bedrock-use-service-defaults': 'true' },
  ],
];

function elsewhere(of: MerchantPerson): { send: Person['send']; post: Person['post'] } {
  const person = new Person(other.url, of.token);
  return {
    send: (method, path, body) => person.send(method, of.prefix + path, body),
    post: (path, body) => person.post(of.prefix + path, body),
  };
}

describe('a stream of each kind, over HTTP/1.1 and HTTP/2, ends when', () => {
  test('it is taken away, in whichever way, on another service', async () => {
    await Promise.all(
      TAKEN.map(async ([name, take, headers], at) => {
        const merchant = await onboard(service, `merchant-${String(at)}`);
        const streams = await runAll(merchant, headers);
        const answer = (await take(merchant)) as { status?: number };
        expect({ name, done: (answer.status ?? 200) < 300 }).toEqual({ name, done: true });
        await expectCut(name, merchant.merchantId, streams);
      }),
    );
  });

  test('the JWT of its caller runs out', async () => {
    const merchant = await onboard(service, 'merchant-jwt');
    const token = await signJwt(merchant.merchantId, 'invoke', LIFE_S);
    const streams = await runAll(merchant, { authorization: `Bearer ${token}` });
    await expectCut('JWT', merchant.merchantId, streams, BOUND_MS + LIFE_S * 1_000);
    // The database knows nothing of it: nobody else's calls of that merchant are touched.
    expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'hi' })).status).toBe(200);
  });
});

describe('what goes on', () => {
  test('streams of another key and another credential of the same merchant', async () => {
    const merchant = await onboard(service, 'merchant-two-keys');
    const { token, id } = (await merchant.post('/api-keys', { name: 'leaked', scopes: ['invoke'] })).json;
    const own = await run(merchant, 'chat', 'h1');
    const leaked = await run(merchant, 'chat', 'h1', { authorization: `Bearer ${String(token)}` });
    expect((await elsewhere(merchant).send('DELETE', `/api-keys/${String(id)}`)).status).toBe(204);
    await expectCut('another key', merchant.merchantId, [leaked]);
    expect(await service.service.watch.round()).toBe(0);
    expect(own.hasEnded()).toBe(false);
    own.leave();
  });

  test('what a version of a credential began, after it was rotated away and shredded', async () => {
    const merchant = await onboard(service, 'merchant-rotated');
    const headers = { 'x-bedrock-credential-id': merchant.credentialId };
    const stream = await run(merchant, 'converse-stream', 'h2', headers);
    const { accessKeyId: awsAccessKeyId, secretAccessKey: awsSecretAccessKey } = AWS.merchantA;
    const material = { kind: 'access-key', awsAccessKeyId, awsSecretAccessKey };
    const rotated = await elsewhere(merchant).post(`/credentials/${merchant.credentialId}/rotate`, material);
    expect(rotated.status).toBe(200);
    await withAdmin(service, (admin) =>
      admin.query(`UPDATE credential_rotations SET overlap_until = now() - interval '1 second'`),
    );
    await withAdmin(service, async (admin) => {
      const { rows } = await admin.query<{ retired: boolean }>(
        `SELECT rotation_retire($1, $2, 2, 'test', 'test') AS retired`,
        [merchant.merchantId, merchant.credentialId],
      );
      expect(rows).toEqual([{ retired: true }]);
    });
    expect(await service.service.watch.round()).toBe(0);
    expect(stream.hasEnded()).toBe(false);
    stream.leave();
  });

  test('a call without a stream that was admitted before: it finishes and is settled', async () => {
    const merchant = await onboard(service, 'merchant-whole');
    service.standIn.fault({ operation: 'Converse', beforeHeadersHangMs: 900 });
    const seen = runtimeCalls(service).length;
    const call = merchant.post(`/model/${MODEL}/converse`, converseBody('hello'));
    await until('it is at AWS', () => runtimeCalls(service).length > seen);
    await elsewhere(merchant).send('DELETE', `/api-keys/${merchant.apiKeyId}`);
    const answer = await call;
    expect(answer.status).toBe(200);
    const id = answer.headers.get('x-bedrock-call-id') ?? '';
    expect(await rowsOf(merchant.merchantId, [id])).toEqual([{ state: 'settled', reason: null }]);
  });
});

test("AWS's own client throws the typed error", async () => {
  const merchant = await onboard(service, 'merchant-sdk');
  const client = new BedrockRuntimeClient({
    endpoint: merchant.baseUrl,
    region: 'us-east-1',
    token: { token: merchant.token ?? '' },
    authSchemePreference: ['httpBearerAuth'],
    maxAttempts: 1,
    requestHandler: new NodeHttpHandler(),
  });
  const messages = [{ role: 'user' as const, content: [{ text: PROMPT }] }];
  const { stream = [] } = await client.send(new ConverseStreamCommand({ modelId: MODEL, messages }));
  const reading = (async () => {
    for await (const event of stream) expect(event).toBeDefined();
  })();
  await elsewhere(merchant).send('DELETE', `/api-keys/${merchant.apiKeyId}`);
  await expect(reading).rejects.toMatchObject({ name: 'accessDeniedException' });
  client.destroy();
});

test('a stream whose answer has not begun is refused in words, not cut off', async () => {
  const merchant = await onboard(service, 'merchant-waiting');
  silence.remove();
  service.standIn.fault({ operation: 'ConverseStream', hangHeaders: true });
  const seen = runtimeCalls(service).length;
  const call = merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, stream: true });
  await until('it is at AWS', () => runtimeCalls(service).length > seen);
  await elsewhere(merchant).post(`/credentials/${merchant.credentialId}/freeze`, {});
  expect(await call).toMatchObject({ status: 403, json: { code: 'call.revoked', ended: 'credential' } });
});

test('all the while nobody else was touched', async () => {
  await service.service.watch.round();
  expect(bystanders.map((stream) => stream.hasEnded())).toEqual(bystanders.map(() => false));
  const rows = await rowsOf(
    bystander.merchantId,
    bystanders.map(({ callId }) => callId),
  );
  expect(rows).toEqual(bystanders.map(() => ({ state: 'held', reason: null })));
  expect((await operatorOf(service).get('/api/ops/merchants')).status).toBe(200);
});
