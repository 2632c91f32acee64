import type { Journal, JournalEntry } from '../journal.ts';

/** Model invocation logging as an account has turned it on in a region: to a log group, to a bucket, or to both. */
export interface InvocationLogging {
  accountId: string;
  region: string;
  logGroup?: string;
  bucket?: string;
  /** Of the keys in the bucket, without the slash at its end. */
  prefix?: string;
}

/** Who logs where. The records themselves are made from the journal, when somebody asks. */
export class LogBook {
  readonly #journal: Journal;
  #settings: InvocationLogging[] = [];

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  set(logging: InvocationLogging): void {
    this.#settings = [...this.#settings.filter((other) => !sameHome(other, logging)), logging];
  }

  clear(): void {
    this.#settings = [];
  }

  /** Of the account in the region that has this log group, if it has. */
  logGroup(home: { accountId: string; region: string }, name: string): InvocationLogging | undefined {
    return this.#settings.find((one) => sameHome(one, home) && one.logGroup === name);
  }

  bucket(name: string): InvocationLogging | undefined {
    return this.#settings.find((one) => one.bucket === name);
  }

  /** Records of one account and region, oldest first. Calls that are under way have none yet. */
  records({ accountId, region }: InvocationLogging): { at: string; requestId: string; json: string }[] {
    return this.#journal.entries
      .filter(
        (entry) =>
          entry.service === 'bedrock-runtime' &&
          entry.verified &&
          entry.operation !== 'CountTokens' &&
          entry.outcome !== 'open' &&
          entry.accountId === accountId &&
          entry.region === region,
      )
      .map((entry) => ({ at: entry.at, requestId: entry.requestId, json: JSON.stringify(recordOf(entry)) }));
  }
}

function sameHome(a: { accountId: string; region: string }, b: { accountId: string; region: string }) {
  return a.accountId === b.accountId && a.region === b.region;
}

/** A record in the shape of AWS's schema 1.0. */
function recordOf(entry: JournalEntry): object {
  const { usage } = entry;
  return {
    schemaType: 'ModelInvocationLog',
    schemaVersion: '1.0',
    timestamp: entry.at.replace(/\.\d+Z$/, 'Z'),
    accountId: entry.accountId,
    identity: { arn: `arn:aws:iam::${entry.accountId ?? ''}:user/stand-in` },
    region: entry.region,
    requestId: entry.requestId,
    operation: entry.operation,
    modelId: entry.modelId,
    ...(entry.errorType !== undefined && usage === undefined && { errorCode: entry.errorType }),
    input: {
      inputContentType: 'application/json',
      inputBodyJson: Buffer.from(entry.bodyBase64, 'base64').toString('utf8'),
      ...(usage && {
        inputTokenCount: usage.input,
        ...(usage.cacheRead > 0 && { cacheReadInputTokenCount: usage.cacheRead }),
        ...(usage.cacheWrite5m + usage.cacheWrite1h > 0 && {
          cacheWriteInputTokenCount: usage.cacheWrite5m + usage.cacheWrite1h,
        }),
      }),
    },
    ...(usage && { output: { outputContentType: 'application/json', outputTokenCount: usage.output } }),
    ...(entry.requestMetadata && { requestMetadata: entry.requestMetadata }),
  };
}
