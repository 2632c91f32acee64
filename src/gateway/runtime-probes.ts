import { classifyReply } from '../bedrock/aws-errors.ts';
import type { PolicyStatement } from '../bedrock/policy-document.ts';
import { failureOf, unanswered } from '../bedrock/probes.ts';
import type { Probed } from '../bedrock/probes.ts';
import type { RuntimeCall, RuntimeReply } from '../bedrock/runtime.ts';
import { findingOfCall } from '../bedrock/verdicts.ts';
import type { Finding } from '../bedrock/verdicts.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { PaidCall, PaidReply } from './paid-call.ts';
import type { PermissionAsk } from './permission-ask.ts';
import { readWhole } from './read-whole.ts';

export interface RuntimeProbeParts {
  /** For what is never billed. */
  runtime: { send(call: RuntimeCall): Promise<RuntimeReply> };
  /** For what is: with hold, settlement and audit. */
  gateway: { call(paid: PaidCall): Promise<PaidReply> };
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
  async invalidBody(question: Question, statements: PolicyStatement[] | undefined): Promise<Finding> {
    const call = { ...question, operation: 'invoke', body: INVALID_BODY } as const;
    const probed = await this.#send(call, 'bedrock:InvokeModel');
    if ('failure' in probed) return findingOfCall('invalid-body', probed.failure, statements);
    const why = 'AWS answered a body that is no request as if it were one.';
    return { verdict: 'allowed', probe: 'invalid-body', certainty: 'proven', why };
  }

  /** Costs one token of output and a few of input; the ledger has a row of it. Gives up waiting when the time of the test is up. */
  async paid(
    ask: PermissionAsk,
    modelId: string,
    {
      region,
      statements,
      signal,
    }: { region: string; statements: PolicyStatement[] | undefined; signal: AbortSignal },
  ): Promise<Finding> {
    const { actor, principal, merchant, choice, callerGone } = ask;
    const caller = { actor, principal, merchant, choice, callerGone, requestedRegion: region };
    const call = this.#parts.gateway
      .call({ ...caller, operation: 'converse', modelId, body: PAID_BODY, headers: {} })
      .then((reply) => findingOfPaid(reply, statements), findingOfRefusal);
    return Promise.race([call, outOfTime(signal)]);
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

function findingOfPaid(
  { awsError, identity: { callId } }: PaidReply,
  statements: PolicyStatement[] | undefined,
): Finding {
  if (awsError !== undefined)
    return { ...findingOfCall('paid', failureOf(awsError, 'bedrock:InvokeModel'), statements), callId };
  const why =
    'AWS answered a call of one token. That proves bedrock:InvokeModel; streams need bedrock:InvokeModelWithResponseStream as well.';
  return { verdict: 'allowed', probe: 'paid', certainty: 'proven', why, callId };
}

/** The call was not made, or nobody knows what became of it: limits, a lost answer. */
function findingOfRefusal(error: unknown): Finding {
  if (!(error instanceof ServiceError)) throw error;
  const why = `The call of one token was not answered (${error.code}). ${error.detail}`;
  return { verdict: 'unknown', probe: 'paid', certainty: 'none', why };
}

function outOfTime(signal: AbortSignal): Promise<Finding> {
  const why =
    'The call of one token had no answer yet when the time of the test was up. GET /usage/records tells what became of it.';
  const finding: Finding = { verdict: 'unknown', probe: 'paid', certainty: 'none', why };
  return new Promise((resolve) => {
    if (signal.aborted) resolve(finding);
    signal.addEventListener(
      'abort',
      () => {
        resolve(finding);
      },
      { once: true },
    );
  });
}
