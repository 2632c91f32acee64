import { createHash, hkdfSync, randomUUID } from 'node:crypto';
import { request } from 'node:http';
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import pg from 'pg';
import { converseBody, MerchantPerson, onboard, runtimeCalls } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const WIRE = `/model/${MODEL}/converse`;

let service: TestService;
let replica: ServiceProcess;
let merchant: MerchantPerson;
/** The same merchant's backend at the other process. */
let elsewhere: MerchantPerson;
let admin: pg.Client;

beforeAll(async () => {
  service = await startTestService({ DRAIN_TIMEOUT_MS: '5000' });
  merchant = await onboard(service, 'merchant-a');
  replica = await startServiceProcess({ ...service.env, LOG_LEVEL: 'silent' });
  elsewhere = atProcess(replica.url, merchant);
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  await Promise.all([merchant, elsewhere].map((person) => person.post(WIRE, converseBody('warm'))));
});
afterAll(async () => {
  await admin.end();
  await replica[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

function atProcess(url: string, person: MerchantPerson): MerchantPerson {
  const { merchantId, token = '', credentialId, apiKeyId } = person;
  return new MerchantPerson(url, { merchantId, token, credentialId, apiKeyId });
}

interface Whole {
  status: number;
  headers: Record<string, string>;
  bytes: Buffer;
}

/** An answer to the byte; without the headers that are of each request and each connection. */
async function ask(
  person: MerchantPerson,
  path: string,
  body: unknown,
  headers: Record<string, string>,
): Promise<Whole> {
  const response = await person.raw('POST', path, body, headers);
  const bytes = Buffer.from(await response.arrayBuffer());
  const kept = [...response.headers].filter(
    ([name]) => !/^(date|x-request-id|connection|keep-alive)$/.test(name),
  );
  return { status: response.status, headers: Object.fromEntries(kept), bytes };
}

const codeOf = ({ bytes }: Whole) => (JSON.parse(bytes.toString()) as { code: string }).code;
const withKey = (key: string = randomUUID()) => ({ 'idempotency-key': key });
const rowsOf = async (merchantId = 'merchant-a') =>
  (
    await admin.query<{ id: string; state: string }>('SELECT id, state FROM calls WHERE merchant_id = $1', [
      merchantId,
    ])
  ).rows;

const settled = (id: string) =>
  until('it is settled', async () =>
    (await rowsOf()).some((row) => row.id === id && row.state === 'settled'),
  );
const INVOKE = {
  anthropic_version: 'bedrock-2023-05-31',
  max_tokens: 50,
  messages: [{ role: 'user', content: 'hello' }],
};
const SSE = { accept: 'text/event-stream' };

describe('a second call with the same key', () => {
  test.each<[string, string, unknown, Record<string, string>]>([
    ['chat', '/chat', { modelId: MODEL, prompt: 'hello' }, {}],
    ['a streamed chat', '/chat', { modelId: MODEL, prompt: 'STAND_IN_WORDS=30', stream: true }, {}],
    ['converse', WIRE, converseBody('hello'), {}],
    ['converse-stream', `${WIRE}-stream`, converseBody('STAND_IN_WORDS=30'), {}],
    ['converse-stream as events', `${WIRE}-stream`, converseBody('STAND_IN_WORDS=30'), SSE],
    ['invoke', `/model/${MODEL}/invoke`, INVOKE, {}],
    ['invoke-with-response-stream', `/model/${MODEL}/invoke-with-response-stream`, INVOKE, {}],
    ['invoke-with-response-stream as events', `/model/${MODEL}/invoke-with-response-stream`, INVOKE, SSE],
    ['count-tokens', `/model/${MODEL}/count-tokens`, { input: { converse: converseBody('hello') } }, {}],
  ])('gets the very same answer: %s', async (_name, path, body, headers) => {
    const key = withKey();
    const before = (await rowsOf()).length;
    const first = await ask(merchant, path, body, { ...headers, ...key });
    expect(first.status).toBe(200);
    expect(first.headers['x-bedrock-idempotent-replay']).toBeUndefined();
    await settled(first.headers['x-bedrock-call-id'] ?? '');
    for (const person of [merchant, elsewhere]) {
      const again = await ask(person, path, body, { ...headers, ...key });
      expect(again.headers['x-bedrock-idempotent-replay']).toBe('true');
      delete again.headers['x-bedrock-idempotent-replay'];
      expect(again).toEqual(first);
      expect(again.bytes.equals(first.bytes)).toBe(true);
    }
    expect(runtimeCalls(service)).toHaveLength(1);
    expect(await rowsOf()).toHaveLength(before + 1);
  });

  test('and another body, model or operation is refused', async () => {
    const key = withKey();
    await ask(merchant, WIRE, converseBody('one'), key);
    const other = await ask(elsewhere, '/chat', { modelId: MODEL, prompt: 'two' }, key);
    expect([other.status, codeOf(other)]).toEqual([422, 'idempotency.key_reused']);
    const stream = await ask(elsewhere, `${WIRE}-stream`, converseBody('one'), key);
    expect([stream.status, stream.headers['x-amzn-errortype']]).toEqual([400, 'ValidationException']);
    expect(runtimeCalls(service)).toHaveLength(1);
  });

  test.each([
    ['another service tier', { 'x-amzn-bedrock-service-tier': 'flex' }],
    ['a guardrail', { 'x-amzn-bedrock-guardrailidentifier': 'gr1', 'x-amzn-bedrock-guardrailversion': '1' }],
  ])('and %s is another call: it is refused', async (_name, headers) => {
    const key = withKey();
    const path = `/model/${MODEL}/invoke`;
    expect((await ask(merchant, path, INVOKE, key)).status).toBe(200);
    const other = await ask(merchant, path, INVOKE, { ...headers, ...key });
    expect([other.status, other.headers['x-amzn-errortype']]).toEqual([400, 'ValidationException']);
    expect((await ask(merchant, path, INVOKE, { accept: 'application/json', ...key })).status).toBe(200);
    expect(runtimeCalls(service)).toHaveLength(1);
  });

  test.each(['', 'a b', 'é', 'x'.repeat(256)])('that is no key (%j) is an error', async (key) => {
    const answer = await ask(merchant, '/chat', { modelId: MODEL, prompt: 'x' }, withKey(key));
    expect([answer.status, codeOf(answer)]).toEqual([400, 'request.invalid']);
    expect(runtimeCalls(service)).toEqual([]);
  });

  test('of another merchant is another call', async () => {
    const other = await onboard(service, 'merchant-b');
    const key = withKey();
    const [mine, theirs] = [
      await ask(merchant, WIRE, converseBody('x'), key),
      await ask(other, WIRE, converseBody('x'), key),
    ];
    expect(theirs.status).toBe(200);
    expect(theirs.headers['x-bedrock-idempotent-replay']).toBeUndefined();
    expect(theirs.headers['x-bedrock-call-id']).not.toBe(mine.headers['x-bedrock-call-id']);
    expect(runtimeCalls(service)).toHaveLength(2);
  });

  test('a hundred at one time over two processes are one call', async () => {
    service.standIn.fault({ service: 'bedrock-runtime', times: 'always', delayMs: 300 });
    const key = withKey();
    const body = { modelId: MODEL, prompt: 'STAND_IN_WORDS=20' };
    const before = (await rowsOf()).length;
    const answers = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        await new Promise((resolve) => setTimeout(resolve, index * 5));
        return ask(index % 2 === 0 ? merchant : elsewhere, '/chat', body, key);
      }),
    );
    expect(runtimeCalls(service)).toHaveLength(1);
    expect(await rowsOf()).toHaveLength(before + 1);
    const good = answers.filter(({ status }) => status === 200);
    expect(good.filter(({ headers }) => headers['x-bedrock-idempotent-replay'] === undefined)).toHaveLength(
      1,
    );
    expect(new Set(good.map(({ bytes }) => bytes.toString('base64'))).size).toBe(1);
    const others = answers.filter(({ status }) => status !== 200);
    expect(others.length).toBeGreaterThan(0);
    for (const other of others) {
      expect([other.status, codeOf(other), other.headers['retry-after']]).toEqual([
        409,
        'idempotency.in_progress',
        '1',
      ]);
    }
    expect((await ask(elsewhere, '/chat', body, key)).bytes).toEqual(good[0]?.bytes);
  });
});

