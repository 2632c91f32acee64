import type { AccessKey } from '../domain/credential.ts';
import type { CallId } from '../domain/ids.ts';
import type { InvocationLogs } from '../domain/invocation-logs.ts';
import type { TokenCounts } from '../domain/usage.ts';
import { asObject, firstCount, parseObject, splitCacheWrites, tokens } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** What to look for: calls of one merchant, account and region, and in which logs. */
export interface LogQuestion {
  logs: InvocationLogs;
  /** Who reads. */
  credential: AccessKey;
  /** 12 digits: whose logs, and whose bucket it must be. */
  accountId: string;
  region: string;
  calls: readonly WantedCall[];
  signal: AbortSignal;
}

/** Times in milliseconds since the epoch: between them AWS may have written the record. */
export interface WantedCall {
  id: CallId;
  /** Where AWS told it: a record with another one is not the call's. */
  awsRequestId: string | undefined;
  fromMs: number;
  toMs: number;
}

/** What a record says of a call: nothing else of it is kept. */
export interface LoggedCall {
  /** Undefined when the record has no counts. */
  tokens: TokenCounts | undefined;
  /** AWS's error, which means that the model did not answer. */
  failed: boolean;
}

/** Reads one kind of log. */
export interface LogReader {
  /** @throws LogsUnreadable */
  find(question: LogQuestion): Promise<Map<CallId, LoggedCall>>;
}

/** The logs could not be read. `reason` is AWS's name for it, or ours, and safe to log. */
export class LogsUnreadable extends Error {
  override readonly name = 'LogsUnreadable';
  readonly reason: string;

  constructor(reason: string) {
    super(`invocation logs could not be read: ${reason}`);
    this.reason = reason;
  }

  /** Nothing that AWS wrote is taken over but the error's name: messages can hold what was logged. */
  static from(error: unknown): LogsUnreadable {
    if (error instanceof LogsUnreadable) return error;
    const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
    const known = [code, name].find(
      (text): text is string => typeof text === 'string' && /^[A-Za-z_.]{1,100}$/.test(text),
    );
    return new LogsUnreadable(known ?? 'unknown error');
  }
}

/** Our name among the request metadata of every paid call. */
export const METADATA_NAME = 'merchantBedrockCall';

/**
 * The records of some calls, as they go by. A call that has several keeps the one that used most: which of them is the call's cannot be told.
 */
export class RecordSieve {
  readonly found = new Map<CallId, LoggedCall>();
  readonly #accountId: string;
  readonly #wanted: ReadonlyMap<string, WantedCall>;

  constructor({ accountId, calls }: Pick<LogQuestion, 'accountId' | 'calls'>) {
    this.#accountId = accountId;
    this.#wanted = new Map(calls.map((call) => [call.id, call]));
  }

  /** Whether every call was found. */
  get complete(): boolean {
    return this.found.size === this.#wanted.size;
  }

  /** @param line one record as JSON. What is none, or of another account or call, is passed over. */
  see(line: Buffer | string): void {
    // Records hold prompts and answers of up to 100 KB: only ours are parsed.
    if (!line.includes(METADATA_NAME)) return;
    const record = parseObject(line);
    const call = record && this.#callOf(record);
    if (record === undefined || call === undefined) return;
    const logged = toLoggedCall(record);
    const before = this.found.get(call.id);
    if (before === undefined || total(logged) > total(before)) this.found.set(call.id, logged);
  }

  #callOf(record: Json): WantedCall | undefined {
    const id = asObject(record['requestMetadata'])?.[METADATA_NAME];
    const call = typeof id === 'string' ? this.#wanted.get(id) : undefined;
    const { awsRequestId = record['requestId'] } = call ?? {};
    return record['accountId'] === this.#accountId && record['requestId'] === awsRequestId ? call : undefined;
  }
}

function toLoggedCall(record: Json): LoggedCall {
  const errorCode = record['errorCode'];
  return {
    tokens: countsOf(asObject(record['input']) ?? {}, asObject(record['output']) ?? {}),
    failed: typeof errorCode === 'string' && errorCode !== '',
  };
}

function countsOf(input: Json, output: Json): TokenCounts | undefined {
  const inputTokens = firstCount(input, 'inputTokenCount');
  const outputTokens = firstCount(output, 'outputTokenCount');
  if (inputTokens === undefined && outputTokens === undefined) return undefined;
  return tokens({
    input: inputTokens,
    output: outputTokens,
    cacheRead: firstCount(input, 'cacheReadInputTokenCount'),
    // The log does not say for how long they live.
    ...splitCacheWrites(firstCount(input, 'cacheWriteInputTokenCount'), undefined),
  });
}

function total({ tokens: counts }: LoggedCall): number {
  if (counts === undefined) return -1;
  return counts.input + counts.output + counts.cacheRead + counts.cacheWrite5m + counts.cacheWrite1h;
}
