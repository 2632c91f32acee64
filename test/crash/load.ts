import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultAction } from '../aws/faults.ts';
import type { StandIn } from '../aws/stand-in.ts';
import type { Operation } from '../../src/domain/usage.ts';
import type { Chance } from './chance.ts';
import type { Household, Resident } from './household.ts';
import { MODEL } from './house.ts';

const OPERATIONS = ['invoke', 'converse', 'converse-stream', 'invoke-with-response-stream'] as const;
type CalledOperation = Extract<Operation, (typeof OPERATIONS)[number]>;

/** As AWS names them. */
const AWS_NAMES: Record<CalledOperation, string> = {
  invoke: 'InvokeModel',
  converse: 'Converse',
  'converse-stream': 'ConverseStream',
  'invoke-with-response-stream': 'InvokeModelWithResponseStream',
};
/** No call outlives its round, whatever happens. */
const CALL_MS_MAX = 12_000;

/** One call that a caller makes. */
interface Intent {
  /** Stands in the prompt, so that the stand-in's journal tells which call reached it. */
  tag: string;
  by: Resident;
  operation: CalledOperation;
  words: number;
  maxTokens: number | undefined;
  /** Milliseconds after the beginning of the load. */
  startsAtMs: number;
  /** Milliseconds after which the caller leaves. */
  leavesAfterMs: number | undefined;
  endUser: string | undefined;
  idempotencyKey: string | undefined;
}

/** What a caller saw. */
export interface Seen {
  tag: string;
  /** `cut`: no answer, or not all of it. */
  status: number | 'cut' | 'left';
  /** Once a caller has been told it, its row must be there. */
  callId: string | undefined;
  /** AWS's name of an error, whoever made it. */
  errorType: string | undefined;
  /** The answer says that the output was held to less than was asked. */
  clamped: boolean;
}

export interface LoadPlan {
  round: number;
  calls: number;
  /** Over how long they begin. Milliseconds. */
  spreadMs: number;
  /** How much of them is the tight merchant's. */
  tightShare: number;
  /** What the stand-in does on the way to every answer. */
  pace: FaultAction;
}

/** The calls of a round, decided before it begins. */
export function planCalls(plan: LoadPlan, household: Household, chance: Chance): Intent[] {
  return Array.from({ length: plan.calls }, (_, index) => {
    const tag = `call-${String(plan.round)}-${String(index)}`;
    return {
      tag,
      by: chance.happens(plan.tightShare) ? household.tight : household.open,
      operation: OPERATIONS[index % OPERATIONS.length] ?? 'invoke',
      words: chance.between(1, 60),
      maxTokens: chance.one([undefined, 10, 200]),
      startsAtMs: chance.between(0, plan.spreadMs),
      leavesAfterMs: chance.happens(0.15) ? chance.between(1, 120) : undefined,
      endUser: chance.happens(0.3) ? `user-${String(chance.between(1, 3))}` : undefined,
      idempotencyKey: chance.happens(0.12) ? `key-${tag}` : undefined,
    };
  });
}

/**
 * What can go wrong at AWS, by what it means for the ledger. A `status` alone: the model did not run. `executed`: it ran, and was billed,
 * although the answer says nothing of it.
 */
const FAULTS: readonly FaultAction[] = [
  { status: 429, type: 'ThrottlingException' },
  { status: 503, type: 'ServiceUnavailableException' },
  { status: 500, type: 'InternalServerException' },
  { status: 500, type: 'InternalServerException', executed: true },
  { status: 424, type: 'ModelErrorException', executed: true },
  { reset: true },
  { reset: true, executed: true },
];
const UNARY_FAULTS: readonly FaultAction[] = [...FAULTS, { cutBody: true }, { beforeHeadersHangMs: 60 }];
const STREAM_FAULTS: readonly FaultAction[] = [
  ...FAULTS,
  { cutAtEvent: 2, midFrame: true },
  { cutAtEvent: 0 },
  { exceptionAtEvent: 3 },
  { endCleanlyAtEvent: 2 },
  { stallAtEvent: 2, stallMs: 60 },
];

