import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { buildRuntimeClient } from '../../src/bedrock/client-aws.ts';
import { passThroughFor } from '../../src/bedrock/pass-through-aws.ts';
import { payloadHash } from '../../src/bedrock/payload-hash.ts';
import type { BedrockRuntime } from '../../src/bedrock/runtime-aws.ts';
import { Transport } from '../../src/bedrock/transport-aws.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { OPERATIONS } from '../../src/domain/usage.ts';
import type { Operation } from '../../src/domain/usage.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { accessKey, apiKey, bytesOf, newCall, newRuntime, register, resolved } from './runtime-aws-setup.ts';
import { eventually } from '../support/until.ts';

let aws: StandIn;
let runtime: BedrockRuntime;
const keyA = accessKey('merchanta');
const session = accessKey('sessiona', 'IQoJsessioncanary+/=');
const bearerA = apiKey('canarymerchanta');

beforeAll(async () => {
  aws = await startStandIn();
  for (const credential of [keyA, session, bearerA]) register(aws, credential);
  runtime = newRuntime(aws.url);
});
afterEach(() => {
  aws.forget();
});
afterAll(async () => {
  await runtime[Symbol.asyncDispose]();
  await aws.close();
});

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const messages = [{ role: 'user', content: [{ text: 'hello' }] }];
const BODIES: Record<Operation, unknown> = {
  invoke: { messages },
  'invoke-with-response-stream': { messages },
  converse: { messages },
  'converse-stream': { messages },
  'count-tokens': { input: { converse: { messages } } },
};

describe('bytes', () => {
  const cases = OPERATIONS.flatMap((operation) =>
    (
      [
        ['access key', keyA],
        ['session', session],
        ['API key', bearerA],
      ] as const
    ).map(([kind, credential]) => [operation, kind, credential] as const),
  );
  test.each(cases)(
    '%s with an %s: signed right, body and answer unchanged',
    async (operation, kind, credential) => {
      const body = Buffer.from(` ${JSON.stringify(BODIES[operation])}\n`);
      const reply = await runtime.send(
        newCall(credential, { operation, body, resolved: resolved(credential, kind) }),
      );
      const answer = await bytesOf(reply);
      const [seen] = aws.journal;
      expect(seen).toMatchObject({
        verified: true,
        protocol: 'h1',
        bodySha256: sha256(body),
      });
      expect(seen?.path).toBe(`/model/amazon.nova-micro-v1%3A0/${operation}`);
      expect(seen?.answerSha256).toBe(sha256(answer));
      expect(reply.headers['x-amzn-requestid']).toBe(seen?.requestId);
      expect(reply.status).toBe(seen?.status);
      expect(reply.timeToHeadersMs).toBeGreaterThan(0);
    },
  );

  test.each([256 * 1024, 256 * 1024 + 1, 3_000_000])('a body of %i bytes is signed too', async (length) => {
    const text = 'x'.repeat(length - 59);
    const body = Buffer.from(
      JSON.stringify({ messages: [{ role: 'user', content: [{ text }] }] }).padEnd(length),
    );
    const reply = await runtime.send(newCall(keyA, { body }));
    await bytesOf(reply);
    expect(aws.journal).toMatchObject([
      { verified: true, bodyBytes: body.byteLength, bodySha256: sha256(body) },
    ]);
  });

  test('a large body is hashed beside the event loop, a small one on it', async () => {
    for (const [length, beside] of [
      [256 * 1024, false],
      [256 * 1024 + 1, true],
    ] as const) {
      const body = Buffer.alloc(length, 'x');
      let hashed = false;
      const hash = payloadHash(body).finally(() => (hashed = true));
      // Microtasks only: the event loop does not turn meanwhile.
      for (let turns = 0; turns < 100; turns += 1) await Promise.resolve();
      expect(hashed).toBe(!beside);
      expect(await hash).toBe(sha256(body));
    }
  });

  test('the signer takes that hash and does not hash again', async () => {
    const endpoint = new URL(aws.url);
    using transport = new Transport({ socketsMax: 1, connectMs: 500, firstByteMs: 500, totalMs: 500 });
    const client = buildRuntimeClient({ credential: keyA, region: 'us-east-1', endpoint, transport });
    const { signal, ...input } = newCall(keyA);
    const send = passThroughFor(client, endpoint, 'us-east-1');
    const bodySha256 = sha256(Buffer.from('another body'));
    const { statusCode } = await send({ ...input, abortSignal: signal, bodySha256 });
    expect(statusCode).toBe(403);
    expect(aws.journal[0]?.headers['x-amz-content-sha256']).toBe(bodySha256);
  });

  test('an ARN stays one segment of the path, and headers of the call are signed with it', async () => {
    const modelId = 'arn:aws:bedrock:us-east-1:111122223333:provisioned-model/abcdefghijkl';
    aws.addModelArn(modelId, 'amazon.nova-micro-v1:0');
    const headers = {
      'content-type': 'application/json',
      accept: 'application/json',
      'x-amzn-bedrock-trace': 'ENABLED',
    };
    const reply = await runtime.send(newCall(keyA, { modelId, headers }));
    await bytesOf(reply);
    const [seen] = aws.journal;
    expect(seen?.path).toBe(`/model/${encodeURIComponent(modelId)}/converse`);
    expect(seen).toMatchObject({ verified: true, modelId, headers });
    expect(seen?.headers['authorization']).toBe('[present]');
    expect(Object.keys(seen?.headers ?? {}).sort()).toEqual([
      'accept',
      'authorization',
      'connection',
      'content-length',
      'content-type',
      'host',
      'user-agent',
      'x-amz-content-sha256',
      'x-amz-date',
      'x-amzn-bedrock-trace',
    ]);
  });

  test.each([400, 403, 404, 424, 429, 500, 503])(
    'an answer with status %i is a reply, and nothing is sent twice',
    async (status) => {
      aws.fault({ status, type: 'SomethingException', message: 'no', times: 'always' });
      const reply = await runtime.send(newCall(keyA));
      expect(reply.status).toBe(status);
      expect(reply.headers['x-amzn-errortype']).toContain('SomethingException');
      expect(JSON.parse((await bytesOf(reply)).toString())).toMatchObject({ message: 'no' });
      expect(aws.journal).toHaveLength(1);
    },
  );
});

