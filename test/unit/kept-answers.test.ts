import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { Secret } from '../../src/domain/secret.ts';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { KeptAnswers } from '../../src/gateway/kept-answers.ts';
import type { CallIdentity, PaidCall } from '../../src/gateway/paid-call.ts';
import { AnswerSeal } from '../../src/ledger/answer-seal.ts';
import type { FirstCall } from '../../src/ledger/answer-store.ts';

const MIB = 1024 * 1024;
const CALL = '0198c000-0000-7000-8000-000000000001' as CallId;
const PAID = {
  headers: { 'idempotency-key': 'key' },
  merchant: { id: 'acme' as MerchantId },
  operation: 'converse',
} as unknown as PaidCall;
const HEAD = {
  status: 200,
  headers: { 'content-type': 'application/json' },
  identity: { callId: CALL, source: 'stored', region: 'us-east-1', limits: [] } as unknown as CallIdentity,
};

/** Kept answers over a store in memory, with the state that the first call is in. */
function kept(state: FirstCall['state'] = 'settled', keepFails?: Error) {
  let sealed: Uint8Array | undefined;
  const lost: unknown[] = [];
  const answers = new KeptAnswers({
    seal: new AnswerSeal([new Secret(randomBytes(32))]),
    store: {
      keep: (_merchant, answer) => {
        if (keepFails !== undefined) return Promise.reject(keepFails);
        sealed = answer.sealed;
        return Promise.resolve(true);
      },
      find: () => Promise.resolve({ callId: CALL, state, sealed }),
    },
    onLost: (callId, error) => lost.push([callId, error]),
  });
  return { answers, lost, sealed: () => sealed };
}

async function record(answers: KeptAnswers, pieces: readonly Buffer[], head = HEAD): Promise<void> {
  const recorder = answers.recorderOf(PAID, head);
  for (const piece of pieces) recorder?.add(piece);
  await recorder?.keep();
}

describe('an answer', () => {
  test('of 1 MiB is kept and given again, marked', async () => {
    const { answers } = kept();
    const body = randomBytes(MIB);
    await record(answers, [body.subarray(0, 10), body.subarray(10)]);
    const reply = await answers.replay(PAID, CALL);
    expect(body.equals(reply.body as Buffer)).toBe(true);
    expect(reply).toMatchObject({ ...HEAD, identity: { ...HEAD.identity, replayed: true } });
  });

  test('of one byte more is not', async () => {
    const { answers, sealed, lost } = kept();
    await record(answers, [randomBytes(MIB), Buffer.from('.')]);
    expect(sealed()).toBeUndefined();
    expect(lost).toEqual([]);
    await expect(answers.replay(PAID, CALL)).rejects.toMatchObject({
      code: 'idempotency.done_before',
      options: { extra: { callId: CALL, outcome: 'settled' } },
    });
  });

  test('that cannot be kept is told and keeps nobody from their answer', async () => {
    const broken = new Error('away');
    const { answers, lost } = kept('settled', broken);
    await record(answers, [Buffer.from('x')]);
    expect(lost).toEqual([[CALL, broken]]);
  });

  test('with a head that no AWS sends is not kept, and that is told', async () => {
    const { answers, lost, sealed } = kept();
    await record(answers, [Buffer.from('x')], { ...HEAD, headers: { 'content-type': 'x'.repeat(40_000) } });
    expect(sealed()).toBeUndefined();
    expect(lost).toHaveLength(1);
  });

  test('of a call without a key is not looked at', () => {
    const { answers } = kept();
    expect(answers.recorderOf({ ...PAID, headers: {} }, HEAD)).toBeUndefined();
  });
});

describe('without an answer', () => {
  test.each([
    ['held', 'idempotency.in_progress', { retryAfterSeconds: 1 }],
    ['void', 'idempotency.in_progress', { retryAfterSeconds: 1 }],
    ['settled', 'idempotency.done_before', { extra: { outcome: 'settled' } }],
    ['unknown', 'idempotency.done_before', { extra: { outcome: 'unknown' } }],
  ] as const)('a call that is %s is told as %s', async (state, code, options) => {
    const { answers } = kept(state);
    await expect(answers.replay(PAID, CALL)).rejects.toMatchObject({ code, options });
  });
});
