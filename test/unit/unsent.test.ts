import { beforeEach, expect, test } from '@jest/globals';
import { ServiceError } from '../../src/domain/errors.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Unsent } from '../../src/ledger/unsent.ts';
import type { UnsentCall } from '../../src/ledger/unsent.ts';

const AWAY = new ServiceError('ledger.unavailable', 'away');
const call = (requestId: string): UnsentCall => ({ merchantId: 'm' as MerchantId, requestId });

let now: number;
let fails: Error[];
let asked: string[][];
let givenUp: unknown[];
let unsent: Unsent;
beforeEach(() => {
  [now, fails, asked, givenUp] = [0, [], [], []];
  unsent = new Unsent({
    afterMs: 7_000,
    max: 300,
    clock: { now: () => now },
    onGivenUp: (error) => void givenUp.push(error),
    voidUnsent: (calls) => {
      const failure = fails.shift();
      asked.push(calls.map(({ requestId }) => requestId));
      return failure === undefined ? Promise.resolve(calls.length) : Promise.reject(failure);
    },
  });
});

test('a call is asked for when its statement cannot commit any more, and once', async () => {
  unsent.remember(call('a'));
  now = 6_999;
  unsent.remember(call('b'));
  expect(await unsent.tick()).toBe(0);
  now = 7_000;
  expect(await unsent.tick()).toBe(1);
  expect(await unsent.tick()).toBe(0);
  now = 14_000;
  await unsent.tick();
  expect(asked).toEqual([['a'], ['b']]);
});

test('while Postgres is away it is asked for again and again, and nothing is told', async () => {
  unsent.remember(call('a'));
  now = 7_000;
  fails = [AWAY, AWAY];
  for (let round = 0; round < 4; round += 1) await unsent.tick();
  expect(asked).toEqual([['a'], ['a'], ['a']]);
  expect(givenUp).toEqual([]);
});

test('of an outage the first ones are kept, in batches; that others are not is told once', async () => {
  for (let n = 0; n < 400; n += 1) unsent.remember(call(String(n)));
  expect(givenUp).toEqual([undefined]);
  now = 7_000;
  expect(await unsent.tick()).toBe(300);
  expect(asked.map((batch) => batch.length)).toEqual([256, 44]);
  expect(asked.flat().at(-1)).toBe('299');
  for (let n = 0; n < 400; n += 1) unsent.remember(call(String(n)));
  expect(givenUp).toHaveLength(2);
});

test('what Postgres refuses keeps the others from nothing', async () => {
  for (let n = 0; n < 257; n += 1) unsent.remember(call(String(n)));
  now = 7_000;
  const refused = new Error('refused');
  fails = [refused];
  expect(await unsent.tick()).toBe(1);
  expect(givenUp).toEqual([refused]);
});

test('a shutdown asks once for all, also for those that are not due', async () => {
  unsent.remember(call('a'));
  await unsent[Symbol.asyncDispose]();
  expect(asked).toEqual([['a']]);
});
