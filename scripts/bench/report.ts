import type { Cell } from './measure.ts';
import type { MemoryResult } from './memory.ts';
import type { NeighbourCell } from './neighbours.ts';
import type { TargetName } from './options.ts';
import type { RouteProfile } from './profile.ts';
import type { Share } from './profile-summary.ts';
import { neighbourErrors, neighboursText } from './report-neighbours.ts';
import { markdownTable, number } from './report-table.ts';
import { median, spread } from './statistics.ts';
import type { Round } from './job.ts';

export interface MachineFacts {
  date: string;
  cpu: string;
  cores: number;
  memoryGb: number;
  node: string;
  postgres: string;
  fsync: string;
  synchronousCommit: string;
  commitMs: number;
  /** Of the minute before: what else the machine was doing. */
  loadBefore: number;
  built: boolean;
  merchants: number;
  rounds: number;
  seconds: number;
}

export interface Results {
  machine: MachineFacts;
  cells: readonly Cell[];
  neighbours: readonly NeighbourCell[];
  memory: readonly MemoryResult[];
  profiles: readonly RouteProfile[];
}

const PROCESS_OF: Readonly<Record<TargetName, string>> = {
  direct: 'standIn',
  bare: 'bareProxy',
  one: 'service',
  many: 'service',
};

/** Medians of the rounds of one cell. Times in milliseconds. */
export interface CellFigures {
  perSecond: number;
  p50: number;
  p99: number;
  /** Of the process under test, per request; for `direct` that is the stand-in. */
  cpuMs: number;
  postgresCpuMs: number;
  standInCpuMs: number;
  /** Of requests per second, over the rounds. */
  spread: number;
  errors: number;
}

export function figuresOf({ target, rounds }: Pick<Cell, 'target' | 'rounds'>): CellFigures {
  const of = (value: (round: Round) => number) => median(rounds.map(value));
  const cpu = (name: string) => of(({ cpuMs, latency }) => (cpuMs[name] ?? 0) / latency.count);
  const perSecond = rounds.map(({ latency, seconds }) => latency.count / seconds);
  return {
    perSecond: median(perSecond),
    p50: of(({ latency }) => latency.p50),
    p99: of(({ latency }) => latency.p99),
    cpuMs: cpu(PROCESS_OF[target]),
    postgresCpuMs: cpu('postgres'),
    standInCpuMs: cpu('standIn'),
    spread: spread(perSecond),
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
  };
}

/** Every error of every part, as lines. */
export function errorsOf({
  cells,
  neighbours,
  memory,
}: Pick<Results, 'cells' | 'neighbours' | 'memory'>): string[] {
  const ofCells = cells.flatMap(({ route, inFlight, target, rounds }) =>
    rounds
      .filter(({ errors }) => errors > 0)
      .map(
        ({ errors, firstError }) =>
          `${route}, ${String(inFlight)} in flight, ${target}: ${String(errors)} errors, first: ${firstError ?? ''}`,
      ),
  );
  const ofMemory = memory
    .filter(({ errors }) => errors > 0)
    .map(
      ({ target, errors, firstError }) =>
        `open streams, ${target}: ${String(errors)} errors, first: ${firstError ?? ''}`,
    );
  return [...ofCells, ...neighbourErrors(neighbours), ...ofMemory];
}

export function render(results: Results): string {
  return [
    machineText(results.machine),
    ...(results.cells.length > 0 ? [loadTable(results), limitText(results.cells)] : []),
    ...(results.neighbours.length > 0 ? [neighboursText(results.neighbours)] : []),
    ...(results.memory.length > 0 ? [memoryText(results.memory)] : []),
    ...results.profiles.map(profileText),
  ].join('\n\n');
}

function machineText(machine: MachineFacts): string {
  const { date, cpu, cores, memoryGb, node, postgres, fsync, synchronousCommit } = machine;
  const rounds = `${String(machine.rounds)} alternating rounds of ${String(machine.seconds)} s`;
  return (
    `${date}, ${String(cores)} × ${cpu}, ${String(memoryGb)} GB, Node ${node}, Postgres ${postgres} (fsync ${fsync}, synchronous_commit ` +
    `${synchronousCommit}, a commit takes ${number(machine.commitMs)} ms), load average before ${number(machine.loadBefore)}, service ${machine.built ? 'built' : 'from source'}; load generator, stand-in, Postgres and the measured process share ` +
    `the machine. Medians of ${rounds}, closed loop, HTTP/1.1 keep-alive.`
  );
}

