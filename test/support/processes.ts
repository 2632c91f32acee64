import { execFileSync } from 'node:child_process';

interface Entry {
  pid: number;
  parent: number;
  /** It has ended, and its parent has not asked yet: it holds nothing any more. */
  zombie: boolean;
}

/** Direct children of a process, by their ids. */
export function childrenOf(parent: number): number[] {
  return list()
    .filter((entry) => entry.parent === parent)
    .map(({ pid }) => pid);
}

/** Whether a process still runs; one that only waits to be collected does not. */
export function isRunning(pid: number): boolean {
  return list().some((entry) => entry.pid === pid && !entry.zombie);
}

/** SIGKILL by id. One that has ended already is no error. */
export function killNow(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

function list(): Entry[] {
  const text = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,stat='], { encoding: 'utf8' });
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [pid, parent, state = ''] = line.trim().split(/\s+/);
      return { pid: Number(pid), parent: Number(parent), zombie: state.startsWith('Z') };
    });
}