describe('the signer', () => {
  test('is the call’s own, also with many merchants at once and fewer places than merchants', async () => {
    await using small = newRuntime(aws.url, { clientsMax: 3, connectMs: 20_000, totalMs: 20_000 });
    const merchants = Array.from({ length: 12 }, (_, i) => {
      const credential =
        i % 3 === 0
          ? apiKey(`many${String(i)}z`)
          : accessKey(`many${String(i)}z`, i % 3 === 1 ? `token${String(i)}` : undefined);
      register(aws, credential, String(100_000_000_000 + i));
      return { id: `shop-${String(i)}` as MerchantId, credential };
    });
    await Promise.all(
      Array.from({ length: 240 }, async (_, i) => {
        const { id, credential } = merchants[i % 12] ?? { id: '' as MerchantId, credential: keyA };
        const headers = { 'content-type': 'application/json', 'x-amzn-bedrock-trace': id };
        await bytesOf(await small.send(newCall(credential, { merchantId: id, headers })));
      }),
    );
    expect(aws.journal).toHaveLength(240);
    for (const { verified, accountId, headers } of aws.journal) {
      expect([verified, accountId]).toEqual([
        true,
        String(100_000_000_000 + Number(headers['x-amzn-bedrock-trace']?.slice(5))),
      ]);
    }
  });

  test('cannot be changed by the environment: all combinations, both kinds of credential', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ambient-'));
    const file = join(folder, 'config');
    const lines = [
      'aws_access_key_id = AKIAAMBIENT000000001',
      'aws_secret_access_key = ambient',
      'auth_scheme_preference = httpBearerAuth',
      'endpoint_url = http://127.0.0.1:9',
      'max_attempts = 9',
      'disable_clock_skew_correction = true',
    ];
    await writeFile(file, `[default]\n${lines.join('\n')}\n[profile ambient]\n${lines.join('\n')}\n`);
    const groups: Record<string, string>[] = [
      { AWS_BEARER_TOKEN_BEDROCK: 'ABSKambient' },
      { AWS_ENDPOINT_URL: 'http://127.0.0.1:9', AWS_ENDPOINT_URL_BEDROCK_RUNTIME: 'http://127.0.0.1:9' },
      { AWS_PROFILE: 'ambient', AWS_CONFIG_FILE: file, AWS_SHARED_CREDENTIALS_FILE: file },
      {
        AWS_ACCESS_KEY_ID: 'AKIAAMBIENT000000001',
        AWS_SECRET_ACCESS_KEY: 'ambient',
        AWS_SESSION_TOKEN: 'ambient',
      },
      {
        AWS_AUTH_SCHEME_PREFERENCE: 'httpBearerAuth',
        AWS_REGION: 'eu-west-1',
        AWS_USE_FIPS_ENDPOINT: 'true',
        AWS_USE_DUALSTACK_ENDPOINT: 'true',
      },
      {
        AWS_MAX_ATTEMPTS: '9',
        AWS_RETRY_MODE: 'adaptive',
        AWS_LAMBDA_FUNCTION_NAME: 'f',
        _X_AMZN_TRACE_ID: 'Root=1',
      },
    ];
    const before = { ...process.env };
    try {
      for (let set = 0; set < 2 ** groups.length; set += 1) {
        const chosen = groups.filter((_, i) => ((set >> i) & 1) === 1).flatMap(Object.entries<string>);
        process.env = { ...before, ...Object.fromEntries(chosen) };
        await using fresh = newRuntime(aws.url);
        for (const credential of [keyA, bearerA]) {
          const reply = await fresh.send(
            newCall(credential, { resolved: resolved(credential, credential.kind) }),
          );
          await bytesOf(reply);
          expect([set, reply.status]).toEqual([set, 200]);
        }
      }
    } finally {
      process.env = before;
      await rm(folder, { recursive: true });
    }
    const bearer = sha256(Buffer.from('ABSKcanarymerchanta')).slice(0, 16);
    expect(aws.journal).toHaveLength(128);
    for (const [i, seen] of aws.journal.entries()) {
      expect(seen).toMatchObject({ verified: true, accountId: '111122223333' });
      expect(i % 2 === 0 ? seen.accessKeyId : seen.bearerFingerprint).toBe(
        i % 2 === 0 ? keyA.accessKeyId : bearer,
      );
      expect(seen.headers).not.toHaveProperty('x-amz-security-token');
      expect(seen.headers).not.toHaveProperty('x-amzn-trace-id');
    }
  });

  test.each([
    ['an empty key id', { ...keyA, accessKeyId: '' }],
    ['an empty secret', { ...keyA, secretAccessKey: new Secret('') }],
    ['an empty session token', { ...keyA, sessionToken: new Secret('') }],
    ['an empty API key', { kind: 'bedrock-api-key' as const, apiKey: new Secret('') }],
    [
      'an API key with a line break',
      { kind: 'bedrock-api-key' as const, apiKey: new Secret('a\r\nx-evil: 1') },
    ],
    ['a key id with a slash', { ...keyA, accessKeyId: 'AKIA /20260101' }],
  ])('%s is refused before anything is sent', async (_, credential) => {
    const sent = runtime.send(newCall(credential, { resolved: resolved(credential, 'broken') }));
    await expect(sent).rejects.toMatchObject({ code: 'credential.not_usable', executed: 'no' });
    expect(aws.journal).toHaveLength(0);
  });

  test.each([
    ['another key', accessKey('merchantb')],
    ['another secret of the same key', { ...keyA, secretAccessKey: new Secret('other') }],
    ['another session of the same key', { ...keyA, sessionToken: new Secret('other') }],
    ['another kind', bearerA],
  ])('one pool key for two credentials sends nothing: %s', async (_, other) => {
    await bytesOf(await runtime.send(newCall(keyA)));
    await expect(runtime.send(newCall(other))).rejects.toMatchObject({ code: 'internal', executed: 'no' });
    expect(aws.journal).toHaveLength(1);
  });

  test('no region outside the list, whatever the endpoint', async () => {
    const elsewhere = { ...resolved(keyA, 'r'), region: 'us-east-1.evil.example' };
    await expect(runtime.send(newCall(keyA, { resolved: elsewhere }))).rejects.toMatchObject({
      code: 'region.not_allowed',
      executed: 'no',
    });
    expect(aws.journal).toHaveLength(0);
  });

  test.each([
    ['an authorization', bearerA, { authorization: 'Bearer mine' }],
    ['a session token', keyA, { 'x-amz-security-token': 'mine' }],
    ['framing', keyA, { 'transfer-encoding': 'chunked' }],
    ['illegal characters', keyA, { accept: 'a\r\nx-evil: 1' }],
  ])('a call whose headers bring %s of their own sends nothing', async (_, credential, extra) => {
    const headers: Record<string, string> = { 'content-type': 'application/json', ...extra };
    const call = newCall(credential, { headers, resolved: resolved(credential, credential.kind) });
    await expect(runtime.send(call)).rejects.toMatchObject({ code: 'internal', executed: 'no' });
    expect(aws.journal).toHaveLength(0);
  });
});

