/** A file of `node --cpu-prof`; times in microseconds of the monotonic clock. */
export interface CpuProfile {
  nodes: readonly ProfileNode[];
  startTime: number;
  samples: readonly number[];
  timeDeltas: readonly number[];
}

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
  children?: readonly number[];
}

export interface Window {
  from: number;
  to: number;
}

export interface ProfileSummary {
  /** Time in which the thread did something, milliseconds; all below are of this. */
  busyMs: number;
  idleMs: number;
  /** Self time by whose code it is. */
  byOwner: readonly Share[];
  /** The same with Node's internals and native code charged to whoever called them. */
  byCaller: readonly Share[];
  /** Self time by function. */
  top: readonly Share[];
}

export interface Share {
  name: string;
  ms: number;
}

const TOP = 25;
const NODE = 'node internals';
const NATIVE = 'native (no frame)';
const GC = 'garbage collector';

/** Looks at the samples inside the window only. */
export function summarizeProfile(profile: CpuProfile, window: Window): ProfileSummary {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])),
  );
  const callers = new Map<number, string>();
  const callerOf = (id: number): string => {
    const known = callers.get(id);
    if (known !== undefined) return known;
    const node = nodes.get(id);
    const own = node === undefined ? NODE : ownerOf(node.callFrame);
    const parent = parents.get(id);
    const caller = parent !== undefined && (own === NODE || own === NATIVE) ? callerOf(parent) : own;
    callers.set(id, caller);
    return caller;
  };
  const owners = new Sums();
  const charged = new Sums();
  const functions = new Sums();
  let busy = 0;
  let idle = 0;
  let at = profile.startTime;
  for (const [index, id] of profile.samples.entries()) {
    // A delta is the time since the sample before; the sample stands for it.
    const micros = profile.timeDeltas[index] ?? 0;
    at += micros;
    const node = nodes.get(id);
    if (at < window.from || at > window.to || node === undefined) continue;
    if (node.callFrame.functionName === '(idle)') {
      idle += micros;
      continue;
    }
    busy += micros;
    owners.add(ownerOf(node.callFrame), micros);
    charged.add(callerOf(id), micros);
    functions.add(labelOf(node.callFrame), micros);
  }
  return {
    busyMs: busy / 1_000,
    idleMs: idle / 1_000,
    byOwner: owners.sorted(),
    byCaller: charged.sorted(),
    top: functions.sorted().slice(0, TOP),
  };
}

/** Whose code a frame is: ours by room, a library, Node, the collector. */
export function ownerOf({ functionName, url }: ProfileNode['callFrame']): string {
  if (functionName === '(garbage collector)') return GC;
  const library = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (library !== undefined) return familyOf(library);
  if (url.startsWith('node:')) return NODE;
  if (url.startsWith('wasm:')) return 'prisma (wasm)';
  const room = /.*\/(?:dist|src)\/(?:([^/]+)\/)?/.exec(url);
  if (room !== null) return room[1] === 'generated' ? 'prisma' : `ours: ${room[1] ?? 'root'}`;
  return NATIVE;
}

/** Packages of one project count as one. */
function familyOf(library: string): string {
  if (/^(@prisma\/|prisma$)/.test(library)) return 'prisma';
  if (/^(@aws-sdk|@smithy|@aws-crypto|@aws)\//.test(library)) return 'aws sdk';
  if (/^(pg|pg-[a-z0-9-]+|postgres-[a-z]+)$/.test(library)) return 'pg';
  if (EXPRESS.has(library)) return 'express';
  if (/^passport/.test(library)) return 'passport';
  if (LOGGING.has(library)) return 'pino';
  return library;
}

const EXPRESS = new Set([
  'express',
  'router',
  'path-to-regexp',
  'finalhandler',
  'parseurl',
  'etag',
  'fresh',
  'send',
  'encodeurl',
  'on-finished',
  'proxy-addr',
  'ipaddr.js',
  'qs',
  'setprototypeof',
  'merge-descriptors',
]);
const LOGGING = new Set([
  'pino',
  'sonic-boom',
  'quick-format-unescaped',
  'safe-stable-stringify',
  'thread-stream',
]);

function labelOf(frame: ProfileNode['callFrame']): string {
  const { functionName, url, lineNumber } = frame;
  const name = functionName === '' ? '(anonymous)' : functionName;
  const library = url.lastIndexOf('/node_modules/');
  const place =
    library < 0 ? url.replace(/^.*\/((?:dist|src)\/)/, '$1') : url.slice(library + '/node_modules/'.length);
  return place === '' ? name : `${name} ${place}:${String(lineNumber + 1)}`;
}

class Sums {
  readonly #micros = new Map<string, number>();

  add(name: string, micros: number): void {
    this.#micros.set(name, (this.#micros.get(name) ?? 0) + micros);
  }

  sorted(): Share[] {
    return [...this.#micros]
      .map(([name, micros]) => ({ name, ms: micros / 1_000 }))
      .toSorted((a, b) => b.ms - a.ms);
  }
}
