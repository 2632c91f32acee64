import { describe, expect, test } from '@jest/globals';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallOutcome } from '../../src/domain/usage.ts';
import type { JournalEntry } from '../aws/journal.ts';
import type { Row } from './books.ts';
import type { Seen } from './load.ts';
import { readOrder } from './options.ts';
import { acknowledged, listed, overspent, resolveUnknown, stillOpen } from './promises.ts';
import { render } from './report.ts';
import type { RoundResult } from './round.ts';
import type { RunResult } from './run.ts';
import { verdict } from './verdict.ts';
import { witnessesOf } from './witness.ts';
import type { Witness } from './witness.ts';

const TIGHT = { id: 'tight', accountId: '222222222222' };
const ROW: Row = {
  merchantId: 'tight',
  id: 'a',
  state: 'unknown',
  operation: 'invoke',
  tokens: NO_TOKENS,
  actions: ['call.admitted', 'call.unknown'],
};
const WITNESS: Witness = {
  callId: 'a',
  tag: 'call-1-1',
  accountId: TIGHT.accountId,
  operation: 'invoke',
  verified: true,
  executed: true,
  tokens: { ...NO_TOKENS, input: 3, output: 5 },
};
const SEEN: Seen = {
  tag: 'call-1-1',
  status: 'cut',
  callId: 'a',
  errorType: undefined,
  clamped: false,
};

test('a call that a caller was told of and that has no row is seen', () => {
  expect(acknowledged([ROW], [SEEN, { ...SEEN, callId: undefined }])).toEqual([]);
  expect(acknowledged([{ ...ROW, id: 'b' }], [SEEN])).toEqual([
    expect.stringContaining('answered as call a'),
  ]);
});

describe('a limit that was passed at AWS is seen', () => {
  test.each<[string, object, boolean]>([
    ['as many tokens as allowed', { tokens: 8 }, true],
    ['a token more', { tokens: 7 }, false],
    ['as many requests', { requests: 1 }, true],
    ['a request more', { requests: 0 }, false],
    ['as much money', { nanoUsd: 3 * 800 + 5 * 4_000 }, true],
    ['a billionth of a dollar more', { nanoUsd: 3 * 800 + 5 * 4_000 - 1 }, false],
  ])('%s', (_name, limit, holds) => {
    const elsewhere = { ...WITNESS, accountId: 'another' };
    expect(overspent({ name: 'x', ...limit }, TIGHT, [WITNESS, elsewhere])).toHaveLength(holds ? 0 : 1);
  });
});

describe('rows in doubt', () => {
  test('must be listed, all of them and no other', () => {
    const rows = [ROW, { ...ROW, id: 'b', state: 'settled' } as const];
    expect(listed(rows, ['a'])).toEqual([]);
    for (const shown of [[], ['a', 'b'], ['b'], ['a', 'a']]) expect(listed(rows, shown)).toHaveLength(1);
  });

  test('are resolved by what AWS saw', async () => {
    const outcomes: CallOutcome[] = [];
    const ledger = new Set(['a', 'b', 'c']);
    const rows = ['a', 'b', 'c'].map((id) => ({ ...ROW, id }));
    const refused = { ...WITNESS, callId: 'b', executed: false, tokens: undefined };
    const result = await resolveUnknown(rows, [WITNESS, refused], ({ id }, outcome) => {
      if (ledger.has(id)) outcomes.push(outcome);
      return Promise.resolve(ledger.delete(id));
    });
    expect(result).toEqual({ unknown: 3, resolved: 3, faults: [] });
    expect(outcomes.map(({ state }) => state)).toEqual(['settled', 'void', 'void']);
    expect(outcomes[0]).toMatchObject({ usage: { tokens: WITNESS.tokens } });
  });

  test('that do not move, or move twice, are seen', async () => {
    const [never, always] = [() => Promise.resolve(false), () => Promise.resolve(true)];
    expect((await resolveUnknown([ROW], [], never)).faults).toEqual([
      'call a is unknown and could not be resolved',
    ]);
    expect((await resolveUnknown([ROW], [], always)).faults).toEqual(['call a was resolved twice']);
  });

  test('that are still there afterwards are seen', () => {
    const of = (state: Row['state']) => stillOpen([{ ...ROW, state }]).length;
    expect([of('held'), of('unknown'), of('settled'), of('void')]).toEqual([1, 1, 0, 0]);
  });
});

