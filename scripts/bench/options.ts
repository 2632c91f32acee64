import { parseArgs } from 'node:util';
import { UsageError } from '../cli/run.ts';

export const ROUTES = ['invoke', 'converse', 'converse-stream'] as const;
export type RouteName = (typeof ROUTES)[number];

/** `direct`: the stand-in itself. `bare`: the bare signing proxy. `one`, `many`: the service, with one merchant and with many. */
export const TARGETS = ['direct', 'bare', 'one', 'many'] as const;
export type TargetName = (typeof TARGETS)[number];

const IN_FLIGHT = [1, 16, 64, 256];
const MERCHANTS = 1_000;
const STREAMS = 1_000;

export interface Plan {
  routes: readonly RouteName[];
  targets: readonly TargetName[];
  inFlight: readonly number[];
  rounds: number;
  seconds: number;
  rampSeconds: number;
  merchants: number;
  /** Open streams of the memory part; 0 leaves it out. */
  streams: number;
  /** Seconds of each part of the neighbours' measure; 0 leaves it out. */
  neighbourSeconds: number;
  /** Seconds per route under the profiler; 0 leaves it out. */
  profileSeconds: number;
  json: string | undefined;
}

export const HELP = `Usage: npm run bench -- [options]

Measures the three routes invoke, converse and converse-stream against a bare signing proxy and against the stand-in for AWS itself, all on
this machine and in one run. A Markdown table goes to standard output, progress to standard error. Needs Linux. Nothing here talks to AWS.

  --quick          about a minute: fewer rounds, 1 and 64 in flight, 200 merchants, 300 streams
  --seconds N      length of a round (default 3)
  --rounds N       rounds of each target, alternating; medians are shown (default 5)
  --only WORDS     separated by commas: routes (${ROUTES.join(', ')}), targets (${TARGETS.join(', ')}),
                   numbers in flight (${IN_FLIGHT.join(', ')}), and the parts load, neighbours, memory, profile
  --profile        then profiles the service on each route and shows where its CPU time goes
  --json FILE      writes every round there
  --help           shows this

Errors make the run fail (exit code 1); slowness never does. Ctrl-C stops everything that was started.
`;

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  seconds: { type: 'string' },
  rounds: { type: 'string' },
  only: { type: 'string', default: '' },
  profile: { type: 'boolean', default: false },
  json: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

/** Undefined when help was asked for. @throws UsageError with everything that is wrong */
export function readPlan(args: readonly string[]): Plan | undefined {
  const values = readFlags(args);
  if (values.help) return undefined;
  const { quick } = values;
  const problems: string[] = [];
  const only = chosen(values.only, problems);
  const seconds = positive('--seconds', values.seconds, quick ? 0.5 : 3, problems);
  const rounds = positive('--rounds', values.rounds, quick ? 2 : 5, problems);
  if (!Number.isInteger(rounds)) problems.push('--rounds must be a whole number');
  if (problems.length > 0) throw new UsageError(problems);
  const part = (name: string): boolean => only.parts.length === 0 || only.parts.includes(name);
  const load = part('load');
  return {
    routes: only.routes.length > 0 ? only.routes : ROUTES,
    targets: load ? (only.targets.length > 0 ? only.targets : TARGETS) : [],
    inFlight: only.inFlight.length > 0 ? only.inFlight : quick ? [1, 64] : IN_FLIGHT,
    rounds,
    seconds,
    rampSeconds: quick ? 0.2 : 0.5,
    merchants: quick ? 200 : MERCHANTS,
    streams: part('memory') ? (quick ? 300 : STREAMS) : 0,
    neighbourSeconds: part('neighbours') ? (quick ? 2 : 8) : 0,
    profileSeconds: values.profile || only.parts.includes('profile') ? (quick ? 5 : 15) : 0,
    json: values.json,
  };
}

function readFlags(args: readonly string[]) {
  try {
    return parseArgs({ options: OPTIONS, args: [...args] }).values;
  } catch {
    throw new UsageError(['an argument is not known, or lacks its value']);
  }
}

function chosen(text: string, problems: string[]) {
  const words = text.split(',').filter((word) => word !== '');
  const routes = ROUTES.filter((name) => words.includes(name));
  const targets = TARGETS.filter((name) => words.includes(name));
  const parts = ['load', 'neighbours', 'memory', 'profile'].filter((name) => words.includes(name));
  const inFlight = words.map(Number).filter((count) => Number.isInteger(count) && count > 0);
  const known = new Set<string>([...routes, ...targets, ...parts, ...inFlight.map(String)]);
  for (const word of words) if (!known.has(word)) problems.push(`--only does not know "${word}"`);
  return { routes, targets, parts, inFlight };
}

function positive(flag: string, text: string | undefined, fallback: number, problems: string[]): number {
  const value = text === undefined ? fallback : Number(text);
  if (!(value > 0 && value < 3_600)) problems.push(`${flag} must be a number above 0`);
  return value;
}
