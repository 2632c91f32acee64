import { FilterLogEventsCommand } from '@aws-sdk/client-cloudwatch-logs';
import type { CloudWatchLogsClient } from '@aws-sdk/client-cloudwatch-logs';
import { buildLogGroupClient } from './client-aws.ts';
import { endpointFor } from './egress.ts';
import { LogsUnreadable, METADATA_NAME, RecordSieve } from './invocation-logs.ts';
import type { LogQuestion, LogReader, WantedCall } from './invocation-logs.ts';
import { Transport } from './transport-aws.ts';
import type { TransportOptions } from './transport-aws.ts';

/** What Bedrock always calls its stream. */
const STREAM = 'aws/bedrock/modelinvocations';
/** As many ids as fit into the 1,024 characters of a filter. */
const CALLS_A_FILTER = 10;
/** CloudWatch may answer with empty pages while it searches; what is not found by then is looked for again later. */
const PAGES_MAX = 50;

/** Reads Bedrock's invocation log in CloudWatch Logs, by the call ids that the service put into it. */
export class LogGroup implements LogReader, Disposable {
  readonly #endpoint: string | undefined;
  readonly #transport: Transport;

  /** @param options.endpoint replaces the endpoint in every region. */
  constructor(options: TransportOptions & { endpoint?: string | undefined }) {
    this.#endpoint = options.endpoint;
    this.#transport = new Transport(options);
  }

  /** Cost: one request or more for ten calls. @throws LogsUnreadable */
  async find(question: LogQuestion) {
    const { credential, region, calls, logs, signal } = question;
    if (!('cloudWatch' in logs)) throw new LogsUnreadable('not a log group');
    const { logGroup } = logs.cloudWatch;
    const endpoint = endpointFor('logs', region, this.#endpoint);
    const client = buildLogGroupClient({ credential, region, endpoint, transport: this.#transport });
    const sieve = new RecordSieve(question);
    try {
      for (let at = 0; at < calls.length; at += CALLS_A_FILTER)
        await search({ client, sieve, signal, logGroup, calls: calls.slice(at, at + CALLS_A_FILTER) });
    } catch (error) {
      throw LogsUnreadable.from(error);
    } finally {
      client.destroy();
    }
    return sieve.found;
  }

  [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }
}

interface Search {
  client: CloudWatchLogsClient;
  logGroup: string;
  calls: readonly WantedCall[];
  sieve: RecordSieve;
  signal: AbortSignal;
}

async function search({ client, logGroup, calls, sieve, signal }: Search): Promise<void> {
  const question = {
    logGroupName: logGroup,
    logStreamNames: [STREAM],
    filterPattern: `{ ${calls.map(({ id }) => `($.requestMetadata.${METADATA_NAME} = "${id}")`).join(' || ')} }`,
    startTime: Math.min(...calls.map(({ fromMs }) => fromMs)),
    endTime: Math.max(...calls.map(({ toMs }) => toMs)),
  };
  let nextToken: string | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const command = new FilterLogEventsCommand({ ...question, nextToken });
    const answer = await client.send(command, { abortSignal: signal });
    for (const { message } of answer.events ?? []) if (message !== undefined) sieve.see(message);
    nextToken = answer.nextToken;
    if (nextToken === undefined) return;
  }
}
