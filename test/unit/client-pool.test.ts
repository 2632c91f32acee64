import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ClientPool } from '../../src/bedrock/client-pool.ts';
import type { Lease } from '../../src/bedrock/client-pool.ts';

interface Client {
  key: string;
  destroyed: number;
}

function setUp(clientsMax = 2, idleMs = 100) {
  const clock = { time: 0, now: () => clock.time };
  const made: Client[] = [];
  const pool = new ClientPool<Client>({
    clientsMax,
    idleMs,
    clock,
    destroy: (client) => {
      client.destroyed += 1;
    },
  });
  const acquire = (key: string): Lease<Client> =>
    pool.acquire(key, () => {
      const client = { key, destroyed: 0 };
      made.push(client);
      return client;
    });
  return { pool, clock, made, acquire };
}

test('callers of one key share one client', () => {
  const { acquire, made } = setUp();
  const [first, second] = [acquire('a'), acquire('a')];
  expect(first.client).toBe(second.client);
  first.release();
  expect(acquire('a').client).toBe(second.client);
  expect(made).toHaveLength(1);
});

test('the client unused for longest goes first, and using one again counts', () => {
  const { acquire, made, pool } = setUp(2);
  for (const key of ['a', 'b', 'a', 'c']) acquire(key).release();
  expect(made.map(({ key, destroyed }) => [key, destroyed])).toEqual([
    ['a', 0],
    ['b', 1],
    ['c', 0],
  ]);
  expect(pool.size).toBe(2);
});

test('taking a client again counts as use at once, not only when it is given back', () => {
  const { acquire, made } = setUp(2);
  for (const key of ['a', 'b']) acquire(key).release();
  acquire('a');
  acquire('c');
  expect(made.map(({ key, destroyed }) => [key, destroyed])).toEqual([
    ['a', 0],
    ['b', 1],
    ['c', 0],
  ]);
  acquire('a').release();
  expect(made).toHaveLength(3);
});

test('a client in use survives its eviction until the last user is done', () => {
  const { acquire, made, pool } = setUp(1);
  const [first, second] = [acquire('a'), acquire('a')];
  acquire('b');
  expect(pool.size).toBe(1);
  first.release();
  expect(made[0]?.destroyed).toBe(0);
  second.release();
  expect(made[0]?.destroyed).toBe(1);
  expect(acquire('a').client).not.toBe(first.client);
});

test('releasing twice counts once', () => {
  const { acquire, made, pool } = setUp();
  const [first, second] = [acquire('a'), acquire('a')];
  first.release();
  first.release();
  pool.clear();
  expect(made[0]?.destroyed).toBe(0);
  second.release();
  expect(made[0]?.destroyed).toBe(1);
});

test('sweep drops what nobody used for idleMs, counted from the end of use', () => {
  const { acquire, clock, made, pool } = setUp(10, 100);
  const long = acquire('long');
  acquire('short').release();
  clock.time = 60;
  long.release();
  const busy = acquire('busy');
  clock.time = 100;
  pool.sweep();
  expect(made.map(({ key, destroyed }) => [key, destroyed])).toEqual([
    ['long', 0],
    ['short', 1],
    ['busy', 0],
  ]);
  clock.time = 1_000;
  pool.sweep();
  expect(made.map(({ destroyed }) => destroyed)).toEqual([1, 1, 0]);
  busy.release();
  expect(pool.size).toBe(1);
});

test('a client that cannot be made leaves nothing behind', () => {
  const { acquire, pool } = setUp();
  const fail = (): Client => {
    throw new Error('no keys');
  };
  expect(() => pool.acquire('a', fail)).toThrow('no keys');
  expect(pool.size).toBe(0);
  expect(acquire('a').client.key).toBe('a');
});

type World = ReturnType<typeof setUp> & { leases: { lease: Lease<Client>; key: string; open: boolean }[] };

/** What anyone can do with a pool, in any order. `release` picks one of the leases handed out so far, released or not. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('a', 'b', 'c', 'd', 'e').map(take) },
  { weight: 4, arbitrary: fc.nat(30).map(giveBack) },
  { weight: 1, arbitrary: fc.nat(150).map(wait) },
  { weight: 1, arbitrary: fc.constantFrom('sweep' as const, 'clear' as const).map(tidy) },
);

function take(key: string) {
  return ({ acquire, leases }: World): unknown => leases.push({ lease: acquire(key), key, open: true });
}

function giveBack(index: number) {
  return ({ leases }: World): void => {
    const chosen = leases[index % Math.max(leases.length, 1)];
    if (chosen === undefined) return;
    chosen.open = false;
    chosen.lease.release();
  };
}

function wait(ms: number) {
  return ({ clock }: World): unknown => (clock.time += ms);
}

function tidy(how: 'sweep' | 'clear') {
  return ({ pool }: World): void => {
    pool[how]();
  };
}

test('in any order of use: bounded, right client, never destroyed while leased, destroyed once in the end', () => {
  const steps = fc.array(step, { maxLength: 60 });
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 3 }), (acts, clientsMax) => {
      const world: World = { ...setUp(clientsMax, 100), leases: [] };
      const { pool, made, leases } = world;
      for (const act of acts) {
        act(world);
        expect(pool.size).toBeLessThanOrEqual(clientsMax);
        for (const { lease, key, open } of leases) {
          expect(lease.client.key).toBe(key);
          if (open) expect(lease.client.destroyed).toBe(0);
        }
        for (const client of made) expect(client.destroyed).toBeLessThanOrEqual(1);
      }
      pool.clear();
      for (const { lease } of leases) lease.release();
      expect(made.every(({ destroyed }) => destroyed === 1)).toBe(true);
    }),
    { numRuns: 500 },
  );
});