test('a model id cannot leave its place in the path', async () => {
  for (const modelId of ['..', '.']) {
    await expect(runtime.send(newCall(keyA, { modelId }))).rejects.toMatchObject({
      code: 'internal',
      executed: 'no',
    });
  }
  for (const modelId of ['../x', 'a/b?c#d', 'a b', '%2e%2e']) {
    const sent = runtime
      .send(newCall(keyA, { modelId }))
      .then(bytesOf)
      .catch(() => undefined);
    await sent;
  }
  for (const { path } of aws.journal) expect(path).toMatch(/^\/model\/[^/?#\s]+\/converse$/);
});

test('neither reply nor error prints a secret', async () => {
  const reply = await runtime.send(newCall(session, { resolved: resolved(session, 'session') }));
  const printed = [inspect(reply, { depth: 20 }), JSON.stringify(reply)];
  await bytesOf(reply);
  aws.fault({ reset: true });
  const error: unknown = await runtime
    .send(newCall(bearerA, { resolved: resolved(bearerA, 'bearer') }))
    .catch((e: unknown) => e);
  printed.push(inspect(error, { depth: 20 }), JSON.stringify(error));
  for (const text of printed) expect(text).not.toMatch(/canary|IQoJ|ABSK|secret-of|Signature/);
});

test('clients are given back and destroyed: after the answer, after a failure, when idle, at the end', async () => {
  let destroyed = 0;
  const { destroy } = Object.getOwnPropertyDescriptors(BedrockRuntimeClient.prototype);
  BedrockRuntimeClient.prototype.destroy = () => (destroyed += 1);
  try {
    const clock = { time: 0, now: () => clock.time };
    const small = newRuntime(aws.url, { clientsMax: 2, clientIdleMs: 40, clock });
    const shop = (name: string) => newCall(keyA, { merchantId: name as MerchantId });
    await bytesOf(await small.send(shop('a')));
    aws.fault({ reset: true });
    await expect(small.send(shop('b'))).rejects.toMatchObject({ code: 'upstream.incomplete' });
    const open = await small.send(shop('c'));
    expect(destroyed).toBe(1);
    clock.time = 40;
    const all = (count: number) =>
      eventually(
        () => destroyed,
        (seen) => seen >= count,
      );
    expect(await all(2)).toBe(2);
    const unread = await small.send(shop('d'));
    await small[Symbol.asyncDispose]();
    await bytesOf(open).catch(() => undefined);
    unread.release();
    expect(await all(4)).toBe(4);
  } finally {
    Object.defineProperty(BedrockRuntimeClient.prototype, 'destroy', destroy);
  }
});

test('calls share connections', async () => {
  const ports = new Set<number | undefined>();
  const server = createServer((request, response) => {
    ports.add(request.socket.remotePort);
    request.resume().on('end', () => response.end('{}'));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  await using own = newRuntime(`http://127.0.0.1:${String((server.address() as AddressInfo).port)}`);
  for (const name of ['a', 'b', 'c', 'a']) {
    const credential = accessKey(`share${name}`);
    await bytesOf(await own.send(newCall(credential, { merchantId: name as MerchantId })));
    await new Promise(setImmediate);
  }
  expect(ports.size).toBe(1);
  server.close();
});

test('the steps of the SDK are those we know: look at a new one before you keep or drop it', () => {
  const client = new BedrockRuntimeClient({
    region: 'us-east-1',
    credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
  });
  // Besides these the SDK places `httpAuthSchemeMiddleware`, which shows only once a command brings its anchor.
  expect(client.middlewareStack.identify().map((step) => step.split(' ')[0])).toEqual([
    'loggerMiddleware',
    'serializerMiddleware',
    'contentLengthMiddleware',
    'getUserAgentMiddleware',
    'hostHeaderMiddleware',
    'recursionDetectionMiddleware',
    'retryMiddleware',
    'httpSigningMiddleware',
    'deserializerMiddleware',
  ]);
});
