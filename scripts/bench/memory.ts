import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../cli/run.ts';
import type { Bench } from './measure.ts';
import { toService } from './measure.ts';
import { rssBytes } from './proc.ts';
import { MARKERS, bareRequest } from './requests.ts';

export interface MemoryResult {
  target: 'service' | 'bare';
  streams: number;
  idleBytes: number;
  openBytes: number;
  perStreamBytes: number;
  errors: number;
  firstError?: string;
}

/** Long enough that the first stream is still open when the last one is; then all go on to their end. */
function stallMs(streams: number): number {
  return 3_000 + streams * 30;
}
/** Few enough that the warm-up has opened the credentials of all: what a merchant costs is not what a stream costs. */
const MERCHANTS = 100;
/** Frames that get through before. */
const STALL_AT_EVENT = 4;
const SETTLE_MS = 2_000;
const WARM_UP = { inFlight: 16, rampSeconds: 0, seconds: 2, watched: {} };

/** What a stream costs while it is open and silent: RSS with all of them open minus RSS before, of fresh processes after a short warm-up. */
export async function measureMemory(bench: Bench): Promise<MemoryResult[]> {
  const { plan, house, say } = bench;
  if (plan.streams === 0) return [];
  const route = 'converse-stream';
  const { streams } = plan;
  const fresh = await house.startService([]);
  const freshBare = await house.startBareProxy();
  const results: MemoryResult[] = [];
  for (const [target, { pid, port }] of [
    ['service', fresh],
    ['bare', freshBare],
  ] as const) {
    const requests =
      target === 'bare'
        ? [bareRequest(route, port)]
        : toService(port, route, bench.merchants.slice(0, MERCHANTS)).requests;
    const marker = MARKERS[route];
    await bench.generator.load({ port, requests, marker, ...WARM_UP });
    await sleep(SETTLE_MS);
    const idleBytes = rssBytes(pid);
    let openBytes = Number.NaN;
    await control(bench, 'POST', {
      operation: 'ConverseStream',
      times: 'always',
      stallAtEvent: STALL_AT_EVENT,
      stallMs: stallMs(streams),
    });
    const { kind: _kind, ...ended } = await bench.generator.hold(
      { port, requests, marker, streams },
      async () => {
        await sleep(SETTLE_MS);
        openBytes = rssBytes(pid);
      },
    );
    await control(bench, 'DELETE');
    const perStreamBytes = (openBytes - idleBytes) / streams;
    results.push({ target, streams, idleBytes, openBytes, perStreamBytes, ...ended });
    say(
      `${String(streams)} open streams, ${target}: ${String(Math.round(perStreamBytes / 1_024))} KB each, ${String(ended.errors)} errors`,
    );
  }
  await fresh.stop();
  await freshBare.stop();
  return results;
}

async function control({ house }: Bench, method: 'POST' | 'DELETE', rule?: object): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${String(house.standIn.port)}/_stand-in/faults`, {
    method,
    ...(rule && { body: JSON.stringify(rule) }),
  });
  if (!answer.ok) throw new Failure(`the stand-in did not take its orders: ${await answer.text()}`);
}
