import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../cli/run.ts';
import type { Bench } from './measure.ts';
import { toService } from './measure.ts';
import type { RouteName } from './options.ts';
import { summarizeProfile } from './profile-summary.ts';
import type { CpuProfile, ProfileSummary, Window } from './profile-summary.ts';
import { MARKERS } from './requests.ts';

export interface RouteProfile extends ProfileSummary {
  route: RouteName;
  /** Requests in the window. */
  requests: number;
}

const IN_FLIGHT = 16;
const WARM_UP_SECONDS = 5;
const SAMPLING_INTERVAL_MICROS = 500;

/** A fresh process of the service under V8's own profiler; only the load itself is looked at, not the start. */
export async function profileService(bench: Bench): Promise<RouteProfile[]> {
  const { plan, house, say } = bench;
  if (plan.profileSeconds === 0) return [];
  const directory = path.join(house.directory, 'profile');
  const profiled = await house.startService([
    '--cpu-prof',
    `--cpu-prof-dir=${directory}`,
    `--cpu-prof-interval=${String(SAMPLING_INTERVAL_MICROS)}`,
  ]);
  const windows: { route: RouteName; requests: number; window: Window }[] = [];
  for (const route of plan.routes) {
    const job = {
      ...toService(profiled.port, route, bench.merchants),
      marker: MARKERS[route],
      inFlight: IN_FLIGHT,
      watched: {},
    };
    await bench.generator.load({ ...job, rampSeconds: 0, seconds: WARM_UP_SECONDS });
    const from = monotonicMicros();
    const round = await bench.generator.load({ ...job, rampSeconds: 0, seconds: plan.profileSeconds });
    if (round.errors > 0) throw new Failure(`errors under the profiler: ${round.firstError ?? ''}`);
    windows.push({ route, requests: round.latency.count, window: { from, to: monotonicMicros() } });
    await sleep(200);
  }
  // The profile is written as the process ends.
  await profiled.stop();
  const [file] = await readdir(directory);
  if (file === undefined) throw new Failure('the profiled service left no profile');
  say(`reading ${file}`);
  const profile = JSON.parse(await readFile(path.join(directory, file), 'utf8')) as CpuProfile;
  return windows.map(({ route, requests, window }) => ({
    route,
    requests,
    ...summarizeProfile(profile, window),
  }));
}

/** The clock that V8 stamps its profiles with. */
function monotonicMicros(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}
