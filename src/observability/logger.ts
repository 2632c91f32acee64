import { pino } from 'pino';
import type { DestinationStream } from 'pino';
import { scrub } from './scrub.ts';

/** Named facts only. Units last in the names: `durationMs`, `bodyBytes`. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** One line of JSON per event. There is no way to log an object: a request, a response or an error cannot slip in. */
export interface Logger {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

/** A line waits at most this long, or until so many wait: a write for each request costs more than the rest of its logging. */
const BUFFERED = { dest: 1, sync: false, minLength: 8_192, periodicFlush: 100 };

/** @param destination standard output, buffered for a moment, unless a test says otherwise. Written out when the process ends by itself. */
export function newLogger(level: string, destination?: DestinationStream): Logger {
  const options = { level, base: null, timestamp: () => `,"time":"${new Date().toISOString()}"` };
  const log = pino(options, destination ?? pino.destination(BUFFERED));
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

/**
 * What may be said of an error: its class, its code and where it was thrown, following the causes. Its message may hold what a caller sent,
 * a query's values or a canonical request, so it stays out.
 */
export function errorFields(error: unknown): LogFields {
  const chain: string[] = [];
  let at: string | undefined;
  for (let one: unknown = error; one instanceof Error && chain.length < 5; one = one.cause) {
    const code = (one as { code?: unknown }).code;
    chain.push(typeof code === 'string' ? `${one.name}(${code})` : one.name);
    at = frames(one.stack) ?? at;
  }
  return { error: chain.length > 0 ? chain.join(' < ') : typeof error, at };
}

function frames(stack: string | undefined): string | undefined {
  const lines = stack?.split('\n').filter((line) => /^\s+at /.test(line));
  return lines === undefined || lines.length === 0
    ? undefined
    : lines
        .slice(0, 4)
        .map((line) => line.trim().replace(/file:\/\/\S*\/(?=(src|dist|node_modules)\/)/, ''))
        .join(' | ');
}

function clean(fields: LogFields): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields))
    result[name] = typeof value === 'string' ? scrub(value) : value;
  return result;
}
