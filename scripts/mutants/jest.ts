import { spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile } from 'node:fs/promises';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';

export interface TestRun {
  /** The copy of the repository that the tests run in. */
  tree: string;
  /** For everything that the run leaves behind. */
  scratch: string;
  tests: readonly string[];
  testName?: string | undefined;
  /** Without one the tests start a Postgres of their own. */
  databaseUrl?: string | undefined;
  processes: number;
  timeoutMs: number;
  signal: AbortSignal;
}

/** How tests ended. `problem`: not by what they test. */
export type Outcome =
  | { kind: 'green'; tests: number }
  | { kind: 'red'; failed: readonly [FailedTest, ...FailedTest[]] }
  | { kind: 'problem'; why: string };

export interface FailedTest {
  name: string;
  /** The titles of its describes, then its own. */
  titles: readonly string[];
  /** Its path in the repository. */
  file: string;
  /** The beginning of what it says. */
  says: string;
}

/** What `jest --json` writes, as far as it is read here. */
interface JestResult {
  numPassedTests: number;
  testResults: { name: string; message: string; status: string; assertionResults: JestAssertion[] }[];
}
interface JestAssertion {
  ancestorTitles: string[];
  title: string;
  status: string;
  failureMessages: string[];
}

/**
 * Failures by an expectation that was not met: of jest, of node:assert, of a property, or an Error that a test itself throws, such as "this
 * should have failed". All else is a test that broke.
 */
const NOT_MET = [
  /\bexpect(\(|\.)|\bAssertionError\b|^Error: Property failed after /m,
  /^Error: [^\n]*\n\s+at [^\n]*\/test\/(?!aws\/|support\/)[^\n]*\.ts:/,
];
/** What jest says when all is done, the result is written, and something still keeps its process. */
const LINGERING = 'Jest did not exit one second after the test run has completed';
const OUTPUT_KEPT = 20_000;

/** Runs tests as `npm test` does. A process that takes too long is ended, with all that it started. */
export async function runTests(run: TestRun): Promise<Outcome> {
  const folder = await mkdtemp(path.join(run.scratch, 'run-'));
  // A Postgres of a test's own runs as another user where this one is root, and must get to its data in there.
  await chmod(folder, 0o711);
  const resultFile = path.join(folder, 'result.json');
  const { output, timedOut } = await runJest(run, folder, resultFile);
  const text = await readFile(resultFile, 'utf8').catch(() => undefined);
  if (text !== undefined) return outcomeOf(JSON.parse(text) as JestResult, run.tree);
  const why = timedOut ? `no end after ${String(run.timeoutMs / 1_000)} s` : 'did not start';
  return { kind: 'problem', why: `${why}: ${gist(output)}` };
}

async function runJest(run: TestRun, folder: string, resultFile: string) {
  const [command = '', ...args] = await testCommand(run.tree);
  const jest = spawn(
    command,
    [
      ...args,
      '--ci',
      '--silent',
      '--watchman=false',
      `--maxWorkers=${String(run.processes)}`,
      `--cacheDirectory=${path.join(run.scratch, 'jest-cache')}`,
      '--json',
      `--outputFile=${resultFile}`,
      ...(run.testName === undefined ? [] : ['--testNamePattern', run.testName]),
      '--runTestsByPath',
      ...run.tests,
    ],
    {
      cwd: run.tree,
      // A process group of its own: Ctrl-C is ours to handle, and the end of the group is the end of all that a test started.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, DATABASE_URL: run.databaseUrl ?? '', FORCE_COLOR: '0', TMPDIR: folder },
    },
  );
  let output = '';
  const end = () => {
    if (jest.pid !== undefined && jest.exitCode === null && jest.signalCode === null)
      process.kill(-jest.pid, 'SIGKILL');
  };
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-OUTPUT_KEPT);
    if (output.includes(LINGERING)) end();
  };
  jest.stdout.on('data', keep);
  jest.stderr.on('data', keep);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    end();
  }, run.timeoutMs);
  run.signal.addEventListener('abort', end);
  if (run.signal.aborted) end();
  await new Promise((resolve) => jest.once('close', resolve).once('error', resolve));
  clearTimeout(timer);
  run.signal.removeEventListener('abort', end);
  return { output, timedOut };
}

/** The command behind `npm test`, so that both are always the same. */
async function testCommand(tree: string): Promise<string[]> {
  const { scripts } = JSON.parse(await readFile(path.join(tree, 'package.json'), 'utf8')) as {
    scripts: { test: string };
  };
  const [command, ...args] = scripts.test.split(' ');
  return [command === 'node' ? process.execPath : (command ?? ''), ...args];
}

function outcomeOf({ numPassedTests, testResults }: JestResult, tree: string): Outcome {
  const notStarted = testResults.find(
    ({ status, assertionResults }) =>
      status === 'failed' && !assertionResults.some((assertion) => assertion.status === 'failed'),
  );
  if (notStarted !== undefined) return { kind: 'problem', why: `did not start: ${gist(notStarted.message)}` };
  const failed = testResults.flatMap(({ name: file, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === 'failed')
      .map(({ ancestorTitles, title, failureMessages }) => {
        const titles = [...ancestorTitles, title];
        return {
          name: titles.join(' › '),
          titles,
          file: path.relative(tree, file),
          says: failureMessages.join('\n'),
        };
      }),
  );
  const [first, ...more] = failed
    .filter(({ says }) => NOT_MET.some((shape) => shape.test(says)))
    .map((test) => ({ ...test, says: gist(test.says) }));
  if (first !== undefined) return { kind: 'red', failed: [first, ...more] };
  const [broken] = failed;
  if (broken !== undefined)
    return { kind: 'problem', why: `broke and did not fail: ${broken.name}: ${gist(broken.says)}` };
  if (numPassedTests === 0) return { kind: 'problem', why: 'no test ran' };
  return { kind: 'green', tests: numPassedTests };
}

/** The first lines that say something, in one. */
function gist(text: string): string {
  const lines = stripVTControlCharacters(text)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && line !== '● Test suite failed to run' && !line.startsWith('at '));
  return lines.slice(0, 3).join(' / ').slice(0, 300);
}
