import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AWS } from '../support/aws-keys.ts';
import { asMarkdown, CASES, DEPENDENCIES, EXPECTED, HOWS } from './expected.ts';
import type { Case, Dependency, How } from './expected.ts';
import { FaultHouse } from './house.ts';
import type { Observed } from './house.ts';

/** What docs/operations.md says of the longest wait, in the shortened times of house.ts and with room for a loaded machine. */
const HELD_MS_MAX = 18_000;
/** From the end of a fault to the first success. */
const RECOVERY_MS_MAX = 10_000;

const seen = new Map<string, Record<Case, Observed>>();
const afterwards = new Map<Dependency, Record<string, number>>();
const leaks = new Map<Dependency, string[]>();

/** All of it is seen first, everything that can be broken in its own house and all houses at one time; then it is compared. */
beforeAll(async () => {
  await Promise.all(DEPENDENCIES.map(observeAll));
}, 180_000);

async function observeAll(what: Dependency): Promise<void> {
  await using house = await FaultHouse.start(what);
  for (const how of HOWS) seen.set(`${what}/${how}`, await house.observe(how));
  afterwards.set(what, await house.statesAfterDeadline());
  leaks.set(what, await house.leaks());
}

afterAll(() => {
  seen.clear();
});

const rows = EXPECTED.flatMap(({ what, how, answers }) => how.map((one) => ({ what, how: one, answers })));

function observed(what: Dependency, how: How, name: Case): Observed {
  const found = seen.get(`${what}/${how}`)?.[name];
  if (found === undefined) throw new Error('was not observed');
  return found;
}

describe.each(rows)('$what $how', ({ what, how, answers }) => {
  test.each(CASES)('%s', (name) => {
    const cell = observed(what, how, name);
    expect(cell.answer).toBe(answers[name]);
    // Who tests a credential in an outage does not make it one of those who call with it.
    if (cell.afterTest !== undefined) expect(cell.afterTest).toBe(answers[name]);
    const { sent } = cell;
    // Sent once at most, and only where the ledger says that it may have run.
    const mayRun = /settled|unknown/.test(cell.answer);
    expect(sent.length).toBeLessThanOrEqual(mayRun || how === 'throttled' ? 1 : 0);
    if (cell.answer.includes('settled')) expect(sent.map(({ executed }) => executed)).toEqual([true]);
    const key = name.startsWith('direct') ? AWS.merchantADirect : AWS.merchantA;
    for (const { accessKeyId, verified } of sent)
      expect({ accessKeyId, verified }).toEqual({ accessKeyId: key.accessKeyId, verified: true });
    expect(cell.stored).toBe(0);
    expect(cell.tookMs).toBeLessThan(HELD_MS_MAX);
    expect(cell.recoveredMs).toBeLessThan(RECOVERY_MS_MAX);
  });
});

test.each(DEPENDENCIES)('%s: no row is held for ever', (what) => {
  expect(afterwards.get(what)?.['held']).toBeUndefined();
});

test.each(DEPENDENCIES)('%s: nothing was said or kept of a secret or a prompt', (what) => {
  expect(leaks.get(what)).toEqual([]);
});

test('every thing has every way to fail once', () => {
  const told = rows.map(({ what, how }) => `${what}/${how}`).sort();
  expect(told).toEqual(DEPENDENCIES.flatMap((what) => HOWS.map((how) => `${what}/${how}`)).sort());
});

test('docs/operations.md has this table', () => {
  const text = readFileSync(path.join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const table = /^\| What +\| How +\| stored.*\n(\|.*\n)+/m.exec(text)?.[0].trim().split('\n') ?? [];
  expect(table.map(plain)).toEqual(asMarkdown().map(plain));
});

/** Without the padding of a formatter. */
function plain(line: string): string {
  return line
    .split('|')
    .map((cell) => cell.trim().replace(/^-+$/, '---'))
    .join('|');
}
