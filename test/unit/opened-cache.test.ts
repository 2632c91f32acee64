import { describe, expect, test } from '@jest/globals';
import { inspect } from 'node:util';
import { OpenedCache } from '../../src/credentials/opened-cache.ts';
import type { OpenedCacheOptions } from '../../src/credentials/opened-cache.ts';
import { VaultRefusal, VaultSilence } from '../../src/credentials/secret-vault.ts';
import { StaleCopies } from '../../src/credentials/stale-copies.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { SingleFlightCache } from '../../src/memory/single-flight-cache.ts';
import type { AwsCredential } from '../../src/domain/credential.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { eventually } from '../support/until.ts';

const A = 'merchant-a' as MerchantId;
const B = 'merchant-b' as MerchantId;
const ONE = 'cred_0000000000000000000001' as CredentialId;
const TWO = 'cred_0000000000000000000002' as CredentialId;

class FakeClock {
  ms = 1_000_000;
  now(): number {
    return this.ms;
  }
}

function opening(name: string): { count: number; open: () => Promise<AwsCredential> } {
  const state = {
    count: 0,
    open: (): Promise<AwsCredential> => {
      state.count++;
      return Promise.resolve({ kind: 'bedrock-api-key', apiKey: new Secret(name) });
    },
  };
  return state;
}

/** Opens, and has no stale copy to record. */
function by(open: () => Promise<AwsCredential>) {
  return { open, recordStaleUse: () => Promise.reject(new Error('nothing is stale here')) };
}

test('what is evicted while it is opened leaves no copy for the day on which the vault is silent', async () => {
  using cache = new OpenedCache({ clock: new FakeClock() });
  const place = { merchantId: A, credentialId: ONE, version: 1 };
  let answer: (credential: AwsCredential) => void = () => undefined;
  const opened = new Promise<AwsCredential>((resolve) => (answer = resolve));
  const first = cache.get(
    place,
    by(() => opened),
  );
  cache.evict(A, ONE);
  answer({ kind: 'bedrock-api-key', apiKey: new Secret('one') });
  await first;
  const silence = new VaultSilence('silent');
  await expect(
    cache.get(place, { open: () => Promise.reject(silence), recordStaleUse: () => Promise.resolve() }),
  ).rejects.toBe(silence);
});

describe('opened credentials', () => {
  test('are opened once for many who ask at once, and once more after that never within the time', async () => {
    using cache = new OpenedCache({ clock: new FakeClock() });
    const source = opening('one');
    const place = { merchantId: A, credentialId: ONE, version: 1 };
    const all = await Promise.all(Array.from({ length: 50 }, () => cache.get(place, by(source.open))));
    await cache.get(place, by(source.open));
    expect(source.count).toBe(1);
    expect(new Set(all).size).toBe(1);
  });

  test('are kept apart by merchant, credential and version', async () => {
    using cache = new OpenedCache({ clock: new FakeClock() });
    const places = [
      { merchantId: A, credentialId: ONE, version: 1 },
      { merchantId: A, credentialId: ONE, version: 2 },
      { merchantId: A, credentialId: ONE, version: 12 },
      { merchantId: A, credentialId: TWO, version: 1 },
      { merchantId: B, credentialId: ONE, version: 1 },
    ];
    for (const [i, place] of places.entries()) await cache.get(place, by(opening(String(i)).open));
    for (const [i, place] of places.entries()) {
      const kept = await cache.get(
        place,
        by(() => Promise.reject(new Error('opened again'))),
      );
      expect(kept.kind === 'bedrock-api-key' && kept.apiKey.reveal()).toBe(String(i));
    }
  });

  test('end 5 minutes after they were opened, however often they are used', async () => {
    const clock = new FakeClock();
    using cache = new OpenedCache({ clock });
    const source = opening('one');
    const place = { merchantId: A, credentialId: ONE, version: 1 };
    for (let ms = 0; ms < 300_000; ms += 30_000) {
      await cache.get(place, by(source.open));
      clock.ms += 30_000;
    }
    expect(source.count).toBe(1);
    await cache.get(place, by(source.open));
    expect(source.count).toBe(2);
  });

  test('end after a minute without use', async () => {
    const clock = new FakeClock();
    using cache = new OpenedCache({ clock });
    const source = opening('one');
    const place = { merchantId: A, credentialId: ONE, version: 1 };
    await cache.get(place, by(source.open));
    clock.ms += 59_999;
    await cache.get(place, by(source.open));
    expect(source.count).toBe(1);
    clock.ms += 60_000;
    await cache.get(place, by(source.open));
    expect(source.count).toBe(2);
  });

  test('of one credential are forgotten, those of others stay', async () => {
    using cache = new OpenedCache({ clock: new FakeClock() });
    const gone = opening('gone');
    const stays = opening('stays');
    const places = [
      { merchantId: A, credentialId: TWO, version: 1 },
      { merchantId: B, credentialId: ONE, version: 1 },
    ];
    for (const version of [1, 2])
      await cache.get({ merchantId: A, credentialId: ONE, version }, by(gone.open));
    for (const place of places) await cache.get(place, by(stays.open));
    cache.evict(A, ONE);
    for (const version of [1, 2])
      await cache.get({ merchantId: A, credentialId: ONE, version }, by(gone.open));
    for (const place of places) await cache.get(place, by(stays.open));
    expect([gone.count, stays.count]).toEqual([4, 2]);
  });
});