describe('what the journal swears', () => {
  const entry = (changes: Partial<Record<keyof JournalEntry, unknown>>) =>
    ({
      path: '/model/m/invoke',
      operation: 'InvokeModel',
      headers: { 'x-amzn-bedrock-request-metadata': '{"merchantBedrockCall":"a"}', 'content-length': '2' },
      bodyBytes: 2,
      bodyBase64: Buffer.from('{}').toString('base64'),
      verified: true,
      executed: false,
      ...changes,
    }) as unknown as JournalEntry;
  const idOf = (changes: Parameters<typeof entry>[0]) =>
    witnessesOf([entry(changes)]).witnesses.map(({ callId }) => callId);

  test('whose request it was: by the header, and for Converse by the body and nothing else', () => {
    const body = Buffer.from('{"requestMetadata":{"merchantBedrockCall":"b"}}');
    const bodyBase64 = body.toString('base64');
    expect(idOf({})).toEqual(['a']);
    expect(idOf({ bodyBase64 })).toEqual(['a']);
    expect(idOf({ operation: 'Converse', bodyBase64 })).toEqual(['b']);
    expect(idOf({ operation: 'ConverseStream' })).toEqual([undefined]);
    expect(idOf({ headers: {} })).toEqual([undefined]);
  });

  test('only what came in part does not count, and even that does when it ran', () => {
    expect(idOf({ bodyBytes: 1 })).toEqual([]);
    expect(idOf({ bodyBytes: 1, executed: true })).toHaveLength(1);
    expect(witnessesOf([entry({ bodyBytes: 1 })]).brokenOff).toBe(1);
    expect(witnessesOf([entry({ path: '/other' })])).toEqual({ witnesses: [], brokenOff: 0 });
    expect(witnessesOf([entry({ operation: 'CountTokens' })]).witnesses).toEqual([]);
  });
});

describe('a run is a proof', () => {
  const round = (changes: Partial<RoundResult> = {}): RoundResult => ({
    number: 1,
    point: 'random',
    limit: 'money',
    seen: [SEEN],
    witnesses: [WITNESS],
    brokenOff: 0,
    unknown: 1,
    resolved: 1,
    faults: [],
    ...changes,
  });
  const of = (
    rounds: number,
    changes: Partial<RunResult> = {},
    each: Partial<RoundResult> = {},
  ): RunResult => ({
    results: Array.from({ length: rounds }, () => round(each)),
    rows: [ROW],
    witnesses: [WITNESS],
    faults: [],
    differences: 0,
    brokenChains: 0,
    ...changes,
  });

  test('when it did what was asked, something was at stake and nothing is wrong', () => {
    expect(verdict(of(12), 12)).toEqual([]);
    expect(verdict(of(1, { witnesses: [] }, { seen: [], unknown: 0 }), 1)).toEqual([]);
  });

  test.each<[string, RunResult, RegExp]>([
    ['a fault', of(12, { faults: ['call a is void and ran'] }), /void and ran/],
    ['rounds that are missing', of(11), /11 of 12 rounds/],
    ['nothing at AWS', of(12, { witnesses: [{ ...WITNESS, executed: false }] }), /no call ran/],
    ['no death under load', of(12, {}, { seen: [{ ...SEEN, status: 200 }] }), /no call was cut/],
    ['no doubt', of(12, {}, { unknown: 0 }), /no call was left in doubt/],
    ['moments that were missed', of(12, {}, { point: 'streaming, missed' }), /more than a tenth/],
  ])('and not with %s', (_name, result, reason) => {
    expect(verdict(result, 12).join()).toMatch(reason);
  });

  test('its table says how often it died, where, and what became of the rows', () => {
    const text = render(of(12));
    expect(text).toMatch(/\| random +\| +12 \|/);
    expect(text).toMatch(/\| unknown rows resolved +\| +12 \|/);
    expect(text).toMatch(/\| invoke +\| +1 \| +0 \| +0 \| +1 \| +0 \|/);
  });
});

describe('what a run is asked for', () => {
  test('200 deaths of the service and 20 of Postgres, unless it says otherwise', () => {
    expect(readOrder([])).toMatchObject({ rounds: 200, postgresRounds: 20, only: [] });
    const asked = ['--rounds', '3', '--postgres', '1', '--seed', '7', '--only', 'random,2'];
    expect(readOrder(asked)).toEqual({ rounds: 3, postgresRounds: 1, seed: 7, only: ['random', '2'] });
    expect(readOrder(['--help', '--rounds', 'x'])).toBeUndefined();
  });

  test.each([
    [['--rounds', 'x']],
    [['--postgres', '-1']],
    [['--seed', '1.5']],
    [['--only', 'nowhere']],
    [['--x']],
  ])('not %j', (args) => {
    expect(() => readOrder(args)).toThrow(/must be|does not know|not known|lacks/);
  });
});
