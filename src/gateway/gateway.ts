import { seenInHeaders, usageOfReply } from '../bedrock/usage-of-reply.ts';
import { mayBeEndOfSession } from '../bedrock/access-denied.ts';
import { classifyReply } from '../bedrock/aws-errors.ts';
import { responseHeadersFromAws } from '../bedrock/headers.ts';
import type { BedrockRuntime } from '../bedrock/runtime-aws.ts';
import type { RuntimeReply } from '../bedrock/runtime.ts';
import { UpstreamError } from '../bedrock/upstream-error.ts';
import type { RoleSessions } from '../credentials/role-sessions.ts';
import { ServiceError } from '../domain/errors.ts';
import { STREAM_OPERATIONS } from '../domain/usage.ts';
import { MadeBefore, StaleMerchant } from '../ledger/refusals.ts';
import { rightOf } from './admission.ts';
import type { Admission, Admitted } from './admission.ts';
import type { FairQueue } from './fair-queue.ts';
import { InFlight } from './in-flight.ts';
import type { KeptAnswers } from './kept-answers.ts';
import { Lifeline } from './lifeline.ts';
import type { CallIdentity, PaidCall, PaidReply } from './paid-call.ts';
import { readWhole } from './read-whole.ts';
import { relayStream, REVOKED } from './relay-stream.ts';
import type { Sent } from './sent.ts';
import type { Watch } from './watch.ts';

export interface GatewayParts {
  admission: Admission;
  runtime: BedrockRuntime;
  roleSessions: Pick<RoleSessions, 'doubt'>;
  answers: KeptAnswers;
  queue: FairQueue;
  /** Ends streams whose right ends. A call without a stream may finish: AWS would run it to its end, and bill it, all the same. */
  watch: Pick<Watch, 'begin'>;
}

export interface GatewayOptions {
  /** How long a call is read on for its usage after the caller left. Milliseconds. */
  drainTimeoutMs: number;
  /** Longest silence between two pieces of an answer. Milliseconds. */
  idleTimeoutMs: number;
}

/** Largest answer that is not a stream: images and embeddings of a batch fit with room. Bytes. */
const ANSWER_BYTES_MAX = 64_000_000;

/**
 * The one path of every paid call: wait for its turn -> admit (resolve, bound, hold) -> send -> settle.
 * @throws ServiceError of any step; once the ledger row is open, every way out resolves it.
 */
export class Gateway {
  readonly inFlight = new InFlight();
  readonly #parts: GatewayParts;
  readonly #options: GatewayOptions;

