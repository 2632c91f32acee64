import { afterEach, describe, expect, test } from '@jest/globals';
import type { MerchantId } from '../../src/domain/ids.ts';
import type { ServiceError } from '../../src/domain/errors.ts';
import { Watch } from '../../src/gateway/watch.ts';
import type { EndedBy, Held, Right } from '../../src/ledger/rights-store.ts';
import { soon } from '../support/soon.ts';
import { eventually } from '../support/until.ts';

const RIGHT: Right = { merchantId: 'merchant-a' as MerchantId, source: 'stored' };
const OTHER: Right = { merchantId: 'merchant-b' as MerchantId, source: 'stored' };

let open: Watch | undefined;
afterEach(() => open?.[Symbol.dispose]());

/** A database that answers what the test says, look by look; the last answer stays. */
function newWatch(answers: (() => Promise<Map<number, EndedBy>>)[], now = () => 0) {
  const asked: (readonly Held[])[] = [];
  const blind: unknown[] = [];
  const watch = new Watch({
    rights: {
      ended: (rights) => {
        asked.push(rights);
        return (answers.length > 1 ? answers.shift() : answers[0])?.() ?? Promise.resolve(new Map());
      },
    },
    clock: { now },
    onBlind: (error) => blind.push(error),
    lookTimeoutMs: 20,
    retryMs: 1,
  });
  open = watch;
  return { watch, asked, blind };
}

const all = (why: EndedBy) => () => Promise.resolve(new Map([[0, why]]));
const nothing = () => Promise.resolve(new Map<number, EndedBy>());

/** A database that answers each look when the test says so. */
class Late {
  readonly #looks: { resolve: (ended: Map<number, EndedBy>) => void; reject: (error: Error) => void }[] = [];
  readonly look = (): Promise<Map<number, EndedBy>> =>
    new Promise((resolve, reject) => this.#looks.push({ resolve, reject }));

  answer(look: number, ended: Map<number, EndedBy>): void {
    this.#looks[look]?.resolve(ended);
  }

  fail(look: number): void {
    this.#looks[look]?.reject(new Error('away'));
  }
}

async function until(is: () => boolean): Promise<void> {
  expect(await eventually(is, (so) => so, { everyMs: 1 })).toBe(true);
}

describe('a look', () => {
  test('is one question for all calls with one right, and cuts those whose right has ended', async () => {
    const { watch, asked } = newWatch([all('api_key')]);
    const cut: string[] = [];
    for (const name of ['one', 'two'])
      watch.begin({
        right: { ...RIGHT },
        cut: (why) => cut.push(`${name} ${why.code} ${why.options.extra?.['ended'] as string}`),
      });
    watch.begin({ right: OTHER, cut: () => cut.push('other') });
    expect(await watch.round()).toBe(2);
    expect(cut).toEqual(['one call.revoked api_key', 'two call.revoked api_key']);
    expect(asked).toEqual([[RIGHT, OTHER]]);
    // What was cut is not asked after again.
    await watch.round();
    expect(asked[1]).toEqual([OTHER]);
  });

  test('asks nothing while nothing runs, nor after what has ended by itself', async () => {
    const { watch, asked } = newWatch([all('merchant')]);
    expect(await watch.round()).toBe(0);
    watch.begin({ right: RIGHT, cut: () => undefined })[Symbol.dispose]();
    expect(await watch.round()).toBe(0);
    expect(asked).toEqual([]);
  });

  test('tells apart what differs in any part of the right', async () => {
    const { watch, asked } = newWatch([nothing]);
    const rights = [
      RIGHT,
      OTHER,
      { ...RIGHT, source: 'direct' },
      { ...RIGHT, apiKeyId: 'k' },
      { ...RIGHT, credentialId: 'c' },
    ] as Right[];
    for (const right of rights) watch.begin({ right, cut: () => undefined });
    await watch.round();
    expect(asked).toEqual([rights]);
  });
});

describe('while Postgres does not answer', () => {
  test('calls run on, and it is asked until it answers; the outage is told once', async () => {
    const away = () => Promise.reject(new Error('away'));
    const { watch, asked, blind } = newWatch([away, away, away, all('credential')]);
    const cut: ServiceError[] = [];
    watch.begin({ right: RIGHT, cut: (why) => cut.push(why) });
    expect(await watch.round()).toBe(1);
    expect(asked).toHaveLength(4);
    expect(blind).toHaveLength(1);
    expect(cut).toHaveLength(1);
  });

  test('a look that hangs is given up for the next', async () => {
    const hangs = () => new Promise<Map<number, EndedBy>>(() => undefined);
    const { watch, blind } = newWatch([hangs, all('merchant')]);
    watch.begin({ right: RIGHT, cut: () => undefined });
    expect(await soon(watch.round())).toBe(1);
    expect(blind).toHaveLength(1);
  });

  test('an answer that comes late ends calls all the same, and the round', async () => {
    const late = new Late();
    const { watch, asked, blind } = newWatch([late.look]);
    const cut: ServiceError[] = [];
    watch.begin({ right: RIGHT, cut: (why) => cut.push(why) });
    watch.begin({ right: OTHER, cut: (why) => cut.push(why) });
    const round = watch.round();
    await until(() => asked.length >= 2);
    late.answer(0, new Map([[0, 'api_key']]));
    expect(await soon(round)).toBe(1);
    expect(cut.map(({ options }) => options.extra)).toEqual([{ ended: 'api_key' }]);
    expect(blind).toHaveLength(1);
  });

  test('an answer that comes after its round does not end a later one, which asks what was taken away since', async () => {
    const late = new Late();
    const { watch, asked } = newWatch([late.look]);
    watch.begin({ right: RIGHT, cut: () => undefined });
    const first = watch.round();
    await until(() => asked.length >= 2);
    late.answer(1, new Map());
    expect(await soon(first)).toBe(0);
    const before = asked.length;
    const second = watch.round();
    late.answer(0, new Map());
    await until(() => asked.length >= before + 2);
    late.answer(before, new Map([[0, 'merchant']]));
    expect(await soon(second)).toBe(1);
  });

  test('three looks at most wait for it, and one that fails makes room', async () => {
    const late = new Late();
    const { watch, asked } = newWatch([late.look]);
    watch.begin({ right: RIGHT, cut: () => undefined });
    const round = watch.round();
    await until(() => asked.length === 3);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(asked).toHaveLength(3);
    late.fail(0);
    await until(() => asked.length === 4);
    late.answer(3, new Map([[0, 'merchant']]));
    expect(await soon(round)).toBe(1);
  });

  test('one round at a time, and none goes on once the watch is closed', async () => {
    const { watch, asked } = newWatch([() => Promise.reject(new Error('away'))]);
    watch.begin({ right: RIGHT, cut: () => undefined });
    const rounds = [watch.round(), watch.round()];
    await until(() => asked.length >= 3);
    watch[Symbol.dispose]();
    expect(await Promise.all(rounds)).toEqual([0, 0]);
    expect(rounds[0]).toBe(rounds[1]);
  });

  test('a token that has run out ends its calls all the same', async () => {
    let now = 999;
    const { watch } = newWatch([() => Promise.reject(new Error('away'))], () => now);
    const cut: unknown[] = [];
    watch.begin({ right: RIGHT, expiresAtMs: 1_000, cut: (why) => cut.push(why.options.extra) });
    watch.begin({ right: OTHER, cut: () => cut.push('other') });
    void watch.round();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(cut).toEqual([]);
    now = 1_000;
    expect(
      await eventually(
        () => cut,
        ({ length }) => length > 0,
      ),
    ).toEqual([{ ended: 'token' }]);
  });
});
