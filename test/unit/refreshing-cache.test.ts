import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { RefreshingCache } from '../../src/memory/refreshing-cache.ts';
import type { Lasting } from '../../src/memory/refreshing-cache.ts';

const LIFETIME = 3_600_000;
const MARGIN = 60_000;

function setUp(change: { max?: number; random?: () => number; isFinal?: (error: unknown) => boolean } = {}) {
  const clock = { ms: 5_000, now: (): number => clock.ms };
  const failed: unknown[] = [];
  const cache = new RefreshingCache<string>({
    max: 10,
    marginMs: MARGIN,
    idleMs: 900_000,
    clock,
    random: () => 0.5,
    onRefreshFailed: (error) => failed.push(error),
    ...change,
  });
  const loads: { resolve: (name: string) => void; reject: (error: Error) => void }[] = [];
  const load = () =>
    new Promise<Lasting<string>>((resolve, reject) => {
      loads.push({
        reject,
        resolve: (value) => {
          resolve({ value, lifetimeMs: LIFETIME });
        },
      });
    });
  const answer = async (value: string | Error) => {
    const last = loads.at(-1);
    if (typeof value === 'string') last?.resolve(value);
    else last?.reject(value);
    await new Promise((resolve) => setImmediate(resolve));
  };
  const get = (key = 'a/1') => cache.get(key, load);
  return { cache, clock, loads, answer, get, failed };
}

/** Whether it is there without waiting for anything that is not. */
async function now(value: Promise<string>): Promise<string> {
  return Promise.race([value, new Promise<string>((resolve) => setImmediate(resolve, 'waits'))]);
}

test('many at once are one load, of one key', async () => {
  const { get, loads, answer } = setUp();
  const all = Array.from({ length: 100 }, () => get());
  void get('b/1');
  expect(loads).toHaveLength(2);
  loads[0]?.resolve('one');
  expect(new Set(await Promise.all(all))).toEqual(new Set(['one']));
  await answer('b');
  expect(await get()).toBe('one');
  expect(loads).toHaveLength(2);
});

test('near its end it is loaded anew while the old one is given out, and nobody waits', async () => {
  const { get, loads, answer, clock } = setUp();
  const first = get();
  await answer('one');
  await first;
  clock.ms += LIFETIME * 0.75 - 1;
  expect(await now(get())).toBe('one');
  expect(loads).toHaveLength(1);
  clock.ms += 1;
  expect(await Promise.all(Array.from({ length: 50 }, () => now(get())))).toEqual(Array(50).fill('one'));
  expect(loads).toHaveLength(2);
  await answer('two');
  expect(await now(get())).toBe('two');
});

test('a refresh that fails waits a while, and the old one is used until its margin; then a failure is told and not kept', async () => {
  const { get, loads, answer, clock, failed } = setUp();
  const first = get();
  await answer('one');
  await first;
  clock.ms += LIFETIME * 0.8;
  expect(await now(get())).toBe('one');
  await answer(new Error('down'));
  expect(failed).toEqual([new Error('down')]);
  expect(await now(get())).toBe('one');
  expect(loads).toHaveLength(2);
  clock.ms += 15_000;
  expect(await now(get())).toBe('one');
  expect(loads).toHaveLength(3);
  await answer(new Error('still down'));
  clock.ms = 5_000 + LIFETIME - MARGIN - 1;
  expect(await now(get())).toBe('one');
  await answer(new Error('still down'));
  clock.ms += 1;
  for (const times of [5, 6]) {
    const waiting = get();
    expect(loads).toHaveLength(times);
    await answer(new Error('down'));
    await expect(waiting).rejects.toThrow('down');
  }
  const again = get();
  await answer('two');
  expect(await again).toBe('two');
});

test('a final failure gives up the old value, too', async () => {
  const { get, answer, clock } = setUp({ isFinal: (error) => (error as Error).message === 'refused' });
  const first = get();
  await answer('one');
  await first;
  clock.ms += LIFETIME * 0.8;
  expect(await now(get())).toBe('one');
  await answer(new Error('refused'));
  const next = get();
  expect(await now(next)).toBe('waits');
  await answer(new Error('refused'));
  await expect(next).rejects.toThrow('refused');
});

test('a life is counted from before it was asked for, and one that is over is given to those who wait only', async () => {
  const { get, loads, answer, clock } = setUp();
  const first = get();
  clock.ms += LIFETIME - MARGIN;
  await answer('slow');
  expect(await first).toBe('slow');
  void get().catch(() => undefined);
  expect(loads).toHaveLength(2);
});

test('what is evicted is not given out, and what was being loaded or refreshed for it is not kept', async () => {
  const { cache, get, loads, answer, clock } = setUp();
  const first = get();
  cache.evict('a/');
  await answer('one');
  expect(await first).toBe('one');
  const second = get();
  expect(loads).toHaveLength(2);
  await answer('two');
  await second;
  clock.ms += LIFETIME * 0.8;
  await get();
  cache.evict('a/');
  await answer('refreshed');
  expect(await now(get())).toBe('waits');
  expect(cache.size).toBe(0);
});

test('the sweep drops what has ended and what nobody used; the bound drops what was unused for longest', async () => {
  const { cache, get, answer, clock } = setUp({ max: 2 });
  for (const key of ['a', 'b', 'c']) {
    const loading = get(key);
    await answer(key);
    await loading;
  }
  expect(cache.size).toBe(2);
  expect(await now(get('b'))).toBe('b');
  clock.ms += 600_000;
  await get('c');
  clock.ms += 300_000;
  cache.sweep();
  expect(cache.size).toBe(1);
  clock.ms += LIFETIME;
  cache.sweep();
  expect(cache.size).toBe(0);
  cache[Symbol.dispose]();
});

test('property: refreshes are spread, never in the first half of a life and long before its end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.double({ min: 0, max: 1, noNaN: true }), async (share) => {
      const { get, loads, answer, clock, cache } = setUp({ random: () => share });
      const first = get();
      await answer('one');
      await first;
      clock.ms += LIFETIME / 2;
      await get();
      expect(loads).toHaveLength(1);
      clock.ms += LIFETIME * 0.36;
      expect(await now(get())).toBe('one');
      expect(loads).toHaveLength(2);
      cache[Symbol.dispose]();
    }),
    { numRuns: 50 },
  );
});