function loadTable({ cells, machine }: Results): string {
  const names: Readonly<Record<TargetName, string>> = {
    direct: 'stand-in, directly',
    bare: 'bare signing proxy',
    one: 'service, 1 merchant',
    many: `service, ${machine.merchants.toLocaleString('en')} merchants`,
  };
  const header = [
    'Route',
    'In flight',
    'Target',
    'Requests/s',
    'p50 ms',
    'p99 ms',
    'Added p50',
    'Added p99',
    'CPU ms/request',
    'Postgres CPU ms/request',
    'Spread',
  ];
  const rows = cells.map((cell) => {
    const figures = figuresOf(cell);
    const direct = cells.find(
      ({ route, inFlight, target }) =>
        route === cell.route && inFlight === cell.inFlight && target === 'direct',
    );
    const base = direct === undefined || direct === cell ? undefined : figuresOf(direct);
    const added = (name: 'p50' | 'p99') => (base === undefined ? '' : number(figures[name] - base[name]));
    return [
      `\`${cell.route}\``,
      String(cell.inFlight),
      names[cell.target] + (figures.errors === 0 ? '' : ` (${String(figures.errors)} errors)`),
      Math.round(figures.perSecond).toLocaleString('en'),
      number(figures.p50),
      number(figures.p99),
      added('p50'),
      added('p99'),
      number(figures.cpuMs),
      cell.target === 'one' || cell.target === 'many' ? number(figures.postgresCpuMs) : '',
      `${String(Math.round(figures.spread * 100))} %`,
    ];
  });
  return markdownTable(header, rows, 3);
}

/** The stand-in answers everybody: nothing can be faster than it. */
function limitText(cells: readonly Cell[]): string {
  const direct = cells.filter(({ target }) => target === 'direct');
  const parts = [...new Set(direct.map(({ route }) => route))].map((route) => {
    const figures = direct.filter((cell) => cell.route === route).map(figuresOf);
    const best = Math.max(...figures.map(({ perSecond }) => perSecond));
    const cpu = Math.min(...figures.map(({ standInCpuMs }) => standInCpuMs));
    return `\`${route}\` ${Math.round(best).toLocaleString('en')} per second (${number(cpu)} ms of CPU each)`;
  });
  if (parts.length === 0) return 'The limit of the stand-in was not measured in this run.';
  return `The stand-in is one process and answers, asked directly, at most: ${parts.join('; ')}. No target can do more.`;
}

function memoryText(memory: readonly MemoryResult[]): string {
  const rows = memory.map(({ target, streams, idleBytes, openBytes, perStreamBytes }) => [
    target === 'service' ? 'service' : 'bare signing proxy',
    streams.toLocaleString('en'),
    megabytes(idleBytes),
    megabytes(openBytes),
    `${String(Math.round(perStreamBytes / 1_024))} KB`,
  ]);
  return markdownTable(
    ['Open `converse-stream`', 'Streams', 'RSS before', 'RSS with all open', 'Per stream'],
    rows,
    1,
  );
}

function profileText({ route, requests, busyMs, idleMs, byOwner, byCaller, top }: RouteProfile): string {
  const charged = new Map(byCaller.map(({ name, ms }) => [name, ms]));
  const micros = (ms: number) => String(Math.round((ms * 1_000) / requests));
  const percent = (ms: number) => `${((ms / busyMs) * 100).toFixed(1)} %`;
  const share = ({ name, ms }: Share) => {
    const whole = charged.get(name) ?? 0;
    return [name, micros(ms), percent(ms), micros(whole), percent(whole)];
  };
  return [
    `CPU profile of \`${route}\`: ${requests.toLocaleString('en')} requests, main thread busy ${String(Math.round(busyMs))} ms ` +
      `(${micros(busyMs)} µs each), idle ${String(Math.round(idleMs))} ms. "Charged": what it called in Node's internals and native code included.`,
    markdownTable(
      ['Whose', 'Self µs/request', 'Self', 'Charged µs/request', 'Charged'],
      byOwner.map(share),
      1,
    ),
    markdownTable(
      ['Function', 'Self µs/request', 'Self'],
      top.map(({ name, ms }) => [`\`${name}\``, micros(ms), percent(ms)]),
      1,
    ),
  ].join('\n\n');
}

function megabytes(bytes: number): string {
  return `${String(Math.round(bytes / 1_048_576))} MB`;
}
