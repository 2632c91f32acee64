import type { TokenCounts } from '../../src/domain/usage.ts';
import type { JournalEntry } from '../aws/journal.ts';

/** What the stand-in can swear of one request that reached Bedrock runtime. */
export interface Witness {
  /** Our id, as the request carried it; undefined is a fault of the service. */
  callId: string | undefined;
  /** Which call of the load it was, from the prompt. */
  tag: string | undefined;
  accountId: string | undefined;
  operation: string;
  verified: boolean;
  /** The model ran, and AWS bills `tokens`. */
  executed: boolean;
  tokens: TokenCounts | undefined;
}

/** AWS's names of operations in the words of the ledger. */
const LEDGER_NAMES: Readonly<Record<string, string>> = {
  InvokeModel: 'invoke',
  InvokeModelWithResponseStream: 'invoke-with-response-stream',
  Converse: 'converse',
  ConverseStream: 'converse-stream',
};

/** Whether AWS may bill it. CountTokens, asked near a limit, runs nothing and has no row. */
export function isPaid({ path, operation }: Pick<JournalEntry, 'path' | 'operation'>): boolean {
  return path.startsWith('/model/') && operation !== 'CountTokens';
}

/** @returns the witnesses, and how many requests broke off on their way: AWS has no whole request then, and runs nothing. */
export function witnessesOf(journal: readonly JournalEntry[]): { witnesses: Witness[]; brokenOff: number } {
  const requests = journal.filter(isPaid);
  const whole = requests.filter((entry) => entry.executed || !isBrokenOff(entry));
  return { witnesses: whole.map(toWitness), brokenOff: requests.length - whole.length };
}

/** Only by its own word of its length: what gives none counts as whole, and so needs a row. */
function isBrokenOff({ headers, bodyBytes }: JournalEntry): boolean {
  return Number(headers['content-length'] ?? 0) > bodyBytes;
}

function toWitness(entry: JournalEntry): Witness {
  const { executed, usage, verified, accountId } = entry;
  const body = Buffer.from(entry.bodyBase64, 'base64').toString('utf8');
  return {
    callId: callIdOf(entry, body),
    tag: /\bcall-\d+-\d+\b/.exec(body)?.[0],
    accountId,
    operation: LEDGER_NAMES[entry.operation] ?? entry.operation,
    verified,
    executed,
    tokens: usage && { ...usage },
  };
}

/** Where a reconciler would look: a member of the body for Converse, else a header. Not both, and not another. */
function callIdOf({ operation, headers }: JournalEntry, body: string): string | undefined {
  const metadata = headers['x-amzn-bedrock-request-metadata'];
  try {
    const found = operation.startsWith('Converse')
      ? (JSON.parse(body) as { requestMetadata?: Record<string, string> }).requestMetadata
      : (JSON.parse(metadata ?? '{}') as Record<string, string>);
    return found?.['merchantBedrockCall'];
  } catch {
    return undefined;
  }
}
