import { expect, test } from '@jest/globals';
import { ServiceError } from '../../src/domain/errors.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { PerMerchant } from '../../src/memory/per-merchant.ts';

const A = 'merchant-a' as MerchantId;
const B = 'merchant-b' as MerchantId;
const tooMany = () => new ServiceError('limit.rate_exceeded', 'too many');
const refused = { code: 'limit.rate_exceeded' };

function held() {
  let end = (): void => undefined;
  const work = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { work: () => work, end };
}

test('so many of one merchant at a time, others are not in its way, and nothing of what is refused is done', async () => {
  const running = new PerMerchant({ max: 2 });
  const long = held();
  const two = [running.run(A, long.work, tooMany), running.run(A, long.work, tooMany)];
  let done = 0;
  const count = () => Promise.resolve((done += 1));
  await expect(running.run(A, count, tooMany)).rejects.toMatchObject(refused);
  expect(done).toBe(0);
  await expect(running.run(B, count, tooMany)).resolves.toBe(1);
  long.end();
  await Promise.all(two);
  await expect(running.run(A, count, tooMany)).resolves.toBe(2);
});

test('a place can be taken and left by hand', () => {
  const places = new PerMerchant({ max: 1 });
  const leave = places.enter(A);
  expect(leave).toBeDefined();
  expect(places.enter(A)).toBeUndefined();
  leave?.();
  expect(places.enter(A)).toBeDefined();
});

test('a place is free again after a failure, and not before its rest', async () => {
  const clock = { ms: 5, now: (): number => clock.ms };
  const running = new PerMerchant({ max: 1, rest: { ms: 1_000, clock } });
  await expect(running.run(A, () => Promise.reject(new Error('fails')), tooMany)).rejects.toThrow('fails');
  clock.ms += 999;
  await expect(running.run(A, () => Promise.resolve(), tooMany)).rejects.toMatchObject(refused);
  await expect(running.run(B, () => Promise.resolve(), tooMany)).resolves.toBeUndefined();
  clock.ms += 1;
  await expect(running.run(A, () => Promise.resolve('again'), tooMany)).resolves.toBe('again');
});

test('work that takes longer than the rest keeps its place', async () => {
  const clock = { ms: 0, now: (): number => clock.ms };
  const running = new PerMerchant({ max: 1, rest: { ms: 1_000, clock } });
  const long = held();
  const first = running.run(A, long.work, tooMany);
  clock.ms += 60_000;
  await expect(running.run(A, long.work, tooMany)).rejects.toMatchObject(refused);
  long.end();
  await first;
});