describe('what came of the first', () => {
  test('refused by us: the key is not used', async () => {
    const suspended = await onboard(service, 'merchant-suspended');
    const key = withKey();
    const turn = (status: string) =>
      admin.query(`UPDATE merchants SET status = $1 WHERE id = 'merchant-suspended'`, [status]);
    await turn('suspended');
    expect((await ask(suspended, WIRE, converseBody('x'), key)).status).toBe(403);
    await turn('active');
    const again = await ask(suspended, WIRE, converseBody('y'), key);
    expect(again.status).toBe(200);
    expect(again.headers['x-bedrock-idempotent-replay']).toBeUndefined();
  });

  test('refused by AWS: the call is made again', async () => {
    service.standIn.fault({ operation: 'Converse', status: 429, type: 'ThrottlingException' });
    const key = withKey();
    expect((await ask(merchant, WIRE, converseBody('x'), key)).status).toBe(429);
    const again = await ask(elsewhere, WIRE, converseBody('x'), key);
    expect(again.status).toBe(200);
    expect(again.headers['x-bedrock-idempotent-replay']).toBeUndefined();
    expect(runtimeCalls(service)).toHaveLength(2);
    expect((await ask(merchant, WIRE, converseBody('x'), key)).bytes).toEqual(again.bytes);
  });

  test.each([
    ['cut off', { cutBody: true }],
    ['an error of AWS', { status: 500, type: 'InternalServerException', executed: true }],
  ])('in doubt (%s): the call is not made again, and that is said', async (_name, fault) => {
    service.standIn.fault({ operation: 'Converse', ...fault });
    const key = withKey();
    const body = { modelId: MODEL, prompt: 'x' };
    expect((await ask(merchant, '/chat', body, key)).status).toBeGreaterThanOrEqual(500);
    const again = await ask(elsewhere, '/chat', body, key);
    expect(again.status).toBe(409);
    expect(JSON.parse(again.bytes.toString())).toMatchObject({
      code: 'idempotency.done_before',
      outcome: 'unknown',
    });
    expect(runtimeCalls(service)).toHaveLength(1);
  });

  test('a stream that broke off is not kept', async () => {
    service.standIn.fault({ operation: 'ConverseStream', cutAtEvent: 3 });
    const key = withKey();
    await ask(merchant, `${WIRE}-stream`, converseBody('x'), key);
    await until('nothing is held', async () => (await rowsOf()).every(({ state }) => state !== 'held'));
    const again = await ask(merchant, `${WIRE}-stream`, converseBody('x'), key);
    expect([again.status, again.headers['x-amzn-errortype']]).toEqual([400, 'ConflictException']);
  });

  test('longer than 1 MiB: it is not kept, and that is said', async () => {
    const key = withKey();
    const body = { modelId: MODEL, prompt: 'STAND_IN_WORDS=20000', maxTokens: 1_000_000, stream: true };
    const first = await ask(merchant, '/chat', body, key);
    expect(first.status).toBe(200);
    await settled(first.headers['x-bedrock-call-id'] ?? '');
    const again = await ask(merchant, '/chat', body, key);
    expect(again.status).toBe(409);
    expect(JSON.parse(again.bytes.toString())).toMatchObject({
      code: 'idempotency.done_before',
      outcome: 'settled',
    });
    expect(runtimeCalls(service)).toHaveLength(1);
  });

  test('a day old: it is not given any more, and housekeeping removes it, and no other', async () => {
    const [old, young] = [withKey(), withKey()];
    const first = await ask(merchant, WIRE, converseBody('old'), old);
    const second = await ask(merchant, WIRE, converseBody('young'), young);
    const idOf = (answer: Whole) => answer.headers['x-bedrock-call-id'];
    const { rows: ends } = await admin.query<{ hours: number }>(
      'SELECT round(extract(epoch FROM answer_until - now()) / 3600)::int AS hours FROM idempotency_keys WHERE call_id = $1',
      [idOf(first)],
    );
    expect(ends).toEqual([{ hours: 24 }]);
    await admin.query(
      `UPDATE idempotency_keys SET answer_until = now() - interval '1 second' WHERE call_id = $1`,
      [idOf(first)],
    );
    const again = await ask(merchant, WIRE, converseBody('old'), old);
    expect([again.status, again.headers['x-amzn-errortype']]).toEqual([400, 'ConflictException']);
    const login = new pg.Client({ connectionString: service.database.url });
    await login.connect();
    // One, unless the housekeeping of a service was faster.
    expect([[{ n: 1 }], [{ n: 0 }]]).toContainEqual(
      (await login.query('SELECT answers_sweep(1000) AS n')).rows,
    );
    expect((await login.query('SELECT answers_sweep(1000) AS n')).rows).toEqual([{ n: 0 }]);
    await login.end();
    const { rows } = await admin.query(
      'SELECT answer IS NULL AS gone FROM idempotency_keys WHERE call_id = ANY ($1) ORDER BY call_id',
      [[idOf(first), idOf(second)]],
    );
    expect(rows).toEqual([{ gone: true }, { gone: false }]);
    expect((await ask(merchant, WIRE, converseBody('young'), young)).bytes).toEqual(second.bytes);
  });
});

