/** For each promise of the product a broken variant of the code, which its tests must notice. */
import { chmod, cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MUTANTS } from '../test/mutants/index.ts';
import { startEmbeddedPostgres } from '../test/support/postgres.ts';
import { readArguments, wholeNumber } from './cli/arguments.ts';
import { runTests } from './mutants/jest.ts';
import type { FailedTest, TestRun } from './mutants/jest.ts';
import { MutantError, testsOf } from './mutants/mutant.ts';
import type { Mutant } from './mutants/mutant.ts';
import { copyTree, withMutant } from './mutants/tree.ts';

const HELP = `Usage: npm run test:mutants -- [--list] [--only TEXT] [--workers N]

Breaks the code on purpose, one promise at a time, in a copy of the repository, and runs the tests that must notice. The promises, with
where and how each is broken, are in test/mutants. Before that the same tests must pass with nothing broken.

  --list       prints the promises, with file and tests, and ends
  --only TEXT  only the mutants with this text in their name, their file or the name of a test file
  --workers N  how many at a time; 2 if not given

One Postgres serves all of them: an embedded one, or that of DATABASE_URL (a login that may create databases and roles).

  caught    a test failed, twice, by an expectation that was not met
  SURVIVED  every test passed: nothing guards this promise
  problem   the tests did not start, broke or did not end, or the code is no longer what the mutant looks for

Exit code: 0 all were caught, 1 some were not, 2 it could not be tried, 130 interrupted.
`;
const OPTIONS = {
  list: { type: 'boolean' },
  only: { type: 'string' },
  workers: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

const ROOT = path.join(import.meta.dirname, '..');
const WORKERS_DEFAULT = 2;
const WORKERS_MAX = 16;
/** All named tests at once, with nothing broken. */
const WHOLE_TIMEOUT_MS = 900_000;
const MUTANT_TIMEOUT_MS = 240_000;

type Verdict = 'caught' | 'SURVIVED' | 'problem';

interface Result {
  mutant: Mutant;
  verdict: Verdict;
  /** The first test that failed, or what went wrong. */
  detail: string;
  seconds: number;
}

/** Where the runs take place: a folder that is removed at the end, and one copy of the repository for each worker. */
interface Place extends AsyncDisposable {
  scratch: string;
  trees: readonly [string, ...string[]];
  databaseUrl: string;
}

async function main(stop: AbortSignal): Promise<number> {
  const { values, problems } = readArguments(OPTIONS, process.argv.slice(2));
  if (values.help === true) {
    console.log(HELP);
    return 0;
  }
  const workers = values.workers === undefined ? WORKERS_DEFAULT : wholeNumber(values.workers);
  if (!(workers >= 1 && workers <= WORKERS_MAX))
    problems.push(`--workers must be 1 to ${String(WORKERS_MAX)}`);
  const mutants = MUTANTS.filter((mutant) => isMeant(mutant, values.only));
  if (mutants.length === 0) problems.push('--only fits none of the mutants; --list prints them');
  if (problems.length > 0) {
    console.error(`Nothing was tried:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\n\n${HELP}`);
    return 2;
  }
  if (values.list === true) {
    for (const mutant of mutants)
      console.log(`${mutant.name}\n    ${mutant.file} <- ${testsOf(mutant).join(', ')}`);
    console.log(`\n${String(mutants.length)} mutants`);
    return 0;
  }
  await using place = await settle(Math.min(workers, mutants.length), stop);
  await demandGreen(place, mutants, stop);
  const results = await tryAll(place, mutants, stop);
  stop.throwIfAborted();
  report(results);
  return results.every(({ verdict }) => verdict === 'caught') ? 0 : 1;
}

function isMeant(mutant: Mutant, only: string | undefined): boolean {
  if (only === undefined) return true;
  return [mutant.name, mutant.file, ...testsOf(mutant)].some((text) =>
    text.toLowerCase().includes(only.toLowerCase()),
  );
}

/** What has been made is removed again, in reverse order, at the end or when a later part fails. */
async function settle(workers: number, stop: AbortSignal): Promise<Place> {
  const scratch = await mkdtemp(path.join(tmpdir(), 'merchant-bedrock-mutants-'));
  const closers = [() => rm(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 })];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    // As in runTests: Postgres may run as another user.
    await chmod(scratch, 0o711);
    const first = path.join(scratch, 'worker-1');
    await copyTree(ROOT, first);
    const others = Array.from({ length: workers - 1 }, (_, i) =>
      path.join(scratch, `worker-${String(i + 2)}`),
    );
    for (const tree of others) await cp(first, tree, { recursive: true, verbatimSymlinks: true });
    await mkdir(path.join(scratch, 'jest-cache'));
    stop.throwIfAborted();
    let databaseUrl = process.env['DATABASE_URL'] ?? '';
    if (databaseUrl === '') {
      process.env['TMPDIR'] = scratch;
      const cluster = await startEmbeddedPostgres();
      closers.push(() => cluster.stop());
      databaseUrl = cluster.adminUrl;
    }
    stop.throwIfAborted();
    return { scratch, trees: [first, ...others], databaseUrl, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * What fails at first is tried again by itself: some tests measure time and memory, and the machine was busy.
 * @throws NotGreen when a test fails with nothing broken: it could not tell whether a mutant is what it noticed.
 */
async function demandGreen(place: Place, mutants: readonly Mutant[], stop: AbortSignal): Promise<void> {
  const run = async (tests: readonly string[], processes: number) => {
    const { databaseUrl, trees } = place;
    const outcome = await runTests({
      ...basics(place, trees[0], stop),
      tests,
      databaseUrl,
      processes,
      timeoutMs: WHOLE_TIMEOUT_MS,
    });
    stop.throwIfAborted();
    return outcome;
  };
  const tests = [...new Set(mutants.flatMap(testsOf))].sort();
  say(`${String(tests.length)} test files with nothing broken ...`);
  let outcome = await run(tests, place.trees.length);
  if (outcome.kind === 'red') {
    say(`once more, one at a time: ${outcome.failed.map(({ name }) => name).join(', ')}`);
    outcome = await run([...new Set(outcome.failed.map(({ file }) => file))], 1);
  }
  if (outcome.kind === 'green') {
    say('green\n');
    return;
  }
  const why = outcome.kind === 'problem' ? [outcome.why] : outcome.failed.map(({ name }) => name);
  throw new NotGreen(`Not green with nothing broken, so no mutant was tried:\n  - ${why.join('\n  - ')}`);
}

class NotGreen extends Error {}

function basics(
  place: Place,
  tree: string,
  signal: AbortSignal,
): Pick<TestRun, 'tree' | 'scratch' | 'signal'> {
  return { tree, scratch: place.scratch, signal };
}

/** @returns in the order of the list. */
async function tryAll(place: Place, mutants: readonly Mutant[], stop: AbortSignal): Promise<Result[]> {
  const results = new Map<Mutant, Result>();
  const waiting = [...mutants];
  const work = async (tree: string) => {
    for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
      const result = await tryOne(place, tree, mutant, stop);
      if (stop.aborted) return;
      results.set(mutant, result);
      say(`${String(results.size).padStart(3)}/${String(mutants.length)} ${lineOf(result)}`);
    }
  };
  await Promise.all(place.trees.map(work));
  return mutants.flatMap((mutant) => results.get(mutant) ?? []);
}

async function tryOne(place: Place, tree: string, mutant: Mutant, signal: AbortSignal): Promise<Result> {
  const started = performance.now();
  const found = await judge(place, tree, mutant, signal);
  return { mutant, ...found, seconds: (performance.now() - started) / 1_000 };
}

async function judge(
  place: Place,
  tree: string,
  mutant: Mutant,
  signal: AbortSignal,
): Promise<{ verdict: Verdict; detail: string }> {
  const run = {
    ...basics(place, tree, signal),
    tests: testsOf(mutant),
    testName: mutant.testName,
    databaseUrl: mutant.ownPostgres === true ? undefined : place.databaseUrl,
    processes: 1,
    timeoutMs: MUTANT_TIMEOUT_MS,
  };
  try {
    return await withMutant(tree, mutant, async () => {
      const outcome = await runTests(run);
      if (outcome.kind === 'problem') return { verdict: 'problem', detail: outcome.why };
      if (outcome.kind === 'green')
        return { verdict: 'SURVIVED', detail: `${String(outcome.tests)} tests passed` };
      const [first, ...more] = outcome.failed;
      const detail = `${first.name}${more.length > 0 ? ` (and ${String(more.length)} more)` : ''}: ${first.says}`;
      // Once more: a test that fails now and then has noticed nothing.
      let again = await runTests({ ...run, tests: [first.file], testName: patternOf(first) });
      // Some titles hold something random, and are never met again.
      if (again.kind === 'problem') again = await runTests(run);
      return again.kind === 'red'
        ? { verdict: 'caught', detail }
        : { verdict: 'problem', detail: `failed only once: ${detail}` };
    });
  } catch (error) {
    if (error instanceof MutantError)
      return { verdict: 'problem', detail: `${mutant.file}: ${error.message}` };
    throw error;
  }
}

/** Just this test, for jest, which puts spaces between the titles. */
function patternOf({ titles }: FailedTest): string {
  return `^${titles.join(' ').replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;
}

function lineOf({ verdict, seconds, mutant }: Result): string {
  return `${verdict.padEnd(8)} ${seconds.toFixed(1).padStart(6)} s  ${mutant.name}`;
}

function report(results: readonly Result[]): void {
  const count = (verdict: Verdict) => results.filter((result) => result.verdict === verdict).length;
  console.log();
  for (const result of results) {
    console.log(lineOf(result));
    console.log(`${' '.repeat(19)}${testsOf(result.mutant).join(', ')}: ${result.detail}`);
  }
  const [survived, problems] = [count('SURVIVED'), count('problem')];
  console.log(
    `\n${String(count('caught'))} caught, ${String(survived)} survived, ${String(problems)} ${problems === 1 ? 'problem' : 'problems'}`,
  );
}

/** Progress: not the result. */
function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Ctrl-C, at any moment: what runs is ended and what was made is removed. */
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    interrupted.abort();
  });

main(interrupted.signal).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    if (interrupted.signal.aborted) {
      say('Interrupted. Nothing is left behind.');
      process.exitCode = 130;
      return;
    }
    console.error(error instanceof NotGreen ? error.message : error);
    process.exitCode = error instanceof NotGreen ? 1 : 2;
  },
);