describe('while the vault is silent', () => {
  const place = { merchantId: A, credentialId: ONE, version: 1 };
  const silence = () => Promise.reject(new VaultSilence('throttled'));
  const refusal = (of: 'credential' | 'key') => () => Promise.reject(new VaultRefusal(of, new Error('no')));
  const TTL_MS = 300_000;

  /** A cache that has opened the credential, a clock past its time, and a count of recorded uses. */
  async function openedBefore(options: Partial<OpenedCacheOptions> = {}) {
    const clock = new FakeClock();
    const cache = new OpenedCache({ clock, ttlMs: TTL_MS, patienceMs: 20, ...options });
    await cache.get(place, by(opening('one').open));
    clock.ms += TTL_MS;
    const uses = { recorded: 0, asked: 0 };
    const get = (open: () => Promise<AwsCredential>, recordStaleUse = () => Promise.resolve()) =>
      cache.get(place, {
        open: () => {
          uses.asked += 1;
          return open();
        },
        recordStaleUse: () => {
          uses.recorded += 1;
          return recordStaleUse();
        },
      });
    return { cache, clock, uses, get };
  }

  test('what was opened before is used, each use recorded, and the vault is left alone for a while', async () => {
    const { cache, clock, uses, get } = await openedBefore();
    using _ = cache;
    for (let i = 0; i < 3; i++)
      expect(await get(silence)).toMatchObject({ apiKey: { reveal: expect.any(Function) } });
    expect(uses).toEqual({ recorded: 3, asked: 1 });
    clock.ms += 5_000;
    await get(silence);
    expect(uses).toEqual({ recorded: 4, asked: 2 });
    clock.ms += 5_000;
    await get(opening('two').open);
    await get(silence);
    expect(uses).toEqual({ recorded: 4, asked: 3 });
  });

  test('for 15 minutes and not longer', async () => {
    const { cache, clock, get } = await openedBefore();
    using _ = cache;
    clock.ms += 899_999;
    await get(silence);
    clock.ms += 1;
    await expect(get(silence)).rejects.toThrow('vault.unavailable');
  });

  test('a vault that only hangs is not waited for', async () => {
    const { cache, uses, get } = await openedBefore();
    using _ = cache;
    await get(() => new Promise(() => undefined));
    expect(uses).toEqual({ recorded: 1, asked: 1 });
  });

  test('a use that cannot be recorded is none', async () => {
    const { cache, get } = await openedBefore();
    using _ = cache;
    const gone = () => Promise.reject(new ServiceError('credential.not_usable', 'replaced'));
    await expect(get(silence, gone)).rejects.toThrow('credential.not_usable');
  });

  test.each([{ ttlMs: 0 }, { staleMs: 0 }])('%o keeps no copy', async (options) => {
    const { cache, get } = await openedBefore(options);
    using _ = cache;
    await expect(get(silence)).rejects.toThrow('vault.unavailable');
  });

  test.each(['credential', 'key'] as const)(
    'a refusal of the %s ends what it concerns, at once',
    async (of) => {
      const { cache, get } = await openedBefore();
      using _ = cache;
      const other = { merchantId: B, credentialId: TWO, version: 1 };
      await cache.get(other, by(opening('other').open));
      await expect(get(refusal(of))).rejects.toThrow('credential.unreadable');
      cache.heed(place, new VaultRefusal(of, new Error('no')));
      await expect(get(silence)).rejects.toThrow('vault.unavailable');
      const spared = cache.get(other, by(silence)).then(
        () => true,
        () => false,
      );
      expect(await spared).toBe(of === 'credential');
    },
  );

  test('a copy is no text in memory, and is gone with the cache', () => {
    const copies = new StaleCopies({ clock: new FakeClock(), max: 10, keptMs: 1_000, pauseMs: 10 });
    copies.keep('a', { kind: 'bedrock-api-key', apiKey: new Secret('ABSKcanary') });
    expect(inspect(copies, { depth: 9, showHidden: true })).not.toContain('ABSKcanary');
    expect(copies.open('a')).toMatchObject({ kind: 'bedrock-api-key' });
    copies[Symbol.dispose]();
    expect(copies.size).toBe(0);
  });
});

