import { chmod, mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';

/** What the spool asks of a file system: names within one directory. Anything that fails throws; what is gone is told by the answer. */
export interface SpoolDisk {
  /** Makes the directory, for this user only. */
  prepare(): Promise<void>;
  list(): Promise<SpoolFileFacts[]>;
  /** A new file of this name, for this user only. @throws when there is one. */
  create(name: string): Promise<SpoolFile>;
  /** Which file stands under this name now; undefined when none does. */
  identify(name: string): Promise<string | undefined>;
  read(name: string): Promise<Buffer>;
  /** Writes or replaces a whole file, on disk when it returns. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** False when `from` is gone: somebody else was first. */
  rename(from: string, to: string): Promise<boolean>;
  remove(name: string): Promise<void>;
}

export interface SpoolFileFacts {
  name: string;
  bytes: number;
  /** By the clock of the file system. Milliseconds since the epoch. */
  modifiedAtMs: number;
}

/** A file that is open for writing. */
export interface SpoolFile {
  /** Tells it from a file that took its name. */
  readonly identity: string;
  /** Appends and waits until it is on the disk (fdatasync). */
  append(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** A directory of this machine. */
export class LocalSpoolDisk implements SpoolDisk {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = path.resolve(directory);
  }

  async prepare(): Promise<void> {
    const first = await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await chmod(this.#directory, 0o700);
    if (first === undefined) return;
    // A directory whose own name is not on the disk takes its files with it at a power failure.
    for (let made = this.#directory; made.length >= first.length; made = path.dirname(made))
      await syncDirectory(path.dirname(made));
  }

  async list(): Promise<SpoolFileFacts[]> {
    const facts = await Promise.all(
      (await readdir(this.#directory)).map(async (name) => {
        const found = await orGone(stat(this.#at(name)));
        return found && { name, bytes: found.size, modifiedAtMs: found.mtimeMs };
      }),
    );
    return facts.filter((file) => file !== undefined);
  }

  async create(name: string): Promise<SpoolFile> {
    const handle = await open(this.#at(name), 'ax', 0o600);
    try {
      const identity = identityOf(await handle.stat({ bigint: true }));
      // A file whose name is not on the disk is not there after a power failure.
      await syncDirectory(this.#directory);
      return {
        identity,
        append: async (bytes) => {
          await handle.appendFile(bytes);
          await handle.datasync();
        },
        close: () => handle.close(),
      };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async identify(name: string): Promise<string | undefined> {
    const found = await orGone(stat(this.#at(name), { bigint: true }));
    return found && identityOf(found);
  }

  read(name: string): Promise<Buffer> {
    return readFile(this.#at(name));
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    const handle = await open(this.#at(name), 'w', 0o600);
    try {
      await handle.writeFile(bytes);
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }

  async rename(from: string, to: string): Promise<boolean> {
    return (await orGone(rename(this.#at(from), this.#at(to)).then(() => true))) ?? false;
  }

  async remove(name: string): Promise<void> {
    await orGone(unlink(this.#at(name)));
  }

  #at(name: string): string {
    return path.join(this.#directory, name);
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function identityOf({ dev, ino }: { dev: bigint; ino: bigint }): string {
  return `${String(dev)}/${String(ino)}`;
}

/** Undefined when there is no such file (any more). */
async function orGone<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') return undefined;
    throw error;
  }
}
