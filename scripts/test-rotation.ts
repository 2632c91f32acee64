/** Rotates credentials under load for some minutes, and kills the service in the middle of rotations. See --help. */
import { parseArgs } from 'node:util';
import { STEPS } from '../test/rotation/deaths.ts';
import { problemsOf, render, runRotations } from '../test/rotation/run.ts';
import { Town } from '../test/rotation/town.ts';
import { createDatabase, startEmbeddedPostgres } from '../test/support/postgres.ts';
import { BUILT, buildService } from './cli/build.ts';
import { Failure, UsageError, print, run, wasStarted } from './cli/run.ts';

const HELP = `Usage: npm run test:rotation -- [options]

Two replicas of the service as processes of their own, a Postgres and a stand-in for AWS. Credentials are rotated every two seconds while
calls, streams among them, run without a pause; some new keys are not known everywhere at first, some old ones are deleted early, some
rotations are rolled back. Then a replica is killed at each step of a rotation. No call may fail, and none may be signed by a version
that was retired. Nothing here talks to AWS.

  --minutes N    how long rotations go on under load (default 3)
  --callers N    calls at one time (default 12)
  --seed N       repeats a run (timing remains the machine's)
  --help         shows this
`;

const OPTIONS = {
  minutes: { type: 'string', default: '3' },
  callers: { type: 'string', default: '12' },
  seed: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

async function main(): Promise<void> {
  const values = readFlags(process.argv.slice(2));
  if (values.help) return print(HELP, '');
  const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000));
  const [minutes, callers] = [Number(values.minutes), Number(values.callers)];
  if (
    !(minutes > 0 && minutes <= 600) ||
    !Number.isInteger(callers) ||
    callers < 1 ||
    !Number.isInteger(seed)
  )
    throw new UsageError(['--minutes, --callers and --seed must be numbers']);
  const startedAt = performance.now();
  const say = (line: string) => {
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
    process.stderr.write(`[${seconds.padStart(4)} s] ${line}\n`);
  };
  say(
    `npm run test:rotation -- --minutes ${String(minutes)} --callers ${String(callers)} --seed ${String(seed)}`,
  );
  const built = await buildService(say);
  const cluster = await startEmbeddedPostgres();
  process.on('exit', () => {
    cluster.killNow();
  });
  try {
    const database = await createDatabase(cluster.adminUrl, 'rotation_test');
    await using town = await Town.open({
      database,
      ...(built && { entry: ['--enable-source-maps', BUILT] }),
    });
    const result = await runRotations(town, {
      ...{ seed, callers, say },
      forMs: minutes * 60_000,
      everyMs: 2_000,
      deaths: Object.keys(STEPS),
    }).catch((error: unknown) => {
      // Nothing that this test sends is secret.
      throw new Failure(error instanceof Error ? (error.stack ?? error.message) : String(error));
    });
    await print(`${render(result)}\n`, '');
    const problems = problemsOf(result);
    if (problems.length > 0) throw new Failure(problems.join('\n'));
  } finally {
    await cluster.stop();
  }
}

function readFlags(args: string[]) {
  try {
    return parseArgs({ options: OPTIONS, args }).values;
  } catch {
    throw new UsageError(['an argument is not known, or lacks its value']);
  }
}

if (wasStarted(import.meta.url)) run('test:rotation', 'Not tested', main);
