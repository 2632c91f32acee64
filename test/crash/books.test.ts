import { describe, expect, test } from '@jest/globals';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import { compare, compareAudit } from './books.ts';
import type { Row } from './books.ts';
import { Chance } from './chance.ts';
import { planRounds, POINT_NAMES } from './run.ts';
import type { Witness } from './witness.ts';

const TOKENS = { ...NO_TOKENS, input: 3, output: 5 };
const ACME = { id: 'acme', token: 'x', accountId: '111111111111' };

function row(changes: Partial<Row> = {}): Row {
  return {
    merchantId: 'acme',
    id: 'a',
    state: 'settled',
    operation: 'invoke',
    tokens: TOKENS,
    actions: ['call.admitted', 'call.settled'],
    ...changes,
  };
}

function witness(changes: Partial<Witness> = {}): Witness {
  return {
    callId: 'a',
    tag: 'call-1-1',
    accountId: ACME.accountId,
    operation: 'invoke',
    verified: true,
    executed: true,
    tokens: TOKENS,
    ...changes,
  };
}

const NOT_RUN = { executed: false, tokens: undefined };

describe('a ledger and a journal that agree', () => {
  test.each<[string, Row[], Witness[]]>([
    ['settled and run', [row()], [witness()]],
    ['void and refused', [row({ state: 'void', tokens: NO_TOKENS })], [witness(NOT_RUN)]],
    ['void and never there', [row({ state: 'void', tokens: NO_TOKENS })], []],
    ['unknown and run', [row({ state: 'unknown', tokens: NO_TOKENS })], [witness()]],
    ['unknown and never there', [row({ state: 'unknown', tokens: NO_TOKENS })], []],
    [
      'tried again after a refusal',
      [row(), row({ id: 'b', state: 'void' })],
      [witness(), witness({ callId: 'b', ...NOT_RUN })],
    ],
  ])('%s', (_name, rows, witnesses) => {
    expect(compare(rows, witnesses, [ACME])).toEqual([]);
  });
});

describe('what must not be is seen', () => {
  test.each<[string, Row[], Witness[], RegExp]>([
    ['a request without a row', [], [witness()], /has 0 rows/],
    [
      'a request with rows of two merchants',
      [row(), row({ merchantId: 'other' })],
      [witness()],
      /has 2 rows/,
    ],
    [
      'a request without an id',
      [row()],
      [witness(), witness({ callId: undefined, tag: 'call-1-2' })],
      /carries no call id/,
    ],
    [
      'two requests of one row',
      [row({ state: 'unknown' })],
      [witness(NOT_RUN), witness(NOT_RUN)],
      /was sent to AWS 2 times/,
    ],
    ['settled and never there', [row()], [], /is settled and ran 0 times/],
    ['settled and refused', [row()], [witness(NOT_RUN)], /is settled and ran 0 times/],
    ['settled with other numbers', [row({ tokens: { ...TOKENS, output: 4 } })], [witness()], /AWS bills/],
    ['given back although it ran', [row({ state: 'void' })], [witness()], /is void and ran/],
    ['held for ever', [row({ state: 'held' })], [], /is still held/],
    [
      'signed with the keys of another',
      [row()],
      [witness({ accountId: '222222222222' })],
      /was signed for 222222222222/,
    ],
    [
      'another operation',
      [row()],
      [witness({ operation: 'converse' })],
      /is invoke here and converse at AWS/,
    ],
    ['a signature that does not hold', [row()], [witness({ verified: false })], /signature/],
    [
      'one call of a caller that ran as two',
      [row(), row({ id: 'b' })],
      [witness(), witness({ callId: 'b' })],
      /call-1-1 ran 2 times/,
    ],
  ])('%s', (_name, rows, witnesses, fault) => {
    expect(compare(rows, witnesses, [ACME]).join('\n')).toMatch(fault);
  });

  test.each<[Row['state'], string[], boolean]>([
    ['settled', ['call.admitted', 'call.settled'], true],
    ['settled', ['call.admitted', 'call.unknown', 'call.settled'], true],
    ['void', ['call.admitted', 'call.void'], true],
    ['unknown', ['call.admitted', 'call.unknown'], true],
    ['settled', ['call.admitted', 'call.settled', 'call.settled'], false],
    ['settled', ['call.admitted', 'call.void', 'call.settled'], false],
    ['settled', ['call.admitted', 'call.void'], false],
    ['settled', ['call.settled'], false],
    ['void', ['call.admitted', 'call.unknown'], false],
    ['unknown', ['call.admitted', 'call.unknown', 'call.settled'], false],
    ['held', ['call.admitted', 'call.settled'], false],
  ])('%s with the audit events %s: %s', (state, actions, holds) => {
    expect(compareAudit([row({ state, actions })])).toHaveLength(holds ? 0 : 1);
  });
});

describe('a run', () => {
  const plan = (changes: object = {}) =>
    planRounds({ seed: 5, rounds: 28, postgresRounds: 10, only: [], ...changes });

  test('of the same seed has the same rounds, and of another one others', () => {
    expect(plan()).toEqual(plan());
    expect(plan({ seed: 6 })).not.toEqual(plan());
    expect(new Chance(7).next()).toBe(new Chance(7).next());
  });

  test('comes to every point', () => {
    expect(new Set(plan().map(({ point }) => point.name))).toEqual(new Set(POINT_NAMES));
  });

  test('of chosen rounds has them as they are in the whole run', () => {
    const [third] = plan({ only: ['3'] });
    expect(third).toEqual(plan()[2]);
    expect(plan({ only: ['leaving'] }).every(({ point }) => point.name === 'leaving')).toBe(true);
  });
});
