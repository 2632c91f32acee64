import { setTimeout as sleep } from 'node:timers/promises';

const DAY_MS = 86_400_000;

/** Lets midnight of UTC pass, if it is that near: for tests of what is counted by the day or the month. For a `beforeAll` with a limit of `ms` more than usual. */
export async function awayFromMidnight(ms = 120_000): Promise<void> {
  const leftMs = DAY_MS - (Date.now() % DAY_MS);
  if (leftMs < ms) await sleep(leftMs + 100);
}

/**
 * What came of work that began and ended in one minute, or one day, of UTC. Work that met the end of it is done again.
 * @param work is of the same worth whenever, and however often, it is done
 */
export async function withinOne<T>(period: 'minute' | 'day', work: () => Promise<T>): Promise<T> {
  const lengthMs = period === 'minute' ? 60_000 : DAY_MS;
  const now = () => Math.floor(Date.now() / lengthMs);
  for (let tries = 1; ; tries += 1) {
    const before = now();
    const result = await work();
    if (now() === before || tries === 3) return result;
  }
}
