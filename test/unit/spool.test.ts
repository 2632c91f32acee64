import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ServiceError } from '../../src/domain/errors.ts';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import { LocalSpoolDisk } from '../../src/ledger/spool-disk.ts';
import type { SpoolDisk, SpoolFile } from '../../src/ledger/spool-disk.ts';
import { decodeLines, encodeLine } from '../../src/ledger/spool-line.ts';
import type { SpoolEntry } from '../../src/ledger/spool-line.ts';
import { Spool } from '../../src/ledger/spool.ts';
import type { SpoolOptions } from '../../src/ledger/spool.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'spool-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const entryOf = (n: number): SpoolEntry => ({
  merchantId: 'merchant-a' as MerchantId,
  id: `call-${String(n)}` as CallId,
  outcome: {
    state: 'settled',
    usage: { tokens: { ...NO_TOKENS, input: n }, provenance: 'body' },
    upstream: { status: 200 },
  },
});
const away = () => new ServiceError('ledger.unavailable', 'away');

/** A ledger in memory: what was settled, in order, and how often each was tried. */
class Book {
  away = false;
  readonly tried: string[] = [];
  readonly settle = (entry: SpoolEntry): Promise<boolean> => {
    if (this.away) return Promise.reject(away());
    this.tried.push(entry.id);
    return Promise.resolve(true);
  };
}

interface Made {
  spool: Spool;
  problems: string[];
}

async function open(book: Book, change: Partial<SpoolOptions> = {}): Promise<Made> {
  const problems: string[] = [];
  const spool = new Spool({
    disk: new LocalSpoolDisk(directory),
    processId: randomUUID(),
    bytesMax: 1_000_000,
    settle: book.settle,
    onProblem: (what) => problems.push(what),
    onReplayed: () => undefined,
    ...change,
  });
  await spool.open();
  return { spool, problems };
}

const files = (pattern: RegExp) =>
  readdirSync(directory)
    .filter((name) => pattern.test(name))
    .sort();
const spoolFiles = () => files(/\.(open|jsonl)$/);

/** As twenty seconds without a sign of life would. */
function letDie(): void {
  const before = new Date(Date.now() - 60_000);
  for (const name of files(/\.alive$/)) utimesSync(path.join(directory, name), before, before);
}

/** A local disk of which some operations fail, or are watched. */
function diskWith(change: Partial<SpoolDisk>): SpoolDisk {
  const disk = new LocalSpoolDisk(directory);
  return {
    prepare: () => disk.prepare(),
    list: () => disk.list(),
    create: (name) => disk.create(name),
    identify: (name) => disk.identify(name),
    read: (name) => disk.read(name),
    put: (name, bytes) => disk.put(name, bytes),
    rename: (from, to) => disk.rename(from, to),
    remove: (name) => disk.remove(name),
    ...change,
  };
}

describe('a line', () => {
  test('comes back as it was written, whatever is in it', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            reason: fc.string(),
            status: fc.nat(),
            ms: fc.double({ noNaN: true, noDefaultInfinity: true, min: 0 }),
          }),
        ),
        (facts) => {
          const entries = facts.map(({ reason, status, ms }, n): SpoolEntry => ({
            ...entryOf(n),
            outcome: { state: 'unknown', reason, upstream: { status, latencyMs: ms } },
          }));
          const { entries: read, corrupt } = decodeLines(Buffer.concat(entries.map(encodeLine)));
          expect(read).toEqual(entries);
          expect(corrupt).toEqual([]);
        },
      ),
    );
  });

  test('with one byte changed is corrupt, and the others are not', () => {
    const lines = [0, 1, 2].map((n) => encodeLine(entryOf(n)));
    const length = lines[1]?.length ?? 0;
    for (let at = 0; at < length - 1; at += 1) {
      const changed = Buffer.from(lines[1] ?? '');
      changed[at] = (changed[at] ?? 0) ^ 1;
      // A bit that makes a line feed makes two bad lines of one.
      const { entries, corrupt } = decodeLines(
        Buffer.concat([lines[0] ?? '', changed, lines[2] ?? ''].map((line) => Buffer.from(line))),
      );
      expect(entries.map(({ id }) => id)).toEqual(['call-0', 'call-2']);
      expect(corrupt.length).toBeGreaterThanOrEqual(1);
    }
  });

  test('that was torn off anywhere is left out without a word', () => {
    const [first, second] = [encodeLine(entryOf(0)), encodeLine(entryOf(1))];
    for (let length = 0; length < second.length; length += 1) {
      const { entries, corrupt } = decodeLines(Buffer.concat([first, second.subarray(0, length)]));
      expect(entries).toEqual([entryOf(0)]);
      expect(corrupt).toEqual([]);
    }
  });
});

