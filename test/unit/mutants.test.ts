import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { MutantError, mutate, testsOf } from '../../scripts/mutants/mutant.ts';
import { MUTANTS } from '../mutants/index.ts';

const root = path.join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

// What `npm run test:mutants` needs to be true of the list, so that no mutant is lost when code moves.
describe('every mutant', () => {
  test('has a name of its own, which is a sentence', () => {
    const names = MUTANTS.map(({ name }) => name);
    expect(names.filter((name, at) => names.indexOf(name) !== at)).toEqual([]);
    for (const name of names) expect(name).toMatch(/^[A-Z"].{10,}\.$/);
  });

  test.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))('%s', (_name, mutant) => {
    expect(mutant.file).toMatch(/^(src|prisma|scripts)\//);
    expect(() => mutate(read(mutant.file), mutant)).not.toThrow();
    expect(testsOf(mutant)).not.toEqual([]);
    for (const file of testsOf(mutant)) {
      expect(file).toMatch(/^test\/.*\.test\.ts$/);
      expect({ file, exists: existsSync(path.join(root, file)) }).toEqual({ file, exists: true });
    }
  });
});

test('whoever breaks a function of the database breaks the one in force, and not one that a later migration replaced', () => {
  const FUNCTION = /^CREATE (?:OR REPLACE )?FUNCTION (\w+)\([^$]*\$\$.*?\$\$;/gms;
  const inForce = new Map<string, string>();
  for (const name of readdirSync(path.join(root, 'prisma/migrations'))
    .filter((one) => /^\d/.test(one))
    .sort()) {
    const file = `prisma/migrations/${name}/migration.sql`;
    for (const [, called = ''] of read(file).matchAll(FUNCTION)) inForce.set(called, file);
  }
  expect(inForce.size).toBeGreaterThan(50);
  const replaced = MUTANTS.filter(({ file }) => file.endsWith('.sql')).flatMap(({ name, file, find }) =>
    [...read(file).matchAll(FUNCTION)]
      .filter(([text, called = '']) => {
        const within = typeof find === 'string' ? text.includes(find) : new RegExp(find).test(text);
        return within && inForce.get(called) !== file;
      })
      .map(([, called]) => `${name} (${String(called)})`),
  );
  expect(replaced).toEqual([]);
});

describe('a text is broken', () => {
  test('in one place: to the letter, or as the pattern says', () => {
    expect(mutate('a + b', { find: '+', replace: '$&' })).toBe('a $& b');
    expect(mutate('a + b', { find: /(\w) \+/g, replace: '$1 -' })).toBe('a - b');
  });

  test.each([
    ['nowhere', { find: 'c', replace: '' }],
    ['in two places', { find: 'a', replace: '' }],
    ['in two places, by a pattern', { find: /a/, replace: '' }],
    ['to what it was', { find: 'b', replace: 'b' }],
  ])('never %s', (_name, mutant) => {
    expect(() => mutate('a b a', mutant)).toThrow(MutantError);
  });
});
