import { readFileSync, readdirSync } from 'node:fs';

/** Of `/proc/<pid>/stat`, in clock ticks where it is time. */
export interface ProcStat {
  pid: number;
  /** Up to 15 characters; may hold blanks and brackets. */
  name: string;
  parent: number;
  /** Itself: user and system time. */
  ticks: number;
  /** Of its children that have ended and been waited for. */
  childrenTicks: number;
}

/** USER_HZ, which Linux shows to programs as 100 on every architecture that Node runs on. */
const MS_PER_TICK = 10;

/** @throws Error for text that is no such line */
export function parseStat(text: string): ProcStat {
  const open = text.indexOf('(');
  // The name is the only field that may hold blanks and brackets: it ends at the last bracket.
  const close = text.lastIndexOf(')');
  const fields = text.slice(close + 2).split(' ');
  // Field 3 of proc(5), the state, is the first here.
  const at = (field: number): number => Number(fields[field - 3]);
  const stat = {
    pid: Number.parseInt(text, 10),
    name: text.slice(open + 1, close),
    parent: at(4),
    ticks: at(14) + at(15),
    childrenTicks: at(16) + at(17),
  };
  if (open < 0 || close < open || Object.values(stat).some((value) => Number.isNaN(value)))
    throw new Error('not a line of /proc/<pid>/stat');
  return stat;
}

/** Kilobytes of a line of `/proc/<pid>/status`, e.g. `VmRSS`. @throws Error where there is none */
export function parseStatusKb(text: string, name: string): number {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text);
  if (found?.[1] === undefined) throw new Error(`no ${name} in /proc/<pid>/status`);
  return Number(found[1]);
}

export function statOf(pid: number): ProcStat {
  return parseStat(readFileSync(`/proc/${String(pid)}/stat`, 'latin1'));
}

/** CPU time of one process so far, all its threads. */
export function cpuMs(pid: number): number {
  return statOf(pid).ticks * MS_PER_TICK;
}

/** CPU time so far of a process, its children of now, and those that ended. Grandchildren of now are not counted. */
export function familyCpuMs(pid: number): number {
  const { ticks, childrenTicks } = statOf(pid);
  const living = childrenOf(pid).reduce((sum, child) => sum + child.ticks + child.childrenTicks, 0);
  return (ticks + childrenTicks + living) * MS_PER_TICK;
}

export function rssBytes(pid: number): number {
  return parseStatusKb(readFileSync(`/proc/${String(pid)}/status`, 'latin1'), 'VmRSS') * 1_024;
}

function childrenOf(parent: number): ProcStat[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [statOf(Number(name))];
      } catch {
        // Ended meanwhile.
        return [];
      }
    })
    .filter((stat) => stat.parent === parent);
}
