/** One promise of the product, broken in one place of the code, and the test that must notice. */
export interface Mutant {
  /** The promise that the broken code does not keep: one sentence, and no other mutant's. */
  name: string;
  /** The file that is broken. Paths are those of the repository. */
  file: string;
  /** Where: a text or a pattern that occurs exactly once in the file. */
  find: string | RegExp;
  /** What stands there instead: to the letter for a text, with `$1` and the like for a pattern. */
  replace: string;
  /** The test file, or files, that must fail. */
  test: string | readonly string[];
  /** Only the tests whose names match this pattern, as `jest -t` takes it. */
  testName?: string;
  /** For what belongs to a whole Postgres and not to one database, as roles do: the tests then start one of their own. */
  ownPostgres?: true;
}

/** A mutant that cannot be made as it is written down. */
export class MutantError extends Error {
  override readonly name = 'MutantError';
}

export function testsOf({ test }: Mutant): readonly string[] {
  return typeof test === 'string' ? [test] : test;
}

/**
 * @returns the text of the file with the promise broken.
 * @throws MutantError when `find` does not occur exactly once, or nothing changes.
 */
export function mutate(text: string, { find, replace }: Pick<Mutant, 'find' | 'replace'>): string {
  const times = typeof find === 'string' ? text.split(find).length - 1 : [...text.matchAll(all(find))].length;
  if (times !== 1) throw new MutantError(`what it looks for occurs ${String(times)} times and not once`);
  const broken = typeof find === 'string' ? text.replace(find, () => replace) : text.replace(find, replace);
  if (broken === text) throw new MutantError('it changes nothing');
  return broken;
}

function all(pattern: RegExp): RegExp {
  return new RegExp(pattern.source, `${pattern.flags.replaceAll(/[gy]/g, '')}g`);
}
