import { ServiceError } from '../domain/errors.ts';
import { Batcher } from './batcher.ts';
import type { SpoolDisk, SpoolFile, SpoolFileFacts } from './spool-disk.ts';
import { decodeLines, encodeLine } from './spool-line.ts';
import type { SpoolEntry } from './spool-line.ts';

export interface SpoolOptions {
  disk: SpoolDisk;
  /** Names this process's files. A UUID. */
  processId: string;
  /** More than this waiting, and the spool is full. Bytes. */
  bytesMax: number;
  /** Writes a settlement to Postgres. @throws ServiceError ledger.unavailable while it is away. */
  settle: (entry: SpoolEntry) => Promise<boolean>;
  /** The disk fails, or lines were corrupt or refused and are kept aside. */
  onProblem: (what: string, facts: { file?: string; lines?: number; error?: unknown }) => void;
  /** A file of this spool, or of a dead process, is in the ledger. */
  onReplayed: (lines: number) => void;
}

/** `.open` is being written by its owner, `.jsonl` is not written any more. */
const FILE = /^([0-9a-f-]{36})\.(\d{8})\.(open|jsonl)$/;
const ALIVE = /^([0-9a-f-]{36})\.alive$/;
/** A process that has not said for so long that it lives is taken for dead: ten rounds of `tick`. Milliseconds. */
const DEAD_AFTER_MS = 20_000;
/** What a sign of life weighs, so that a full disk shows. Bytes. */
const SIGN_OF_LIFE = Buffer.alloc(4_096, ' ');
/** Lines that are settled at one time while a file is replayed. */
const REPLAY_LINES = 256;

interface OpenFile {
  name: string;
  file: SpoolFile;
  /** A batch is on its way into it. */
  busy: boolean;
}

/**
 * Where settlements wait while Postgres is away: files of one line each, which outlive the process.
 *
 * The name of a file says who holds it, and taking one over is renaming it, which one process can do. A file is read only after it was renamed
 * away from its writer, and a writer looks after each fsync whether the file still has its name; if not, it writes the lines once more, into
 * a new file. So no line is lost even when a process that was taken for dead is alive; and a line that is settled twice counts once.
 */
export class Spool implements AsyncDisposable {
  readonly #options: SpoolOptions;
  readonly #lines: Batcher<SpoolEntry, boolean>;
  #current: OpenFile | undefined;
  #lastNumber = 0;
  #waitingBytes = 0;
  #diskFails = false;
  #ticking: Promise<void> | undefined;

  constructor(options: SpoolOptions) {
    this.#options = options;
    // What waits while a batch is being synced is the next batch: one fsync for all of it.
    this.#lines = new Batcher({ sizeMax: 4_096, run: (entries) => this.#write(entries) });
  }

  /** Makes the directory and shows that it takes files. @throws what the disk throws: then the service must not start. */
  async open(): Promise<void> {
    await this.#options.disk.prepare();
    await this.#options.disk.put(this.#aliveName, SIGN_OF_LIFE);
  }

  /** No new call may begin: its settlement could find no place. */
  get full(): boolean {
    return this.#diskFails || this.#waitingBytes >= this.#options.bytesMax;
  }

  /** True when the settlement is on the disk. Never throws. Goes beyond the bound: what has run must be written. */
  append(entry: SpoolEntry): Promise<boolean> {
    return this.#lines.add(entry);
  }

  /**
   * Says that this process lives, takes over what dead processes left, and settles what waits. To be called every two seconds.
   * @throws ServiceError ledger.unavailable while Postgres is away; what the disk throws. What was not settled stays.
   */
  tick(): Promise<void> {
    this.#ticking ??= this.#tick().finally(() => (this.#ticking = undefined));
    return this.#ticking;
  }