  constructor(parts: GatewayParts, options: GatewayOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  call(paid: PaidCall): Promise<PaidReply> {
    return this.inFlight.track(this.#inTurn(paid));
  }

  /** A call keeps its place until its answer was read to the end, by whomever. */
  async #inTurn(paid: PaidCall): Promise<PaidReply> {
    const place = await this.#parts.queue.enter(paid.merchant.id, paid.callerGone);
    const answer: { streams: boolean } = { streams: false };
    try {
      return await this.#call(paid, (rest) => {
        answer.streams = true;
        void rest.finally(() => {
          place.leave();
        });
      });
    } finally {
      if (!answer.streams) place.leave();
    }
  }

  async #call(paid: PaidCall, goesOn: (rest: Promise<void>) => void): Promise<PaidReply> {
    const admitted = await this.#admit(paid);
    if ('callId' in admitted) return this.#parts.answers.replay(paid, admitted.callId);
    const sent = await this.#send(paid, admitted);
    if (sent.reply.status < 400) return this.#answer(paid, sent, goesOn);
    const refused = await this.#refused(sent);
    if (mayBeEndOfSession(refused.awsError)) this.#parts.roleSessions.doubt(admitted.resolved.credential);
    return (await this.#withOtherKey(paid, admitted, refused, goesOn)) ?? refused;
  }

  /**
   * While a credential is rotated, AWS may not know its new key everywhere yet, or not know the one before any more; and sessions of a role end
   * when it is made anew. A call that AWS refused for that did not run: its row is void, and it is made once more, with the other version of
   * the same credential or a new session of the same role, under a row of its own.
   */
  async #withOtherKey(
    paid: PaidCall,
    first: Admitted,
    { awsError }: PaidReply,
    goesOn: (rest: Promise<void>) => void,
  ): Promise<PaidReply | undefined> {
    if (awsError?.credentialBroken !== true || awsError.execution !== 'refused') return undefined;
    if (paid.callerGone.aborted) return undefined;
    let second: Admitted | undefined;
    try {
      second = await this.#parts.admission.admitOther(paid, first);
    } catch (error) {
      // The answer that is there already says what is wrong; that there is no other key to use either does not help the caller.
      if ([ServiceError, MadeBefore, StaleMerchant].some((kind) => error instanceof kind)) return undefined;
      throw error;
    }
    if (second === undefined) return undefined;
    const sent = await this.#send(paid, second);
    return sent.reply.status < 400 ? this.#answer(paid, sent, goesOn) : this.#refused(sent);
  }

  #answer(paid: PaidCall, sent: Sent, goesOn: (rest: Promise<void>) => void): Promise<PaidReply> | PaidReply {
    sent.recorder = this.#parts.answers.recorderOf(paid, headOf(sent));
    return STREAM_OPERATIONS.has(paid.operation) ? this.#stream(sent, goesOn) : this.#whole(sent);
  }

  /** The admitted call, or the earlier one that has its Idempotency-Key. */
  async #admit(paid: PaidCall): Promise<Admitted | MadeBefore> {
    try {
      return await this.#parts.admission.admit(paid);
    } catch (error) {
      if (error instanceof MadeBefore) return error;
      throw error;
    }
  }

  async #send(paid: PaidCall, admitted: Admitted): Promise<Sent> {
    const { call, resolved, images, headers, body } = admitted;
    const lifeline = new Lifeline(paid.callerGone, this.inFlight.cut, this.#options.drainTimeoutMs);
    const startedAtMs = performance.now();
    const { merchant, operation, modelId, principal } = paid;
    const { expiresAtMs } = principal;
    if (STREAM_OPERATIONS.has(operation))
      lifeline.watch((cut) => this.#parts.watch.begin({ right: rightOf(paid, resolved), expiresAtMs, cut }));
    try {
      const reply = await this.#parts.runtime.send({
        merchantId: merchant.id,
        resolved,
        operation,
        modelId,
        body,
        headers,
        signal: lifeline.signal,
      });
      const facts = {
        status: reply.status,
        timeToFirstByteMs: reply.timeToHeadersMs,
        ...awsRequestId(reply),
      };
      return { call, paid, images, identity: identityOf(admitted), reply, lifeline, facts, startedAtMs };
    } catch (error) {
      lifeline[Symbol.dispose]();
      const upstream = { latencyMs: performance.now() - startedAtMs };
      await call.resolve(
        error instanceof UpstreamError && error.executed === 'no'
          ? { state: 'void', reason: 'never reached AWS', upstream }
          : { state: 'unknown', reason: lifeline.revoked ? REVOKED : 'no answer from AWS', upstream },
      );
      throw lifeline.revoked ?? error;
    }
  }

  async #refused(sent: Sent): Promise<PaidReply> {
    const body = await this.#read(sent);
    const { status, headers } = sent.reply;
    const error = classifyReply({ status, headers, body });
    const upstream = {
      ...sent.facts,
      errorType: error.type,
      latencyMs: performance.now() - sent.startedAtMs,
    };
    await sent.call.resolve(
      error.execution === 'refused'
        ? { state: 'void', reason: 'AWS refused', upstream }
        : { state: 'unknown', reason: 'AWS failed', upstream },
    );
    return {
      identity: sent.identity,
      status,
      headers: responseHeadersFromAws(headers),
      body,
      awsError: error,
    };
  }

  async #whole(sent: Sent): Promise<PaidReply> {
    const body = await this.#read(sent);
    const reported = usageOfReply(sent.paid.operation, sent.reply.headers, body);
    const usage = {
      ...reported,
      images: sent.images,
      ...(sent.paid.callerGone.aborted && { provenance: 'drained' as const }),
    };
    sent.recorder?.add(body);
    await sent.recorder?.keep();
    await sent.call.resolve({
      state: 'settled',
      usage,
      upstream: { ...sent.facts, latencyMs: performance.now() - sent.startedAtMs },
    });
    return { ...headOf(sent), body };
  }

  /** Reads an answer to its end; a cut one is unknown in the ledger and an error to the caller. */
  async #read(sent: Sent): Promise<Buffer> {
    try {
      return await readWhole(sent.reply, {
        bytesMax: ANSWER_BYTES_MAX,
        idleTimeoutMs: this.#options.idleTimeoutMs,
      });
    } catch (error) {
      const upstream = { ...sent.facts, latencyMs: performance.now() - sent.startedAtMs };
      const seen = seenInHeaders(sent.reply.headers);
      const { revoked } = sent.lifeline;
      const reason = revoked ? REVOKED : 'answer cut off';
      await sent.call.resolve({ state: 'unknown', reason, upstream, seen });
      throw revoked ?? error;
    } finally {
      sent.lifeline[Symbol.dispose]();
      sent.reply.release();
    }
  }

  #stream(sent: Sent, goesOn: (rest: Promise<void>) => void): PaidReply {
    const body = relayStream(sent, {
      idleTimeoutMs: this.#options.idleTimeoutMs,
      track: (work) => {
        goesOn(work);
        void this.inFlight.track(work);
      },
    });
    return { ...headOf(sent), body };
  }
}

function headOf({ identity, reply }: Sent): Pick<PaidReply, 'identity' | 'status' | 'headers'> {
  return { identity, status: reply.status, headers: responseHeadersFromAws(reply.headers) };
}

function awsRequestId(reply: RuntimeReply): { awsRequestId?: string } {
  const id = reply.headers['x-amzn-requestid'];
  return id === undefined ? {} : { awsRequestId: id.slice(0, 128) };
}

function identityOf({ call, resolved }: Admitted): CallIdentity {
  const { source, region, accountId } = resolved;
  return { callId: call.id, source, region, accountId, maxTokens: call.maxTokens, limits: call.limits };
}
