import { classifyReply } from '../bedrock/aws-errors.ts';
import { failureOf, unanswered } from '../bedrock/probes.ts';
import type { Probed } from '../bedrock/probes.ts';
import type { RuntimeCall, RuntimeReply } from '../bedrock/runtime.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { PaidCall, PaidReply } from './paid-call.ts';
import type { PermissionAsk } from './permission-ask.ts';
import { readWhole } from './read-whole.ts';
import { unlessAborted } from './unless-aborted.ts';

export interface RuntimeProbeParts {
  /** For what is never billed. */
  runtime: { send(call: RuntimeCall): Promise<RuntimeReply> };
  /** For what is: with hold, settlement and audit. */
  gateway: { call(paid: PaidCall): Promise<PaidReply> };
}

/** What the paid call came to. */
export interface PaidProbe {
  probed: Probed<unknown>;
  /** The ledger's row, where there is one. */
  callId?: string;
}

interface Question {
  merchantId: MerchantId;
  resolved: ResolvedCredential;
  modelId: string;
  signal: AbortSignal;
}

const ANSWER_BYTES_MAX = 64_000;
const IDLE_TIMEOUT_MS = 5_000;
const JSON_HEADERS = { 'content-type': 'application/json', accept: 'application/json' };
const MESSAGES = [{ role: 'user', content: [{ text: 'Hi' }] }];
const COUNT_BODY = Buffer.from(JSON.stringify({ input: { converse: { messages: MESSAGES } } }));
const PAID_BODY = Buffer.from(JSON.stringify({ messages: MESSAGES, inferenceConfig: { maxTokens: 1 } }));
/** The beginning of a JSON document and no more: there is no model that could run it. */
const INVALID_BODY = Buffer.from('{');

/** Probes at the model itself. */
export class RuntimeProbes {
  readonly #parts: RuntimeProbeParts;

  constructor(parts: RuntimeProbeParts) {
    this.#parts = parts;
  }

  /** Free of charge. Proves bedrock:CountTokens and nothing else. */
  countTokens(question: Question): Promise<Probed<Buffer>> {
    const call = { ...question, operation: 'count-tokens', body: COUNT_BODY } as const;
    return this.#send(call, 'bedrock:CountTokens');
  }

  /** Free of charge, as nothing can run. Looks to some monitors like somebody trying out stolen keys. */
  invalidBody(question: Question): Promise<Probed<Buffer>> {
    const call = { ...question, operation: 'invoke', body: INVALID_BODY } as const;
    return this.#send(call, 'bedrock:InvokeModel');
  }

  /** Costs one token of output and a few of input; the ledger has a row of it. Gives up waiting when the time of the test is up. */
  async paid(
    ask: PermissionAsk,
    { modelId, region, signal }: { modelId: string; region: string; signal: AbortSignal },
  ): Promise<PaidProbe> {
    const { actor, principal, merchant, choice, callerGone } = ask;
    const caller = { actor, principal, merchant, choice, callerGone, requestedRegion: region };
    const call = this.#parts.gateway
      .call({ ...caller, operation: 'converse', modelId, body: PAID_BODY, headers: {} })
      .then(paidProbe, refusedProbe);
    return unlessAborted(signal, call, { probed: unanswered(NO_ANSWER_YET) });
  }

  async #send(call: Omit<RuntimeCall, 'headers'>, action: string): Promise<Probed<Buffer>> {
    try {
      const reply = await this.#parts.runtime.send({ ...call, headers: JSON_HEADERS });
      try {
        const limits = { bytesMax: ANSWER_BYTES_MAX, idleTimeoutMs: IDLE_TIMEOUT_MS };
        const body = await readWhole(reply, limits);
        if (reply.status < 400) return { answer: body };
        const { status, headers } = reply;
        return { failure: failureOf(classifyReply({ status, headers, body }), action) };
      } finally {
        reply.release();
      }
    } catch (error) {
      if (error instanceof ServiceError) return unanswered(error.detail);
      throw error;
    }
  }
}

const NO_ANSWER_YET =
  'The call of one token had no answer yet when the time of the test was up. GET /usage/records tells what became of it.';

function paidProbe({ awsError, body, identity: { callId } }: PaidReply): PaidProbe {
  return awsError === undefined
    ? { probed: { answer: body }, callId }
    : { probed: { failure: failureOf(awsError, 'bedrock:InvokeModel') }, callId };
}

/** The call was not made, or nobody knows what became of it: limits, a lost answer. */
function refusedProbe(error: unknown): PaidProbe {
  if (!(error instanceof ServiceError)) throw error;
  return {
    probed: unanswered(`The call of one token was not answered (${error.code}). ${error.detail}`),
  };
}
