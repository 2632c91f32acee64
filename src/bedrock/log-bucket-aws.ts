import { createGunzip } from 'node:zlib';
import { pipeline } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import { GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import type { S3Client } from '@aws-sdk/client-s3';
import { buildLogBucketClient } from './client-aws.ts';
import { endpointFor } from './egress.ts';
import { LogsUnreadable, RecordSieve } from './invocation-logs.ts';
import type { LogQuestion, LogReader } from './invocation-logs.ts';
import { linesOf } from './lines.ts';
import { Transport } from './transport-aws.ts';
import type { TransportOptions } from './transport-aws.ts';

export interface LogBucketOptions extends TransportOptions {
  /** Replaces the endpoint in every region. */
  endpoint?: string | undefined;
  /** What one look-up reads at most, unzipped. Bytes. */
  bytesMax: number;
}

/** Objects that one look-up reads at most. */
const OBJECTS_MAX = 2_000;
/** Records hold bodies of up to 100 KB each way. */
const LINE_BYTES_MAX = 4_000_000;
const HOUR_MS = 3_600_000;
/** Names of batches of records, in the folder of their hour. Bodies that are too large for a record are in a folder of their own. */
const BATCH = /^[A-Za-z0-9_.-]{1,200}\.json\.gz$/;

/** Reads Bedrock's invocation log in S3: batches of records, gzipped, in a folder for each hour. */
export class LogBucket implements LogReader, Disposable {
  readonly #options: LogBucketOptions;
  readonly #transport: Transport;

  constructor(options: LogBucketOptions) {
    this.#options = options;
    this.#transport = new Transport(options);
  }

  /** Cost: a listing for each hour, and all batches of those hours until every call is found. @throws LogsUnreadable */
  async find(question: LogQuestion) {
    const { credential, region } = question;
    const endpoint = endpointFor('s3', region, this.#options.endpoint);
    const client = buildLogBucketClient({ credential, region, endpoint, transport: this.#transport });
    const pass = new Pass(client, question, this.#options.bytesMax);
    try {
      await pass.run();
    } catch (error) {
      // What was found before holds.
      if (pass.sieve.found.size === 0) throw LogsUnreadable.from(error);
    } finally {
      client.destroy();
    }
    return pass.sieve.found;
  }

  [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }
}

/** One reading of the hours of some calls, each batch once. */
class Pass {
  readonly sieve: RecordSieve;
  readonly #client: S3Client;
  readonly #question: LogQuestion;
  readonly #bucket: { Bucket: string; ExpectedBucketOwner: string };
  readonly #folder: string;
  /** A batch that was written before holds none of the calls. */
  readonly #earliestMs: number;
  #bytesLeft: number;
  #objectsLeft = OBJECTS_MAX;

  constructor(client: S3Client, question: LogQuestion, bytesMax: number) {
    const { logs, accountId, region } = question;
    if (!('s3' in logs)) throw new LogsUnreadable('not a bucket');
    const prefix = logs.s3.prefix === undefined ? '' : `${logs.s3.prefix}/`;
    this.sieve = new RecordSieve(question);
    this.#client = client;
    this.#question = question;
    // S3 refuses when the bucket is another account's.
    this.#bucket = { Bucket: logs.s3.bucket, ExpectedBucketOwner: accountId };
    this.#folder = `${prefix}AWSLogs/${accountId}/BedrockModelInvocationLogs/${region}/`;
    this.#earliestMs = Math.min(...question.calls.map(({ fromMs }) => fromMs));
    this.#bytesLeft = bytesMax;
  }

  async run(): Promise<void> {
    for (const hour of hoursOf(this.#question.calls)) {
      for await (const key of this.#batchesOf(hour)) {
        if (this.sieve.complete) return;
        if (this.#objectsLeft === 0) throw new LogsUnreadable('more objects than are read at once');
        this.#objectsLeft -= 1;
        await this.#read(key);
      }
    }
  }

  async *#batchesOf(hour: string): AsyncGenerator<string> {
    const prefix = `${this.#folder}${hour}/`;
    let token: string | undefined;
    do {
      const command = new ListObjectsV2Command({ ...this.#bucket, Prefix: prefix, ContinuationToken: token });
      const page = await this.#client.send(command, { abortSignal: this.#question.signal });
      for (const { Key: key = '', LastModified: written } of page.Contents ?? []) {
        const early = written !== undefined && written.getTime() < this.#earliestMs;
        if (!early && key.startsWith(prefix) && BATCH.test(key.slice(prefix.length))) yield key;
      }
      token = page.NextContinuationToken;
    } while (token !== undefined);
  }

  async #read(key: string): Promise<void> {
    const { signal } = this.#question;
    const command = new GetObjectCommand({ ...this.#bucket, Key: key });
    const { Body: body } = await this.#client.send(command, { abortSignal: signal });
    if (body === undefined) return;
    const unzipped = createGunzip();
    const reading = pipeline(body as Readable, unzipped, { signal });
    try {
      for await (const line of linesOf(this.#counted(unzipped), LINE_BYTES_MAX)) {
        this.sieve.see(line);
        if (this.sieve.complete) return;
      }
      await reading;
    } finally {
      (body as Readable).destroy();
      unzipped.destroy();
      // An early end breaks it off; a failure was thrown by the loop.
      await reading.catch(() => undefined);
    }
  }

  /** A few bytes of gzip can be a terabyte: what one look-up reads is bounded after unzipping. */
  async *#counted(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      this.#bytesLeft -= chunk.length;
      if (this.#bytesLeft < 0) throw new LogsUnreadable('more bytes than are read at once');
      yield chunk;
    }
  }
}

/** The folders of the hours in which AWS may have written records of these calls, each once, in order: `2026/11/21/09`. */
function hoursOf(calls: LogQuestion['calls']): string[] {
  const hours = new Set<number>();
  for (const { fromMs, toMs } of calls) {
    for (let hour = Math.floor(fromMs / HOUR_MS); hour * HOUR_MS <= toMs; hour += 1) hours.add(hour);
  }
  return [...hours]
    .sort((a, b) => a - b)
    .map((hour) => new Date(hour * HOUR_MS).toISOString().slice(0, 13).replaceAll(/[-T]/g, '/'));
}
