import { EventEmitter } from 'node:events';
import { pino } from 'pino';
import type { DestinationStream } from 'pino';
import { LOG_FIELDS } from './fields.ts';
import type { LogField } from './fields.ts';
import { scrub, scrubLine } from './scrub.ts';
import { sqlStateOf } from './sql-state.ts';

type Fact = string | number | boolean | null | undefined;
/** Named facts only, and only under names of the list. Units last in the names: `durationMs`. */
export type LogFields = Readonly<Partial<Record<LogField, Fact>>>;

/** One line of JSON per event. There is no way to log an object: a request, a response or an error cannot slip in. */
export interface Logger {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

/**
 * A line waits at most this long, or until so many wait: a write for each request costs more than the rest of its logging. Where nobody reads
 * standard output, lines beyond `maxLength` are lost, and not the process. Bytes; milliseconds.
 */
const BUFFERED = {
  dest: 1,
  sync: false,
  minLength: 8_192,
  maxLength: 16 * 1_024 * 1_024,
  periodicFlush: 100,
};

const KNOWN: ReadonlySet<string> = new Set(LOG_FIELDS);

/** @param destination standard output, buffered for a moment, unless a test says otherwise. Written out when the process ends by itself. */
export function newLogger(level: string, destination?: DestinationStream): Logger {
  const options = { level, base: null, timestamp: () => `,"time":"${new Date().toISOString()}"` };
  const out = destination ?? pino.destination(BUFFERED);
  // The whole line, as it goes out: whatever wrote it, nothing is behind this but the file descriptor.
  const scanned = {
    write: (line: string) => {
      out.write(scrubLine(line));
    },
  };
  const log = pino(options, scanned);
  countLost(out, (lines) => {
    log.warn(clean({ lines }), 'log lines lost: standard output was not read');
  });
  return {
    info: (event, fields = {}) => {
      log.info(clean(fields), event);
    },
    warn: (event, fields = {}) => {
      log.warn(clean(fields), event);
    },
    error: (event, fields = {}) => {
      log.error(clean(fields), event);
    },
  };
}

/** Tells how many lines did not fit, as soon as the others are written. */
function countLost(out: DestinationStream, tell: (lines: number) => void): void {
  if (!(out instanceof EventEmitter)) return;
  let lost = 0;
  out.on('drop', () => {
    lost += 1;
  });
  out.on('drain', () => {
    const lines = lost;
    lost = 0;
    if (lines > 0) tell(lines);
  });
}

/**
 * What may be said of an error: its class, its code (of the database also Postgres's own) and where it was thrown, following the causes. Its
 * message may hold what a caller sent, a query's values or a canonical request, so it stays out.
 */
export function errorFields(error: unknown): LogFields {
  const chain: string[] = [];
  let at: string | undefined;
  for (let one: unknown = error; one instanceof Error && chain.length < 5; one = one.cause) {
    const codes = [(one as { code?: unknown }).code, sqlStateOf(one)].filter(
      (code) => typeof code === 'string',
    );
    chain.push(codes.length > 0 ? `${one.name}(${codes.join(' ')})` : one.name);
    at = frames(one) ?? at;
  }
  return { error: chain.length > 0 ? chain.join(' < ') : typeof error, at };
}

/** The message stands at the head of the stack, and lines of it may look like frames. */
function frames({ message, stack }: Error): string | undefined {
  const lines = stack
    ?.slice(stack.includes(message) ? stack.indexOf(message) + message.length : 0)
    .split('\n')
    .filter((line) => /^\s+at /.test(line));
  return lines === undefined || lines.length === 0
    ? undefined
    : lines
        .slice(0, 4)
        .map((line) => line.trim().replace(/file:\/\/\S*\/(?=(src|dist|node_modules)\/)/, ''))
        .join(' | ');
}

function clean(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    // A type is no guard against what was cast: facts only, under names of the list.
    if (!KNOWN.has(name) || (typeof value === 'object' && value !== null)) continue;
    result[name] = typeof value === 'string' ? scrub(value) : value;
  }
  return result;
}
