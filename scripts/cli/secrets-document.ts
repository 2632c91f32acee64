import { createReadStream, existsSync, fstatSync, readdirSync, readFileSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { Socket } from 'node:net';
import { isatty } from 'node:tty';
import { nameOf } from './run.ts';

/** A document of a few secrets is far below this; what is larger is the wrong file. */
const DOCUMENT_BYTES_MAX = 64 * 1024;
/** A member's name comes from outside, and somebody may have put the secret there: longer ones and those with digits are not shown. */
const SHOWABLE_NAME = /^[A-Za-z_-]{1,30}$/;

/** What a document of secrets says, and what is wrong with it. No problem repeats a value. */
export interface SecretsRead<Name extends string> {
  secrets: Partial<Record<Name, string>>;
  problems: string[];
}

/**
 * Reads a JSON document of secrets from a file descriptor; 0 is stdin.
 * Refuses a terminal, which would show what is typed.
 */
export async function readSecrets<Name extends string>(
  fd: number,
  names: readonly Name[],
): Promise<SecretsRead<Name>> {
  const where = fd === 0 ? 'stdin' : `file descriptor ${String(fd)}`;
  const refuse = (why: string) => ({ secrets: {}, problems: [`${where} ${why}`] });
  if (isatty(fd))
    return refuse(
      'is a terminal, which shows what is typed: leave out the flag, and the secrets are asked for without echo',
    );
  let bytes: Buffer | undefined;
  try {
    bytes = await readAll(fd);
  } catch (error) {
    return refuse(
      fd === 0
        ? `cannot be read (${nameOf(error)})`
        : `cannot be read: is it open, as with ${String(fd)}< secrets.json? (npm run passes on stdin only: start this with node --import tsx)`,
    );
  }
  if (bytes === undefined) return refuse('holds more than a document of secrets would');
  try {
    return parseSecrets(new TextDecoder('utf-8', { fatal: true }).decode(bytes), where, names);
  } catch {
    return refuse('does not hold UTF-8 text');
  } finally {
    bytes.fill(0);
  }
}

function parseSecrets<Name extends string>(
  text: string,
  where: string,
  names: readonly Name[],
): SecretsRead<Name> {
  const known = names.join(', ');
  if (text.trim() === '')
    return { secrets: {}, problems: [`${where} is empty: it must hold a JSON object with some of ${known}`] };
  const parsed = parseJson(text);
  if (parsed === undefined) return { secrets: {}, problems: [`${where} does not hold valid JSON`] };
  if (!isObject(parsed))
    return { secrets: {}, problems: [`${where} must hold a JSON object with some of ${known}`] };
  const secrets: Partial<Record<Name, string>> = {};
  const problems: string[] = [];
  for (const [member, value] of Object.entries(parsed)) {
    const name = names.find((one) => one === member);
    if (name === undefined)
      problems.push(
        `${where} has a member ${SHOWABLE_NAME.test(member) ? `"${member}" ` : ''}that is not one of ${known}`,
      );
    else if (typeof value !== 'string' || value === '') problems.push(`${name} must be text, and not empty`);
    else secrets[name] = value;
  }
  return { secrets, problems };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Undefined when it is none. The engine's own message quotes the text around the mistake, so it is not kept. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** @returns undefined when there is more than a document of secrets would hold. */
async function readAll(fd: number): Promise<Buffer | undefined> {
  // The other fstat, without bigint, leaves its answer where realpath of Node's module loader reads it: what is imported after it saw a socket
  // is then not found behind a symbolic link.
  const kind = fstatSync(fd, { bigint: true });
  if (kind.isFIFO() && isOurOwn(kind))
    throw Object.assign(new Error('not given to this process'), { code: 'EBADF' });
  // Pipes and sockets may be non-blocking, which a file stream does not bear.
  const stream =
    kind.isFIFO() || kind.isSocket()
      ? new Socket({ fd, readable: true, writable: false })
      : createReadStream('', { fd, autoClose: false });
  const chunks: Buffer[] = [];
  let total = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    total += chunk.length;
    if (total > DOCUMENT_BYTES_MAX) return undefined;
    chunks.push(chunk);
  }
  const all = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  return all;
}

/**
 * Node has pipes of its own, with both ends in this process. A number that nobody opened can be one of them, and reading it would wait for
 * ever. Told apart where /proc says which end a descriptor is.
 */
function isOurOwn(pipe: BigIntStats): boolean {
  return descriptors().some((fd) => {
    try {
      const { dev, ino } = fstatSync(fd, { bigint: true });
      return dev === pipe.dev && ino === pipe.ino && isWritable(fd);
    } catch {
      return false;
    }
  });
}

function descriptors(): number[] {
  return existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').map(Number) : [];
}

/** `flags` are those of open(2), in octal; the last bit is O_WRONLY. */
function isWritable(fd: number): boolean {
  return /^flags:\s*[0-7]*[1357]$/m.test(readFileSync(`/proc/self/fdinfo/${String(fd)}`, 'utf8'));
}
