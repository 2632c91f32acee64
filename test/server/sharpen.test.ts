import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { FaultRule } from '../aws/faults.ts';
import { differencesOf, setPlan, setPrice, withAdmin } from '../support/limits.ts';
import { converseBody, MerchantPerson, onboard, runtimeCalls } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually } from '../support/until.ts';

const MODEL = 'anthropic.claude-3-haiku-20240307-v1:0';
const CONVERSE = `/model/${MODEL}/converse`;
const UNPRICED = '/model/anthropic.claude-3-5-haiku-20241022-v1:0/converse';
const NOVA = '/model/amazon.nova-micro-v1:0/converse';
/** USD per million tokens. */
const PRICE = { input: 2, output: 10 };
/** Held on top of what AWS counts. Tokens. */
const MARGIN = 32;
const WORDS = 500;
/** The stand-in counts a token for each word; the bound by bytes is about 15,000. */
const PROMPT = Array.from({ length: WORDS }, () => 'international-organisation')
  .join(' ')
  .slice(0, -9);
const OUTPUT = 20;
const SHARPENED = WORDS + MARGIN + OUTPUT;
let service: TestService;
/** Another process, that knows a price of the model: they are read at the start. */
let priced: ServiceProcess;
let merchants = 0;

beforeAll(async () => {
  service = await startTestService();
  await setPrice(service, MODEL, PRICE);
  priced = await startServiceProcess(service.env);
}, 60_000);
beforeEach(() => {
  service.standIn.forget();
});
afterAll(async () => {
  await priced[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

const hardTokens = (max: number) => ({ tokensPerDay: { max, mode: 'hard' } });

async function newMerchant(spec: Record<string, unknown>): Promise<MerchantPerson> {
  merchants += 1;
  const merchant = await onboard(service, `sharpened-${String(merchants)}`);
  await setPlan(service, merchant.merchantId, spec);
  return merchant;
}

const counts = () => runtimeCalls(service).filter(({ operation }) => operation === 'CountTokens');
const others = () => runtimeCalls(service).filter(({ operation }) => operation !== 'CountTokens');

/** What the ledger held for each call, and what was audited. */
function heldBy({ merchantId }: MerchantPerson) {
  return withAdmin(service, async (admin) => {
    const calls = await admin.query<{ state: string; tokens: number; nano: number }>(
      'SELECT state, hold_tokens::int AS tokens, hold_nano::int AS nano FROM calls WHERE merchant_id = $1',
      [merchantId],
    );
    const audited = await admin.query(
      `SELECT 1 FROM audit_events WHERE merchant_id = $1 AND action = 'call.admitted'`,
      [merchantId],
    );
    return { calls: calls.rows, audited: audited.rows.length };
  });
}

async function expectServed(merchant: MerchantPerson, tokens: number): Promise<void> {
  expect(counts()).toHaveLength(1);
  expect(others()).toHaveLength(1);
  expect(await heldBy(merchant)).toMatchObject({ calls: [{ state: 'settled', tokens }], audited: 1 });
  expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
}

async function refusedOf(merchant: MerchantPerson, body: unknown, path = CONVERSE): Promise<string> {
  const answer = await merchant.post(path, body);
  expect(answer.status).toBeGreaterThanOrEqual(400);
  expect(answer.json['message']).toMatch(/limit\.(budget|rate)_exceeded/);
  expect(others()).toHaveLength(0);
  expect(await heldBy(merchant)).toEqual({ calls: [], audited: 0 });
  expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  return String(answer.json['message']);
}

function picture() {
  const image = { format: 'png', source: { bytes: Buffer.alloc(64).toString('base64') } };
  return { messages: [{ role: 'user', content: [{ image }] }], inferenceConfig: { maxTokens: OUTPUT } };
}

/** A schema brings a prompt along, and CountTokens does not take it. */
function withSchema() {
  return { ...converseBody(PROMPT, OUTPUT), outputConfig: { textFormat: { type: 'json_schema' } } };
}

function withDocument() {
  const document = { format: 'pdf', name: 'd', source: { bytes: 'AAAA' } };
  return {
    messages: [{ role: 'user', content: [{ text: PROMPT }, { document }] }],
    inferenceConfig: { maxTokens: OUTPUT },
  };
}

function invokeBody(text: string, maxTokens: number) {
  return {
    anthropic_version: 'bedrock-2023-05-31',
    max_tokens: maxTokens,
    messages: [{ role: 'user', content: text }],
  };
}

describe('a prompt whose bytes do not fit and whose tokens do', () => {
  test.each([
    ['converse', converseBody(PROMPT, OUTPUT)],
    ['converse-stream', converseBody(PROMPT, OUTPUT)],
    ['invoke', invokeBody(PROMPT, OUTPUT)],
    ['invoke-with-response-stream', invokeBody(PROMPT, OUTPUT)],
  ])('is served by %s, with what AWS counts held', async (operation, body) => {
    const merchant = await newMerchant(hardTokens(5_000));
    const answer = await merchant.post(`/model/${MODEL}/${operation}`, body);
    expect(answer.status).toBe(200);
    await expectServed(merchant, SHARPENED);
    expect(counts()[0]).toMatchObject({ executed: false, accountId: others()[0]?.accountId });
  });

  test('is counted by the model behind an inference profile', async () => {
    const merchant = await newMerchant(hardTokens(5_000));
    expect((await merchant.post(`/model/us.${MODEL}/converse`, converseBody(PROMPT, OUTPUT))).status).toBe(
      200,
    );
    expect(counts()[0]?.modelId).toBe(MODEL);
    await expectServed(merchant, SHARPENED);
  });

  test('is counted with its numbers as they are written, and without what no model reads', async () => {
    const merchant = await newMerchant(hardTokens(5_000));
    const body = JSON.stringify({
      ...converseBody(PROMPT, OUTPUT),
      additionalModelRequestFields: { top_k: 7 },
      requestMetadata: { a: 'b' },
    }).replace('"top_k":7', '"top_k":7.0');
    expect((await merchant.post(CONVERSE, body)).status).toBe(200);
    const asked = Buffer.from(counts()[0]?.bodyBase64 ?? '', 'base64').toString();
    expect(asked).toContain('"additionalModelRequestFields":{"top_k":7.0}');
    expect(Object.keys((JSON.parse(asked) as { input: { converse: object } }).input.converse)).toEqual([
      'messages',
      'additionalModelRequestFields',
    ]);
  });

  test('fits a limit on money too', async () => {
    const {
      merchantId,
      token = '',
      credentialId,
      apiKeyId,
    } = await newMerchant({
      nanoUsdPerDay: { max: 10_000_000, mode: 'hard' },
    });
    const merchant = new MerchantPerson(priced.url, { merchantId, token, credentialId, apiKeyId });
    expect((await merchant.post(CONVERSE, converseBody(PROMPT, OUTPUT))).status).toBe(200);
    await expectServed(merchant, SHARPENED);
    const nano = (WORDS + MARGIN) * PRICE.input * 1_000 + OUTPUT * PRICE.output * 1_000;
    expect((await heldBy(merchant)).calls).toMatchObject([{ nano }]);
  });

  test('may have its output clamped then', async () => {
    const merchant = await newMerchant(hardTokens(2_000));
    const answer = await merchant.post(CONVERSE, converseBody(PROMPT, 5_000));
    expect(answer.headers.get('x-bedrock-max-tokens')).toBe(String(2_000 - WORDS - MARGIN));
    await expectServed(merchant, 2_000);
  });

  test('is served with its Idempotency-Key, once', async () => {
    const merchant = await newMerchant(hardTokens(5_000));
    const send = () =>
      merchant.post(CONVERSE, converseBody(PROMPT, OUTPUT), { 'idempotency-key': 'a-key-of-ours' });
    expect([(await send()).status, (await send()).status]).toEqual([200, 200]);
    await expectServed(merchant, SHARPENED);
  });
});

describe('a refusal stands', () => {
  test('with the numbers of the count, when that does not fit either', async () => {
    const merchant = await newMerchant({ ...hardTokens(2_000), whenOver: 'refuse' });
    const told = await refusedOf(merchant, converseBody(PROMPT, 1_900));
    expect(told).toContain(`this call can need ${String(WORDS + MARGIN + 1_900)}`);
    expect(counts()).toHaveLength(1);
  });

  test.each<[string, FaultRule]>([
    ['refuses', { status: 403, type: 'AccessDeniedException' }],
    ['is throttled', { status: 429, type: 'ThrottlingException' }],
    ['breaks off', { cutBody: true }],
    ['cannot be reached', { reset: true }],
    ['never answers', { hangHeaders: true }],
    ['answers slowly', { beforeHeadersHangMs: 25_000 }],
  ])('as it was, where CountTokens %s', async (_how, fault) => {
    service.standIn.fault({ operation: 'CountTokens', ...fault });
    const merchant = await newMerchant(hardTokens(5_000));
    const startedAt = performance.now();
    const told = await refusedOf(merchant, converseBody(PROMPT, OUTPUT));
    // Not for as long as AWS takes.
    expect(performance.now() - startedAt).toBeLessThan(12_000);
    expect(Number(/can need (\d+)/.exec(told)?.[1])).toBeGreaterThan(10_000);
    expect(counts()).toHaveLength(1);
  });

  test.each<[string, Record<string, unknown>, unknown, string]>([
    ['a model that AWS does not count', hardTokens(5_000), converseBody(PROMPT, OUTPUT), NOVA],
    ['a merchant far over its limit', hardTokens(1_000), converseBody(PROMPT, OUTPUT), CONVERSE],
    ['a picture where nothing is left', hardTokens(0), picture(), CONVERSE],
    ['a body that CountTokens does not take whole', hardTokens(5_000), withSchema(), CONVERSE],
    // Bounded by the largest context there is, as no price names the model's: room for an eighth of it is left.
    ['a body that AWS adds to', hardTokens(5_000_000), withDocument(), UNPRICED],
  ])('without a question, for %s', async (_what, spec, body, path) => {
    await refusedOf(await newMerchant(spec), body, path);
    expect(counts()).toHaveLength(0);
  });

  test.each(['requestsPerMinute', 'requestsPerDay', 'callsInFlight'])(
    'without a question, for %s',
    async (name) => {
      const merchant = await newMerchant({ ...hardTokens(5_000), [name]: { max: 0, mode: 'hard' } });
      await refusedOf(merchant, converseBody(PROMPT, OUTPUT));
      expect(counts()).toHaveLength(0);
    },
  );

  test('without a question, while four of the merchant are being asked', async () => {
    const other = await newMerchant(hardTokens(5_000));
    const nine = async () => {
      service.standIn.forget();
      service.standIn.fault({ operation: 'CountTokens', delayMs: 1_000, times: 'always' });
      const one = await newMerchant(hardTokens(5_000));
      const answers = await Promise.all(
        Array.from({ length: 9 }, () => one.post(CONVERSE, converseBody(PROMPT, OUTPUT))),
      );
      const served = answers.filter(({ status }) => status === 200).length;
      return { one, asked: counts().length, served };
    };
    // Again, when the machine was too busy for nine calls in one second, or for an answer within two.
    const { one: merchant, ...seen } = await eventually(
      nine,
      ({ asked, served }) => asked === 4 && served === 4,
      { limitMs: 15_000 },
    );
    expect(seen).toEqual({ asked: 4, served: 4 });
    expect((await other.post(CONVERSE, converseBody(PROMPT, OUTPUT))).status).toBe(200);
    expect((await merchant.post(CONVERSE, converseBody(PROMPT, OUTPUT))).status).toBe(200);
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });
});

test('a picture, bounded by the largest there is, is counted where anything is left', async () => {
  const merchant = await newMerchant(hardTokens(600));
  expect((await merchant.post(CONVERSE, picture())).status).toBe(200);
  expect(counts()).toHaveLength(1);
});

test('nobody is asked about what fits, nor about what fits with less output', async () => {
  const merchant = await newMerchant(hardTokens(20_000));
  expect((await merchant.post(CONVERSE, converseBody('x', OUTPUT))).status).toBe(200);
  const clamped = await merchant.post(CONVERSE, converseBody(PROMPT, 50_000));
  expect(clamped.headers.get('x-bedrock-max-tokens')).not.toBeNull();
  expect(counts()).toHaveLength(0);
});