describe('a single-flight cache', () => {
  test('keeps no failure: all who waited get it, the next one tries again', async () => {
    using cache = new SingleFlightCache<string>({ max: 10, ttlMs: 1_000, clock: new FakeClock() });
    let tries = 0;
    const failing = () => Promise.reject(new Error(`try ${String(++tries)}`));
    const waiting = await Promise.allSettled([cache.get('k', failing), cache.get('k', failing)]);
    expect(waiting.map((result) => result.status === 'rejected' && String(result.reason))).toEqual([
      'Error: try 1',
      'Error: try 1',
    ]);
    await expect(cache.get('k', failing)).rejects.toThrow('try 2');
    await expect(cache.get('k', () => Promise.resolve('well'))).resolves.toBe('well');
  });

  test('does not keep what was evicted while it was being loaded', async () => {
    using cache = new SingleFlightCache<string>({ max: 10, ttlMs: 1_000, clock: new FakeClock() });
    const { promise, resolve } = deferred();
    const before = cache.get('a/1', () => promise);
    cache.evict('a/');
    const after = cache.get('a/1', () => Promise.resolve('new'));
    resolve('old');
    expect([await before, await after]).toEqual(['old', 'new']);
    expect(await cache.get('a/1', () => Promise.resolve('other'))).toBe('new');
  });

  test('an old load that ends late does not push out the new one', async () => {
    using cache = new SingleFlightCache<string>({ max: 10, ttlMs: 1_000, clock: new FakeClock() });
    const { promise, resolve } = deferred();
    const before = cache.get('a/1', () => promise);
    cache.evict('a/');
    await cache.get('a/1', () => Promise.resolve('new'));
    resolve('old');
    await before;
    expect(await cache.get('a/1', () => Promise.resolve('other'))).toBe('new');
  });

  test('holds no more than its bound', async () => {
    using cache = new SingleFlightCache<number>({ max: 3, ttlMs: 1_000, clock: new FakeClock() });
    for (let i = 0; i < 100; i++) await cache.get(String(i), () => Promise.resolve(i));
    expect(cache.size).toBe(3);
  });

  test('drops what nobody asks for when it sweeps, and all when it is disposed', async () => {
    const clock = new FakeClock();
    const cache = new SingleFlightCache<string>({ max: 10, ttlMs: 1_000, idleMs: 100, clock });
    await cache.get('old', () => Promise.resolve('v'));
    clock.ms += 60;
    await cache.get('young', () => Promise.resolve('v'));
    clock.ms += 60;
    cache.sweep();
    expect(cache.size).toBe(1);
    cache[Symbol.dispose]();
    expect(cache.size).toBe(0);
  });

  test('sweeps by itself', async () => {
    using cache = new SingleFlightCache<string>({ max: 10, ttlMs: 20, clock: { now: () => Date.now() } });
    await cache.get('k', () => Promise.resolve('v'));
    expect(cache.size).toBe(1);
    expect(
      await eventually(
        () => cache.size,
        (size) => size === 0,
      ),
    ).toBe(0);
  });
});

function deferred(): { promise: Promise<string>; resolve: (value: string) => void } {
  let resolve!: (value: string) => void;
  const promise = new Promise<string>((done) => (resolve = done));
  return { promise, resolve };
}
