import { existsSync, readFileSync } from 'node:fs';
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
