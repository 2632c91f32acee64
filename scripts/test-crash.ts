/** Kills the service and Postgres under load, and holds the ledger against what AWS saw. See --help. */
import { HELP, readOrder } from '../test/crash/options.ts';
import { House } from '../test/crash/house.ts';
import { render } from '../test/crash/report.ts';
import { planRounds, run as runRounds } from '../test/crash/run.ts';
import type { RunOrder } from '../test/crash/run.ts';
import { verdict } from '../test/crash/verdict.ts';
import { createDatabase, startEmbeddedPostgres } from '../test/support/postgres.ts';
import { BUILT, buildService } from './cli/build.ts';
import { Failure, Interrupted, print, run, wasStarted } from './cli/run.ts';

async function main(): Promise<void> {
  const asked = readOrder(process.argv.slice(2));
  if (asked === undefined) return print(HELP, '');
  const order: RunOrder = { ...asked, stopped: signalled() };
  const startedAt = performance.now();
  const seconds = () => ((performance.now() - startedAt) / 1_000).toFixed(0);
  const say = (line: string) => {
    process.stderr.write(`[${seconds().padStart(4)} s] ${line}\n`);
  };
  const repeat = `npm run test:crash -- --seed ${String(order.seed)} --rounds ${String(order.rounds)} --postgres ${String(order.postgresRounds)}`;
  say(repeat);
  const result = await tested(order, say).catch((error: unknown) => {
    if (order.stopped.aborted) throw new Interrupted();
    // Nothing that this test sends is secret.
    throw new Failure(error instanceof Error ? (error.stack ?? error.message) : String(error));
  });
  if (order.stopped.aborted) throw new Interrupted();
  await print(`seed ${String(order.seed)}, ${seconds()} s\n\n${render(result)}\n`, '');
  const reasons = verdict(result, planRounds(order).length);
  if (reasons.length === 0) return;
  const last = result.results.at(-1)?.number ?? 0;
  throw new Failure(
    `${reasons.join('\n')}\n\nTo repeat: ${repeat}\nOnly its last round: ${repeat} --only ${String(last)}`,
  );
}

async function tested(order: RunOrder, say: (line: string) => void) {
  const built = await buildService(say);
  const cluster = await startEmbeddedPostgres();
  const killCluster = () => {
    cluster.killNow();
  };
  // The last resort, when a second Ctrl-C does not wait.
  process.on('exit', killCluster);
  try {
    const database = await createDatabase(cluster.adminUrl, 'crash_test');
    await using house = await House.open({
      database,
      cluster,
      say,
      ...(built && { entry: ['--enable-source-maps', BUILT] }),
    });
    return await runRounds(house, order);
  } finally {
    await cluster.stop();
    process.off('exit', killCluster);
  }
}

/** The first Ctrl-C ends the round and stops everything in order; the second one ends at once, and what runs is killed. */
function signalled(): AbortSignal {
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (abort.signal.aborted) process.exit(130);
      abort.abort();
    });
  }
  return abort.signal;
}

if (wasStarted(import.meta.url)) run('test:crash', 'Not tested', main);
