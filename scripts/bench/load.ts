/** The load generator: a process of its own that takes orders over IPC. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection } from './connection.ts';
import type { Exchange } from './connection.ts';
import { paced } from './paced.ts';
import { cpuMs, familyCpuMs } from './proc.ts';
import { summarize } from './statistics.ts';
import type { Hold, Job, Order, Report, Round } from './job.ts';

/** Answers per connection without which a round does not end, and the time after which it does all the same. */
const ROUND_TRIPS_MIN = 3;
const WINDOW_SECONDS_MAX = 30;
const OPENING_AT_ONCE = 16;

process.on('message', (order: Order) => {
  workOf(order).then(report, (error: unknown) => {
    report({ kind: 'failed', message: error instanceof Error ? error.message : 'unknown reason' });
  });
});
process.on('disconnect', () => process.exit());
// Ctrl-C is the business of whoever started this.
process.on('SIGINT', () => undefined);

function workOf(order: Order): Promise<Report> {
  switch (order.kind) {
    case 'load':
      return load(order.job);
    case 'hold':
      return hold(order.hold);
    case 'paced':
      return paced(order.paced);
  }
}

function report(message: Report): void {
  process.send?.(message);
}

async function load(job: Job): Promise<Report> {
  const connections = await openAll(job.inFlight, job);
  let counting = false;
  let running = true;
  let next = 0;
  let answered = 0;
  const exchanges: Exchange[] = [];
  const loops = connections.map(async (connection) => {
    while (running) {
      const request = job.requests[next++ % job.requests.length] ?? '';
      const exchange = await connection.send(request);
      answered += 1;
      if (counting || exchange.error !== undefined) exchanges.push(exchange);
      if (exchange.error !== undefined) return;
    }
  });
  const ended = Promise.all(loops);
  await until(ended, job.rampSeconds, () => answered >= job.inFlight);
  const from = reading(job);
  counting = true;
  await until(ended, job.seconds, () => exchanges.length >= ROUND_TRIPS_MIN * job.inFlight);
  counting = false;
  const to = reading(job);
  running = false;
  await ended;
  for (const connection of connections) connection.close();
  return { kind: 'round', round: roundOf(exchanges, from, to) };
}

/** As long as was asked for, and until enough has been answered: with many in flight they come in waves, and half a wave has no rate. */
async function until(ended: Promise<unknown>, seconds: number, isEnough: () => boolean): Promise<void> {
  const limit = performance.now() + WINDOW_SECONDS_MAX * 1_000;
  const state = { over: false };
  const over = ended.then(() => {
    state.over = true;
  });
  await Promise.race([sleep(seconds * 1_000), over]);
  while (!state.over && !isEnough() && performance.now() < limit) await Promise.race([sleep(10), over]);
}

type Reading = ReturnType<typeof reading>;

function reading(job: Job) {
  return {
    at: performance.now(),
    own: cpuMs(process.pid),
    watched: Object.entries(job.watched).map(
      ([name, { pid, family }]) => [name, family ? familyCpuMs(pid) : cpuMs(pid)] as const,
    ),
  };
}

function roundOf(exchanges: readonly Exchange[], from: Reading, to: Reading): Round {
  const good = exchanges.filter(({ error }) => error === undefined);
  const bad = exchanges.filter(({ error }) => error !== undefined);
  const before = new Map(from.watched);
  const firstError = bad[0]?.error ?? (good.length === 0 ? 'nothing was answered' : undefined);
  return {
    seconds: (to.at - from.at) / 1_000,
    latency: summarize(good.map(({ ms }) => ms)),
    firstByte: summarize(good.map(({ firstByteMs }) => firstByteMs)),
    cpuMs: Object.fromEntries(to.watched.map(([name, ms]) => [name, ms - (before.get(name) ?? 0)])),
    ownCpuMs: to.own - from.own,
    errors: Math.max(bad.length, good.length === 0 ? 1 : 0),
    ...(firstError !== undefined && { firstError }),
  };
}

/** Opens every stream, a few at a time, says so once each has brought its first bytes, and waits for the end of all. */
async function hold(order: Hold): Promise<Report> {
  const connections: Connection[] = [];
  const ended: Exchange[] = [];
  const exchanges: Promise<unknown>[] = [];
  let next = 0;
  const open = async () => {
    while (next < order.streams) {
      const request = order.requests[next++ % order.requests.length] ?? '';
      // Not earlier: a connection on which nothing comes is closed by the service.
      const connection = await Connection.open(order.port, order.marker);
      connections.push(connection);
      const begun = new Promise<void>((resolve) => {
        connection.onBody = resolve;
      });
      const exchange = connection.send(request).then((done) => void ended.push(done));
      exchanges.push(exchange);
      await Promise.race([begun, exchange]);
    }
  };
  await Promise.all(Array.from({ length: OPENING_AT_ONCE }, open));
  report({ kind: 'open', ended: ended.length });
  await Promise.all(exchanges);
  for (const connection of connections) connection.close();
  const bad = ended.filter(({ error }) => error !== undefined);
  const firstError = bad[0]?.error;
  return { kind: 'done', errors: bad.length, ...(firstError !== undefined && { firstError }) };
}

/** In small groups: a listener's backlog is not endless. */
async function openAll(count: number, { port, marker }: { port: number; marker: string }) {
  const connections: Connection[] = [];
  while (connections.length < count) {
    const group = Math.min(64, count - connections.length);
    connections.push(
      ...(await Promise.all(Array.from({ length: group }, () => Connection.open(port, marker)))),
    );
  }
  return connections;
}