/**
 * Scripts the stand-in for a round: every operation meets faults among its ordinary answers, in an order of chance.
 * @returns ends the faults that were not met.
 */
export function scriptFaults(
  standIn: StandIn,
  { calls, pace }: Pick<LoadPlan, 'calls' | 'pace'>,
  chance: Chance,
): () => void {
  const handles: { remove: () => void }[] = [];
  for (const operation of OPERATIONS) {
    const faults = operation === 'invoke' || operation === 'converse' ? UNARY_FAULTS : STREAM_FAULTS;
    const fates = Array.from({ length: calls }, () =>
      chance.happens(0.3) ? { ...pace, ...chance.one(faults as [FaultAction]) } : pace,
    );
    for (const fate of fates) handles.push(standIn.fault({ ...fate, operation: AWS_NAMES[operation] }));
  }
  return () => {
    for (const handle of handles) handle.remove();
  };
}

/** Makes the calls, each at its time. Ends when the last one has, at most some seconds after the service died. */
export function makeCalls(url: string, intents: readonly Intent[], stopped: AbortSignal): Promise<Seen[]> {
  return Promise.all(
    intents.map(async (intent) => {
      await sleep(intent.startsAtMs, undefined, { signal: stopped }).catch(() => undefined);
      return makeCall(url, intent, stopped);
    }),
  );
}

async function makeCall(url: string, intent: Intent, stopped: AbortSignal): Promise<Seen> {
  const leave = new AbortController();
  const timer =
    intent.leavesAfterMs === undefined
      ? undefined
      : setTimeout(() => {
          leave.abort();
        }, intent.leavesAfterMs);
  const seen: Seen = {
    tag: intent.tag,
    status: 'cut',
    callId: undefined,
    errorType: undefined,
    clamped: false,
  };
  try {
    const answer = await fetch(
      `${url}/api/merchants/${intent.by.id}/bedrock/model/${encodeURIComponent(MODEL)}/${intent.operation}`,
      {
        method: 'POST',
        headers: headersOf(intent),
        body: JSON.stringify(bodyOf(intent)),
        signal: AbortSignal.any([leave.signal, stopped, AbortSignal.timeout(CALL_MS_MAX)]),
      },
    );
    seen.callId = answer.headers.get('x-bedrock-call-id') ?? undefined;
    seen.clamped = answer.headers.has('x-bedrock-max-tokens');
    seen.errorType = answer.headers.get('x-amzn-errortype') ?? undefined;
    await answer.arrayBuffer();
    seen.status = answer.status;
  } catch {
    seen.status = leave.signal.aborted ? 'left' : 'cut';
  } finally {
    clearTimeout(timer);
  }
  return seen;
}

/**
 * What a careful caller does with calls that were cut: the same call again, with the same Idempotency-Key. At AWS each must have run once
 * at most.
 */
export function repeatCut(
  url: string,
  intents: readonly Intent[],
  seen: readonly Seen[],
  stopped: AbortSignal,
): Promise<Seen[]> {
  const cut = new Set(seen.filter(({ status }) => status === 'cut').map(({ tag }) => tag));
  const again = intents.filter(({ tag, idempotencyKey }) => cut.has(tag) && idempotencyKey !== undefined);
  return makeCalls(
    url,
    again.map((intent) => ({ ...intent, startsAtMs: 0, leavesAfterMs: undefined })),
    stopped,
  );
}

function headersOf({ by, endUser, idempotencyKey }: Intent): Record<string, string> {
  return {
    authorization: `Bearer ${by.token}`,
    'content-type': 'application/json',
    ...(endUser !== undefined && { 'x-bedrock-end-user': endUser }),
    ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
  };
}

function bodyOf({ operation, tag, words, maxTokens }: Intent): object {
  const text = `${tag} STAND_IN_WORDS=${String(words)}`;
  if (operation.startsWith('converse'))
    return {
      messages: [{ role: 'user', content: [{ text }] }],
      ...(maxTokens !== undefined && { inferenceConfig: { maxTokens } }),
    };
  return {
    anthropic_version: 'bedrock-2023-05-31',
    max_tokens: maxTokens ?? 100,
    messages: [{ role: 'user', content: text }],
  };
}
