import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { ApiKeys } from '../../src/auth/api-keys.ts';
import type { StoredKey } from '../../src/auth/api-key-store.ts';
import { newBearerVerifier } from '../../src/auth/bearer.ts';
import { addressGroup, FailureBudget } from '../../src/auth/failure-budget.ts';
import { mintToken } from '../../src/auth/token.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ApiKeyId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { soon } from '../support/soon.ts';

const START = Date.parse('2026-11-21T00:00:00Z');
const [PER_ADDRESS, PER_KEY] = [30, 5];

/** A verifier over a store that counts, answers late, and can be away. */
function setUp() {
  const clock = { time: START, now: () => clock.time };
  const hasher = new TokenHasher([{ version: 1, key: new Secret(randomBytes(32)) }]);
  const rows = new Map<string, StoredKey & { merchantId: MerchantId }>();
  const state = { queries: 0, away: false };
  const look = async (id: string) => {
    state.queries += 1;
    await new Promise((resolve) => setImmediate(resolve));
    if (state.away) throw new ServiceError('ledger.unavailable', 'away');
    return rows.get(id);
  };
  const store = {
    find: look,
    findOperator: (id: ApiKeyId) => look(`operator ${id}`),
    insert: () => Promise.resolve(),
    insertAlone: () => Promise.resolve(),
    roll: () => Promise.reject(new Error('nothing is rolled here')),
  };
  const apiKeys = new ApiKeys({ store, hasher, clock, environment: 'live' });
  const failures = new FailureBudget({ clock, perAddressMax: PER_ADDRESS, perKeyMax: PER_KEY });
  const verify = newBearerVerifier({ apiKeys, failures, devTokens: false });
  const add = (kind: 'merchant' | 'operator' = 'merchant') => {
    const token = mintToken(kind, 'live');
    const row = {
      ...hasher.hash(token.secret),
      merchantId: 'acme' as MerchantId,
      environment: 'live',
      scopes: ['invoke'],
      expiresAt: new Date(START + 86_400_000),
      revokedAt: null as Date | null,
    };
    rows.set(kind === 'operator' ? `operator ${token.id}` : token.id, row);
    return { ...token, row };
  };
  /** What came of it: yes, no, or how long to wait. */
  const send = (text: string, address = '192.0.2.1', remembered = false): Promise<string> =>
    verify(text, { remembered, address }).then(
      (principal) => (principal === undefined ? '401' : 'in'),
      (error: unknown) => {
        if (!(error instanceof ServiceError)) throw error;
        return error.code === 'auth.too_many_failures'
          ? `429 after ${String(error.options.retryAfterSeconds)}`
          : error.code;
      },
    );
  return { clock, state, add, send };
}
const unknown = () => mintToken('merchant', 'live').text;
/** A token of the same id with another secret. */
function forged({ id }: { id: ApiKeyId }): string {
  for (;;) {
    const { text } = mintToken('merchant', 'live');
    const [, , , rest = ''] = text.split('_');
    const body = `mbk_live_${id}_${rest.slice(0, 43)}`;
    return body + checksum(body);
  }
}
function checksum(body: string): string {
  // The checksum of a token, as docs/security.md has it: CRC-32 in base62, six digits.
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  let crc = -1;
  for (const byte of Buffer.from(body)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  let value = (crc ^ -1) >>> 0;
  let text = '';
  for (; value > 0; value = Math.floor(value / 62)) text = digits.charAt(value % 62) + text;
  return text.padStart(6, '0');
}
const count = (answers: string[]) => answers.filter((answer) => answer.startsWith('429')).length;

describe('of an address', () => {
  test('ten thousand unknown tokens cost as many queries as the budget has, one after the other or all at once', async () => {
    for (const atOnce of [true, false]) {
      const { state, send } = setUp();
      const answers: string[] = [];
      if (atOnce) answers.push(...(await Promise.all(Array.from({ length: 10_000 }, () => send(unknown())))));
      else for (let n = 0; n < 200; n += 1) answers.push(await send(unknown()));
      expect(state.queries).toBe(PER_ADDRESS);
      expect(answers.filter((answer) => answer === '401')).toHaveLength(PER_ADDRESS);
      expect(count(answers)).toBe(answers.length - PER_ADDRESS);
    }
  });

  test('garbage is a failure too, and costs no query at all', async () => {
    const { state, send } = setUp();
    const answers: string[] = [];
    for (let n = 0; n < 100; n += 1) answers.push(await send(`garbage ${String(n)}`));
    expect([count(answers), state.queries]).toEqual([100 - PER_ADDRESS, 0]);
  });

  test('a token that was good before is let in from the same address, and good ones from others, whatever fails meanwhile', async () => {
    const { add, send } = setUp();
    const known = add().text;
    const operator = add('operator').text;
    const late = add().text;
    expect([await send(known), await send(operator)]).toEqual(['in', 'in']);
    await Promise.all(Array.from({ length: 500 }, () => send(unknown())));
    expect(await send(known)).toBe('in');
    expect(await send(known, undefined, true)).toBe('in');
    expect(await send(operator)).toBe('in');
    expect(await send(late)).toMatch(/^429/);
    expect(await send(late, '192.0.2.2')).toBe('in');
    expect(await send(late)).toBe('in');
  });

  test('a crowd of good tokens that nobody has seen before, all at once: each waits for its answer and none is refused', async () => {
    const { add, send } = setUp();
    const tokens = Array.from({ length: 200 }, () => add().text);
    expect(new Set(await Promise.all(tokens.map((token) => send(token))))).toEqual(new Set(['in']));
  });

  test('it fills again with time, and Retry-After says when', async () => {
    const { clock, send } = setUp();
    for (let n = 0; n < PER_ADDRESS; n += 1) expect(await send(unknown())).toBe('401');
    expect(await send(unknown())).toBe('429 after 2');
    clock.time += 2_000;
    expect(await send(unknown())).toBe('401');
    expect(await send(unknown())).toBe('429 after 2');
    clock.time += 60_000;
    for (let n = 0; n < PER_ADDRESS; n += 1) expect(await send(unknown())).toBe('401');
  });

  test('a clock that steps back neither adds failures nor holds anybody longer', async () => {
    const { clock, send } = setUp();
    for (let n = 0; n < PER_ADDRESS; n += 1) await send(unknown());
    clock.time -= 3_600_000;
    expect(await send(unknown())).toBe('429 after 2');
    clock.time += 2_000;
    expect(await send(unknown())).toBe('401');
  });

  test('a database that is away is nobody’s failure', async () => {
    const { add, state, send } = setUp();
    state.away = true;
    for (let n = 0; n < 100; n += 1) expect(await send(unknown())).toBe('ledger.unavailable');
    state.away = false;
    expect(await send(add().text)).toBe('in');
  });
});

describe('of a key', () => {
  test('wrong secrets from everywhere: one query a minute, and the key itself goes on, seen before or not', async () => {
    const { add, state, send, clock } = setUp();
    const key = add();
    const answers: string[] = [];
    for (let n = 0; n < 300; n += 1) answers.push(await send(forged(key), `198.51.100.${String(n % 250)}`));
    expect([state.queries, answers.filter((answer) => answer === '401').length]).toEqual([1, PER_KEY]);
    expect(await send(key.text)).toBe('in');
    clock.time += 61_000;
    await send(forged(key), '198.51.100.1');
    expect(state.queries).toBe(3);
  });

  test('the key goes on in the moment too in which what is known of it is too old to refuse others by', async () => {
    const { add, send, clock } = setUp();
    const key = add();
    for (const passedMs of [0, 60_000]) {
      clock.time = START + passedMs;
      for (let n = 0; n < 20; n += 1) await send(forged(key), `198.51.100.${String(n)}`);
    }
    clock.time = START + 60_001;
    expect(await send(forged(key), '198.51.100.1')).toMatch(/^429/);
    expect(await send(key.text)).toBe('in');
  });

  test('all at once, no more than its budget', async () => {
    const { add, state, send } = setUp();
    const key = add();
    const answers = await Promise.all(
      Array.from({ length: 300 }, (_, n) => send(forged(key), `198.51.100.${String(n % 250)}`)),
    );
    expect(state.queries).toBeLessThanOrEqual(PER_KEY);
    expect(count(answers)).toBe(300 - PER_KEY);
    expect(await send(key.text)).toBe('in');
  });

  test('a revoked token is asked for once a minute, though it was good before', async () => {
    const { add, state, send } = setUp();
    const key = add();
    expect(await send(key.text)).toBe('in');
    key.row.revokedAt = new Date(START);
    const answers: string[] = [];
    for (let n = 0; n < 50; n += 1) answers.push(await send(key.text, `198.51.100.${String(n)}`));
    expect(state.queries).toBe(2);
    expect(answers.slice(0, PER_KEY)).toEqual(Array(PER_KEY).fill('401'));
  });

  test('an operator’s key of the same id is another key', async () => {
    const { add, send } = setUp();
    const key = add();
    const [, , id = ''] = key.text.split('_');
    const operators = mintToken('operator', 'live').text.split('_');
    const body = `mbo_live_${id}_${(operators[3] ?? '').slice(0, 43)}`;
    for (let n = 0; n < 20; n += 1) await send(body + checksum(body), `198.51.100.${String(n)}`);
    expect(await send(key.text)).toBe('in');
  });
});

test('who waits and leaves is let go at once, is no failure, and holds nobody up', async () => {
  const budget = new FailureBudget({ clock: { now: () => START }, perAddressMax: 1, perKeyMax: 1 });
  const first = await budget.begin('192.0.2.1', undefined);
  const caller = new AbortController();
  const left = budget.begin('192.0.2.1', undefined, () => caller.signal);
  const stays = budget.begin('192.0.2.1', undefined, () => new AbortController().signal);
  caller.abort();
  await expect(soon(left)).rejects.toMatchObject({ code: 'request.aborted' });
  await expect(budget.begin('192.0.2.1', undefined, () => AbortSignal.abort())).rejects.toMatchObject({
    code: 'request.aborted',
  });
  first('passed');
  (await stays)('passed');
  // Nor of its address, when it waited for the answer to others with its key.
  const ofKey = await budget.begin('192.0.2.2', 'key');
  await expect(budget.begin('192.0.2.3', 'key', () => AbortSignal.abort())).rejects.toMatchObject({
    code: 'request.aborted',
  });
  ofKey('passed');
  (await budget.begin('192.0.2.3', 'key'))('passed');
});

test('what is remembered is bounded', async () => {
  const clock = { now: () => START };
  const budget = new FailureBudget({ clock, perAddressMax: 1, perKeyMax: 1, entriesMax: 10 });
  for (let n = 0; n < 100; n += 1) (await budget.begin(`2001:db8:${n.toString(16)}::1`, undefined))('failed');
  // The first ones were forgotten, the last ones were not.
  (await budget.begin('2001:db8:0::1', undefined))('open');
  await expect(budget.begin('2001:db8:63::1', undefined)).rejects.toMatchObject({
    code: 'auth.too_many_failures',
  });
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['0:0:0:0:0:FFFF:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:0DB8:0001:0002:ffff::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['2001:db8:1::', '2001:db8:1:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['192.0.2.1:50000', '192.0.2.1'],
  ['[2001:db8:1:2::5]:50000', '2001:db8:1:2::/64'],
  ['[2001:db8:1:2::5]', '2001:db8:1:2::/64'],
  ['', ''],
])('%s is counted as %s', (address, group) => {
  expect(addressGroup(address)).toBe(group);
});