describe('what is appended', () => {
  test('is settled in order once Postgres is back, and its files are gone', async () => {
    const book = new Book();
    const { spool } = await open(book);
    book.away = true;
    for (let n = 0; n < 5; n += 1) expect(await spool.append(entryOf(n))).toBe(true);
    await expect(spool.tick()).rejects.toMatchObject({ code: 'ledger.unavailable' });
    for (let n = 5; n < 9; n += 1) expect(await spool.append(entryOf(n))).toBe(true);
    await expect(spool.tick()).rejects.toMatchObject({ code: 'ledger.unavailable' });
    expect(spoolFiles()).toHaveLength(2);
    book.away = false;
    await spool.tick();
    expect(book.tried).toEqual(Array.from({ length: 9 }, (_, n) => `call-${String(n)}`));
    expect(spoolFiles()).toEqual([]);
    await spool.tick();
    expect(book.tried).toHaveLength(9);
  });

  test('is for this user only', async () => {
    const { spool } = await open(new Book(), {
      disk: new LocalSpoolDisk(path.join(directory, 'below', 'it')),
    });
    await spool.append(entryOf(1));
    const below = path.join(directory, 'below', 'it');
    expect(statSync(below).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(below)) expect(statSync(path.join(below, name)).mode & 0o777).toBe(0o600);
    expect(readdirSync(below)).toHaveLength(2);
  });

  test('shares its fsyncs: what waits while one runs is one batch', async () => {
    let syncs = 0;
    const disk = diskWith({
      create: async (name) => {
        const file = await new LocalSpoolDisk(directory).create(name);
        return {
          identity: file.identity,
          close: () => file.close(),
          append: async (bytes) => {
            syncs += 1;
            await file.append(bytes);
          },
        };
      },
    });
    const { spool } = await open(new Book(), { disk });
    const kept = await Promise.all(Array.from({ length: 500 }, (_, n) => spool.append(entryOf(n))));
    expect(kept.every(Boolean)).toBe(true);
    expect(syncs).toBeLessThanOrEqual(3);
    expect(decodeLines(readFileSync(path.join(directory, spoolFiles()[0] ?? ''))).entries).toHaveLength(500);
  });

  test('counts as kept only when the disk has it', async () => {
    let finish: () => void = () => undefined;
    const onDisk = new Promise<void>((resolve) => (finish = resolve));
    const disk = diskWith({
      create: async (name) => {
        const file = await new LocalSpoolDisk(directory).create(name);
        return {
          identity: file.identity,
          close: () => file.close(),
          append: (bytes) => file.append(bytes).then(() => onDisk),
        };
      },
    });
    const { spool } = await open(new Book(), { disk });
    let kept = false;
    const appended = spool.append(entryOf(1)).then(() => (kept = true));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(kept).toBe(false);
    finish();
    await appended;
  });
});

describe('what a dead process left', () => {
  test('is replayed by one of the living, once; its torn last line is not', async () => {
    const book = new Book();
    book.away = true;
    const dead = await open(book);
    for (let n = 0; n < 300; n += 1) void dead.spool.append(entryOf(n));
    await dead.spool.append(entryOf(300));
    const [name = ''] = spoolFiles();
    writeFileSync(path.join(directory, name), encodeLine(entryOf(301)).subarray(0, 40), { flag: 'a' });
    letDie();
    book.away = false;
    const living = await Promise.all([open(book), open(book), open(book)]);
    await Promise.all(living.map(({ spool }) => spool.tick()));
    expect(book.tried).toEqual(Array.from({ length: 301 }, (_, n) => `call-${String(n)}`));
    expect(spoolFiles()).toEqual([]);
    expect(files(/\.alive$/)).toHaveLength(3);
    expect(living.flatMap(({ problems }) => problems)).toEqual([]);
  });

  test('is left alone while it lives, and taken at once when it left in order', async () => {
    const book = new Book();
    book.away = true;
    const other = await open(book);
    await other.spool.append(entryOf(1));
    book.away = false;
    const { spool } = await open(book);
    await spool.tick();
    expect(book.tried).toEqual([]);
    book.away = true;
    await other.spool[Symbol.asyncDispose]();
    book.away = false;
    await spool.tick();
    expect(book.tried).toEqual(['call-1']);
  });

  test('is taken over again from a process that died while it replayed', async () => {
    const book = new Book();
    book.away = true;
    const first = await open(book);
    await first.spool.append(entryOf(1));
    letDie();
    const second = await open(book);
    await expect(second.spool.tick()).rejects.toMatchObject({ code: 'ledger.unavailable' });
    expect(spoolFiles()).toHaveLength(1);
    letDie();
    book.away = false;
    const third = await open(book);
    await third.spool.tick();
    expect(book.tried).toEqual(['call-1']);
  });

  test('a process that was only taken for dead loses nothing: it writes again what went into a file that was taken', async () => {
    const book = new Book();
    book.away = true;
    let taken = false;
    const other = await open(book);
    const disk = diskWith({
      create: async (name): Promise<SpoolFile> => {
        const file = await new LocalSpoolDisk(directory).create(name);
        return {
          identity: file.identity,
          close: () => file.close(),
          append: async (bytes) => {
            if (!taken) {
              // Between two lines another process takes the file, reads it and removes it.
              taken = true;
              letDie();
              const third = await open(book);
              book.away = false;
              await third.spool.tick();
              book.away = true;
            }
            await file.append(bytes);
          },
        };
      },
    });
    const { spool } = await open(book, { disk });
    expect(await spool.append(entryOf(7))).toBe(true);
    book.away = false;
    await spool.tick();
    expect(book.tried).toEqual(['call-7']);
    await other.spool.tick();
    expect(book.tried).toEqual(['call-7']);
  });
});