  /** One last try; what stays is another process's to take at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ticking?.catch(() => undefined);
    await this.tick().catch(() => undefined);
    await this.#current?.file.close().catch(() => undefined);
    await this.#options.disk.remove(this.#aliveName).catch(() => undefined);
  }

  get #aliveName(): string {
    return `${this.#options.processId}.alive`;
  }

  #newName(kind: 'open' | 'jsonl'): string {
    this.#lastNumber += 1;
    return `${this.#options.processId}.${String(this.#lastNumber).padStart(8, '0')}.${kind}`;
  }

  async #write(entries: readonly SpoolEntry[]): Promise<boolean[]> {
    const bytes = Buffer.concat(entries.map(encodeLine));
    try {
      // More than one round only where another process took the file while it was written.
      while (!(await this.#writeTo((this.#current ??= await this.#newFile()), bytes)));
      this.#waitingBytes += bytes.length;
      return entries.map(() => true);
    } catch (error) {
      this.#diskFails = true;
      this.#options.onProblem('the spool cannot be written', { error });
      return entries.map(() => false);
    }
  }

  /** False when the file was taken away meanwhile. */
  async #writeTo(current: OpenFile, bytes: Buffer): Promise<boolean> {
    let kept = false;
    current.busy = true;
    try {
      await current.file.append(bytes);
      kept = (await this.#options.disk.identify(current.name)) === current.file.identity;
      return kept;
    } finally {
      current.busy = false;
      // Nothing may follow half a line, nor come into a file that is being replayed.
      if (!kept || this.#current !== current) await this.#leave(current);
    }
  }

  async #newFile(): Promise<OpenFile> {
    const name = this.#newName('open');
    return { name, file: await this.#options.disk.create(name), busy: false };
  }

  /** Nothing is written into it any more, so that it can be replayed. */
  async #leave(current: OpenFile): Promise<void> {
    if (this.#current === current) this.#current = undefined;
    try {
      await this.#options.disk.rename(current.name, this.#newName('jsonl'));
    } finally {
      if (!current.busy) await current.file.close().catch(() => undefined);
    }
  }

  async #tick(): Promise<void> {
    try {
      await this.#options.disk.put(this.#aliveName, SIGN_OF_LIFE);
      this.#diskFails = false;
    } catch (error) {
      if (!this.#diskFails) this.#options.onProblem('the spool cannot be written', { error });
      this.#diskFails = true;
    }
    await this.#takeOver();
    await this.#replay();
  }

  /** Takes the files of dead processes, by giving them names of this one. */
  async #takeOver(): Promise<void> {
    const { disk, processId } = this.#options;
    const files = await disk.list();
    const signs = new Map(files.map((file) => [ALIVE.exec(file.name)?.[1], file.modifiedAtMs]));
    const now = signs.get(processId);
    if (now === undefined) return;
    const isDead = (owner = '') =>
      owner !== processId && (signs.get(owner) ?? -Infinity) < now - DEAD_AFTER_MS;
    for (const { name } of inOrder(files)) {
      if (isDead(FILE.exec(name)?.[1])) await disk.rename(name, this.#newName('jsonl'));
    }
    for (const owner of signs.keys())
      if (owner !== undefined && isDead(owner)) await disk.remove(`${owner}.alive`);
  }

  /** First what was there before, then what came since: while Postgres is away there is one file that grows, and not one for each try. */
  async #replay(): Promise<void> {
    await this.#replaySealed();
    const sealed = this.#current;
    if (sealed === undefined) return;
    // A batch that is on its way into it finds the name gone, or was in it before.
    await this.#leave(sealed);
    await this.#replaySealed();
  }

  async #replaySealed(): Promise<void> {
    const { disk, processId } = this.#options;
    const mine = (await disk.list()).filter(({ name }) => FILE.exec(name)?.[1] === processId);
    this.#waitingBytes = mine.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { name, bytes } of inOrder(mine)) {
      if (FILE.exec(name)?.[3] === 'open') continue;
      await this.#replayFile(name);
      await disk.remove(name);
      this.#waitingBytes -= bytes;
    }
  }

  async #replayFile(name: string): Promise<void> {
    const { disk, onProblem, onReplayed } = this.#options;
    const { entries, corrupt } = decodeLines(await disk.read(name));
    const refused: SpoolEntry[] = [];
    for (let at = 0; at < entries.length; at += REPLAY_LINES)
      refused.push(...(await this.#settle(entries.slice(at, at + REPLAY_LINES))));
    const aside = [
      ...corrupt.map((line) => Buffer.concat([line, Buffer.from('\n')])),
      ...refused.map(encodeLine),
    ];
    if (aside.length > 0) {
      const file = `${name}.aside`;
      await disk.put(file, Buffer.concat(aside));
      onProblem('lines of the spool could not be settled and are kept aside', { file, lines: aside.length });
    }
    if (entries.length > refused.length) onReplayed(entries.length - refused.length);
  }

  /** Settles some lines at once. @returns those that Postgres refuses. @throws ServiceError ledger.unavailable when any found it away. */
  async #settle(entries: readonly SpoolEntry[]): Promise<SpoolEntry[]> {
    const results = await Promise.allSettled(entries.map((entry) => this.#options.settle(entry)));
    const failures = results.map((result) =>
      result.status === 'rejected' ? (result.reason as unknown) : undefined,
    );
    const away = failures.find(isAway);
    if (away !== undefined) throw away;
    return entries.filter((_, index) => failures[index] !== undefined);
  }
}

/** Postgres cannot be reached: what it was asked to do may be asked again later. */
export function isAway(error: unknown): error is ServiceError {
  return error instanceof ServiceError && error.code === 'ledger.unavailable';
}

function inOrder(files: readonly SpoolFileFacts[]): SpoolFileFacts[] {
  return files.filter(({ name }) => FILE.test(name)).sort((a, b) => (a.name < b.name ? -1 : 1));
}
