import { setTimeout as sleep } from 'node:timers/promises';
import { Connection } from './connection.ts';
import type { Closed, Pace, Paced, PacedCaller, PacedReport, PacedTally } from './job.ts';
import { summarize } from './statistics.ts';

/** What the door answers when it is full; anything else that is not 200 is an error. */
const REFUSED = /^status (?:429|503)\b/;

/**
 * Callers side by side for some seconds. One with a pace sends when its time has come, whatever the answers do, and a latency counts
 * from when the request was due: who waits for slow answers before asking again does not see them. One without a pace sends as fast as
 * it is answered, over so many connections.
 */
export async function paced({ port, marker, seconds, callers }: Paced): Promise<PacedReport> {
  const until = performance.now() + seconds * 1_000;
  const reports = callers.map(async (caller) => {
    const tally = new Tally();
    const open = () => Connection.open(port, marker);
    if ('perSecond' in caller) await onTime(caller, open, tally, until);
    else await unpaced(caller, open, tally, until);
    return [caller.name, tally.report()] as const;
  });
  return { kind: 'paced', callers: Object.fromEntries(await Promise.all(reports)) };
}

type Open = () => Promise<Connection>;

async function onTime({ requests, perSecond }: PacedCaller & Pace, open: Open, tally: Tally, until: number) {
  const startedAt = performance.now();
  const idle: Connection[] = [];
  const running = new Set<Promise<void>>();
  const send = async (request: string, dueAt: number) => {
    const connection = idle.pop() ?? (await open());
    const { sentAt, ms, error } = await connection.send(request);
    tally.add(sentAt - dueAt + ms, error);
    idle.push(connection);
  };
  for (let n = 0; ; n += 1) {
    const dueAt = startedAt + (n * 1_000) / perSecond;
    if (dueAt >= until) break;
    const early = dueAt - performance.now();
    if (early > 0) await sleep(early);
    const one = send(requests[n % requests.length] ?? '', dueAt).finally(() => running.delete(one));
    running.add(one);
  }
  await Promise.all(running);
  for (const connection of idle) connection.close();
}

async function unpaced(
  { requests, inFlight }: PacedCaller & Closed,
  open: Open,
  tally: Tally,
  until: number,
) {
  let next = 0;
  const loop = async () => {
    const connection = await open();
    while (performance.now() < until) {
      const { ms, error } = await connection.send(requests[next++ % requests.length] ?? '');
      tally.add(ms, error);
    }
    connection.close();
  };
  await Promise.all(Array.from({ length: inFlight }, loop));
}

class Tally {
  readonly #good: number[] = [];
  #refused = 0;
  #errors = 0;
  #firstError: string | undefined;

  add(ms: number, error: string | undefined): void {
    if (error === undefined) this.#good.push(ms);
    else if (REFUSED.test(error)) this.#refused += 1;
    else {
      this.#errors += 1;
      this.#firstError ??= error;
    }
  }

  report(): PacedTally {
    return {
      latency: summarize(this.#good),
      refused: this.#refused,
      errors: this.#errors,
      ...(this.#firstError !== undefined && { firstError: this.#firstError }),
    };
  }
}