describe('a connection that was cut', () => {
  /** Sends a call and hangs up once AWS has it. */
  async function hangUp(path: string, body: unknown, key: Record<string, string>): Promise<void> {
    const calls = runtimeCalls(service).length;
    const sent = request(merchant.baseUrl + path, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${merchant.token ?? ''}`,
        'content-type': 'application/json',
        ...key,
      },
    });
    sent.on('error', () => undefined).end(JSON.stringify(body));
    await until('it is at AWS', () => runtimeCalls(service).length > calls);
    sent.destroy();
  }

  test.each([
    ['whole', WIRE],
    ['streamed', `${WIRE}-stream`],
  ])(
    'does not cost the answer (%s): who asks again gets it whole, and nothing is paid twice',
    async (_name, path) => {
      service.standIn.fault({ service: 'bedrock-runtime', delayMs: 1_500, eventDelayMs: 10 });
      const key = withKey();
      await hangUp(path, converseBody('STAND_IN_WORDS=20'), key);
      const early = await ask(elsewhere, path, converseBody('STAND_IN_WORDS=20'), key);
      expect([early.status, early.headers['x-amzn-errortype'], early.headers['retry-after']]).toEqual([
        429,
        'ThrottlingException',
        '1',
      ]);
      let late: Whole | undefined;
      await until('it has an answer', async () => {
        late = await ask(elsewhere, path, converseBody('STAND_IN_WORDS=20'), key);
        return late.status !== 429;
      });
      expect(late?.status).toBe(200);
      const [call] = runtimeCalls(service);
      expect(runtimeCalls(service)).toHaveLength(1);
      // What is given now is what AWS answered then, byte for byte.
      expect(
        createHash('sha256')
          .update(late?.bytes ?? '')
          .digest('hex'),
      ).toBe(call?.answerSha256);
    },
  );

  test('and an AWS SDK that tries again by itself', async () => {
    service.standIn.fault({ operation: 'Converse', delayMs: 1_500 });
    const key = withKey();
    const client = new BedrockRuntimeClient({
      endpoint: elsewhere.baseUrl,
      region: 'us-east-1',
      token: { token: merchant.token ?? '' },
      authSchemePreference: ['httpBearerAuth'],
      maxAttempts: 4,
      requestHandler: new NodeHttpHandler(),
    });
    client.middlewareStack.add(
      (next) => (args) => {
        Object.assign((args.request as { headers: object }).headers, key);
        return next(args);
      },
      { step: 'build' },
    );
    const input = { modelId: MODEL, messages: converseBody('STAND_IN_WORDS=12').messages as never };
    // What the SDK will send, to the byte, so that it is the same call.
    await hangUp(WIRE, { messages: input.messages }, key);
    const answer = await client.send(new ConverseCommand(input));
    expect(answer.usage?.outputTokens).toBe(12);
    expect(answer.$metadata.attempts).toBeGreaterThan(1);
    expect(runtimeCalls(service)).toHaveLength(1);

    // A stream of the SDK's own that breaks off, asked for again.
    Object.assign(key, withKey());
    const read = async () => {
      const { stream } = await client.send(new ConverseStreamCommand(input));
      const events: unknown[] = [];
      for await (const event of stream ?? []) events.push(event);
      return events;
    };
    const [first, second] = [await read(), await read()];
    expect(second).toEqual(first);
    expect(runtimeCalls(service)).toHaveLength(2);
    client.destroy();
  });
});

describe('in the database', () => {
  const WORDS = 'canary of the prompt';
  /** Who waits for a lock in order to settle. */
  const SETTLING = `FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ledger_settle%' AND datname = current_database()`;

  test('there is nothing of the answer or the key in the clear, and it opens only with both keys', async () => {
    const key = `key-${randomUUID()}`;
    const first = await ask(merchant, WIRE, converseBody(WORDS), withKey(key));
    const { output } = JSON.parse(first.bytes.toString()) as {
      output: { message: { content: { text: string }[] } };
    };
    const text = output.message.content[0]?.text ?? '';
    expect(text.length).toBeGreaterThan(10);
    const wanted = [text, WORDS, key, first.bytes.toString()].flatMap((secret) =>
      [secret, Buffer.from(secret).toString('hex'), Buffer.from(secret).toString('base64').slice(0, -4)].map(
        (form) => form.slice(0, 2_000),
      ),
    );
    const { rows: tables } = await admin.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`,
    );
    for (const { name } of tables) {
      const { rows } = await admin.query<{ row: string }>(`SELECT t::text AS row FROM "${name}" t`);
      for (const { row } of rows) expect(wanted.filter((secret) => row.includes(secret))).toEqual([]);
    }
    expect(service.logLines.filter((line) => wanted.some((secret) => line.includes(secret)))).toEqual([]);
    // What the database has, the hash of the key, is not what opens it.
    const { rows } = await admin.query<{ answer: Buffer; key_hash: Buffer; call_id: string }>(
      'SELECT answer, key_hash, call_id FROM idempotency_keys WHERE call_id = $1',
      [first.headers['x-bedrock-call-id']],
    );
    const { AnswerSeal } = await import('../../src/ledger/answer-seal.ts');
    const { Secret } = await import('../../src/domain/secret.ts');
    const {
      answer = Buffer.alloc(0),
      key_hash: hash = Buffer.alloc(32),
      call_id: callId = '',
    } = rows[0] ?? {};
    const sessionKey = Buffer.from(service.env['SESSION_KEY'] ?? '', 'base64');
    const open = (serviceKey: Buffer, idempotencyKey: string) =>
      new AnswerSeal([new Secret(serviceKey)]).open(answer, {
        merchantId: 'merchant-a' as never,
        callId: callId as never,
        idempotencyKey,
      });
    expect(open(sessionKey, key)?.subarray(-first.bytes.length)).toEqual(first.bytes);
    expect(open(Buffer.from(hkdfSync('sha256', hash, '', '', 32)), key)).toBeUndefined();
    expect(open(sessionKey, hash.toString('hex'))).toBeUndefined();
  });

  test('an answer that was altered, or put under another call, is as good as gone', async () => {
    const [one, two] = [withKey(), withKey()];
    const ids = [
      await ask(merchant, WIRE, converseBody('same'), one),
      await ask(merchant, WIRE, converseBody('same'), two),
    ].map((answer) => answer.headers['x-bedrock-call-id']);
    await admin.query(
      'UPDATE idempotency_keys SET answer = (SELECT answer FROM idempotency_keys WHERE call_id = $1) WHERE call_id = $2',
      ids,
    );
    const again = await ask(merchant, '/model/x', {}, {}).then(() =>
      ask(merchant, WIRE, converseBody('same'), two),
    );
    expect([again.status, again.headers['x-amzn-errortype']]).toEqual([400, 'ConflictException']);
    expect((await ask(merchant, WIRE, converseBody('same'), one)).status).toBe(200);
  });

  test('the answer is there before the call is settled: kill -9 between the two loses it not', async () => {
    await using victim = await startServiceProcess({ ...service.env, LOG_LEVEL: 'silent' });
    const person = atProcess(victim.url, merchant);
    await person.post(WIRE, converseBody('warm'));
    service.standIn.forget();
    service.standIn.fault({ operation: 'Converse', delayMs: 1_500 });
    const key = withKey();
    const cut = ask(person, WIRE, converseBody('between'), key).catch(() => 'cut');
    await until('it is at AWS', () => runtimeCalls(service).length === 1);
    // Nobody can settle while the head of the merchant's chain is held.
    await admin.query('BEGIN');
    await admin.query(`SELECT 1 FROM audit_heads WHERE merchant_id = 'merchant-a' FOR UPDATE`);
    const hash = createHash('sha256').update(key['idempotency-key']).digest();
    const state = async () =>
      (
        await admin.query<{ state: string; kept: boolean }>(
          'SELECT c.state, k.answer IS NOT NULL AS kept FROM idempotency_keys k JOIN calls c ON c.id = k.call_id WHERE k.key_hash = $1',
          [hash],
        )
      ).rows[0];
    await until('its answer is kept', async () => (await state())?.kept === true);
    // So that nothing of it is on its way to Postgres any more when its process dies.
    await until('it is about to be settled', async () => {
      await admin.query('SELECT pg_stat_clear_snapshot()');
      return ((await admin.query(`SELECT 1 ${SETTLING}`)).rowCount ?? 0) > 0;
    });
    expect(await state()).toEqual({ state: 'held', kept: true });
    await victim.end('SIGKILL');
    expect(await cut).toBe('cut');
    await admin.query(`SELECT pg_terminate_backend(pid) ${SETTLING}`);
    await admin.query('COMMIT');
    expect(await state()).toEqual({ state: 'held', kept: true });
    await admin.query(`UPDATE calls SET deadline = now() - interval '1 second' WHERE state = 'held'`);
    await admin.query('SELECT ledger_sweep(1000)');
    expect(await state()).toEqual({ state: 'unknown', kept: true });
    const again = await ask(elsewhere, WIRE, converseBody('between'), key);
    expect(again.status).toBe(200);
    expect(createHash('sha256').update(again.bytes).digest('hex')).toBe(
      runtimeCalls(service)[0]?.answerSha256,
    );
    expect(runtimeCalls(service)).toHaveLength(1);
  });
});