describe('what cannot be used', () => {
  test('a corrupt line is told, skipped and kept aside; its neighbours are settled', async () => {
    const book = new Book();
    book.away = true;
    const { spool, problems } = await open(book);
    for (let n = 0; n < 3; n += 1) await spool.append(entryOf(n));
    const [name = ''] = spoolFiles();
    const text = readFileSync(path.join(directory, name), 'utf8');
    const bad = text.split('\n')[1]?.replace('"input":1', '"input":9') ?? '';
    writeFileSync(path.join(directory, name), text.replace('"input":1', '"input":9'));
    book.away = false;
    await spool.tick();
    expect(book.tried).toEqual(['call-0', 'call-2']);
    expect(problems).toHaveLength(1);
    const [aside = ''] = files(/\.aside$/);
    expect(readFileSync(path.join(directory, aside), 'utf8')).toBe(`${bad}\n`);
    expect(statSync(path.join(directory, aside)).mode & 0o777).toBe(0o600);
    expect(spoolFiles()).toEqual([]);
  });

  test('a line that Postgres refuses does not hold the others up', async () => {
    const tried: string[] = [];
    const { spool, problems } = await open(new Book(), {
      settle: ({ id }) => {
        tried.push(id);
        return id === 'call-1' ? Promise.reject(new TypeError('no')) : Promise.resolve(true);
      },
    });
    for (let n = 0; n < 3; n += 1) await spool.append(entryOf(n));
    await spool.tick();
    expect(tried).toEqual(['call-0', 'call-1', 'call-2']);
    expect(problems).toHaveLength(1);
    expect(files(/\.aside$/)).toHaveLength(1);
    expect(spoolFiles()).toEqual([]);
  });
});

describe('a full disk', () => {
  test('is told by append and by full, tears no line that follows, and heals', async () => {
    const book = new Book();
    let full = false;
    const enospc = () => Object.assign(new Error('no space'), { code: 'ENOSPC' });
    const real = new LocalSpoolDisk(directory);
    const disk = diskWith({
      put: (name, bytes) => (full ? Promise.reject(enospc()) : real.put(name, bytes)),
      create: async (name) => {
        const file = await real.create(name);
        return {
          identity: file.identity,
          close: () => file.close(),
          append: async (bytes) => {
            if (!full) return file.append(bytes);
            // As a disk does that fills up in the middle of a write.
            await file.append(bytes.subarray(0, 30));
            throw enospc();
          },
        };
      },
    });
    const { spool, problems } = await open(book, { disk });
    book.away = true;
    expect(await spool.append(entryOf(0))).toBe(true);
    full = true;
    expect(await spool.append(entryOf(1))).toBe(false);
    expect(spool.full).toBe(true);
    expect(problems).toHaveLength(1);
    await expect(spool.tick()).rejects.toMatchObject({ code: 'ledger.unavailable' });
    expect(spool.full).toBe(true);
    full = false;
    await expect(spool.tick()).rejects.toMatchObject({ code: 'ledger.unavailable' });
    expect(spool.full).toBe(false);
    expect(await spool.append(entryOf(2))).toBe(true);
    book.away = false;
    // The file that was left in the middle of a line was not sealed: it is taken over like any other.
    await spool.tick();
    expect(book.tried).toEqual(['call-0', 'call-2']);
    expect(spoolFiles()).toEqual([]);
    expect(problems).toHaveLength(1);
  });

  test('or a spool over its bound is full until it is replayed; what has run is still kept', async () => {
    const book = new Book();
    book.away = true;
    const { spool } = await open(book, { bytesMax: encodeLine(entryOf(1)).length * 3 });
    for (let n = 0; n < 3; n += 1) {
      expect(spool.full).toBe(false);
      await spool.append(entryOf(n));
    }
    expect(spool.full).toBe(true);
    expect(await spool.append(entryOf(3))).toBe(true);
    book.away = false;
    await spool.tick();
    expect(spool.full).toBe(false);
    expect(book.tried).toHaveLength(4);
  });

  test('a directory that takes no file keeps the spool from opening', async () => {
    const refuse = () => Promise.reject(new Error('read-only'));
    await expect(open(new Book(), { disk: diskWith({ put: refuse }) })).rejects.toThrow('read-only');
  });
});
