import { usageOfReply } from '../bedrock/usage-of-reply.ts';
import { classifyReply } from '../bedrock/aws-errors.ts';
import { requestHeadersForAws, responseHeadersFromAws } from '../bedrock/headers.ts';
import { assertModelInScope, parseModelId } from '../bedrock/model-id.ts';
import type { BedrockRuntime } from '../bedrock/runtime-aws.ts';
import type { RuntimeReply } from '../bedrock/runtime.ts';
import { UpstreamError } from '../bedrock/upstream-error.ts';
import type { CredentialResolver } from '../credentials/resolve.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { STREAM_OPERATIONS } from '../domain/usage.ts';
import type { Ledger, OpenCall } from '../ledger/ledger.ts';
import { InFlight } from './in-flight.ts';
import { Lifeline } from './lifeline.ts';
import type { CallIdentity, PaidCall, PaidReply } from './paid-call.ts';
import { readWhole } from './read-whole.ts';
import { relayStream } from './relay-stream.ts';
import type { Sent } from './sent.ts';

export interface GatewayOptions {
  /** How long a call is read on for its usage after the caller left. Milliseconds. */
  drainTimeoutMs: number;
  /** Longest silence between two pieces of an answer. Milliseconds. */
  idleTimeoutMs: number;
  /** Longest call in all; the ledger's deadline is a minute later. Milliseconds. */
  totalTimeoutMs: number;
}

/** Past the longest call, so that a row that is still held then has lost its process. Seconds. */
const DEADLINE_MARGIN_SECONDS = 60;
/** Largest answer that is not a stream: images and embeddings of a batch fit with room. Bytes. */
const ANSWER_BYTES_MAX = 64_000_000;

/** What every AWS SDK sends as its invocation id. Anything else is a caller's text and is not kept. */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/**
 * The one path of every paid call: resolve -> open -> send -> settle.
 * @throws ServiceError of any step; once the ledger row is open, every way out resolves it.
 */
export class Gateway {
  readonly inFlight = new InFlight();
  readonly #resolver: CredentialResolver;
  readonly #ledger: Ledger;
  readonly #runtime: BedrockRuntime;
  readonly #options: GatewayOptions;

  constructor(
    resolver: CredentialResolver,
    ledger: Ledger,
    runtime: BedrockRuntime,
    options: GatewayOptions,
  ) {
    this.#resolver = resolver;
    this.#ledger = ledger;
    this.#runtime = runtime;
    this.#options = options;
  }

  call(paid: PaidCall): Promise<PaidReply> {
    return this.inFlight.track(this.#call(paid));
  }

  async #call(paid: PaidCall): Promise<PaidReply> {
    const model = parseModelId(paid.modelId);
    const headers = requestHeadersForAws(paid.headers, paid.operation);
    const resolved = await this.#resolver.resolve(paid);
    assertModelInScope(model, resolved);

    const call = await this.#open(paid, resolved);
    const identity = {
      callId: call.id,
      source: resolved.source,
      region: resolved.region,
      accountId: resolved.accountId,
    };
    const sent = await this.#send(paid, resolved, { call, identity, headers });
    const { status } = sent.reply;
    if (status >= 400) return this.#refused(sent);
    return STREAM_OPERATIONS.has(paid.operation) ? this.#stream(sent) : this.#whole(sent);
  }

  #open(paid: PaidCall, resolved: ResolvedCredential): Promise<OpenCall> {
    const invocation = paid.headers['amz-sdk-invocation-id'];
    return this.#ledger.open(paid.merchant.id, {
      operation: paid.operation,
      modelId: paid.modelId,
      region: resolved.region,
      source: resolved.source,
      subject: paid.principal.subject,
      requestId: paid.actor.requestId,
      deadlineSeconds: this.#options.totalTimeoutMs / 1_000 + DEADLINE_MARGIN_SECONDS,
      ...(resolved.accountId !== undefined && { accountId: resolved.accountId }),
      ...(resolved.credentialId !== undefined && { credentialId: resolved.credentialId }),
      ...(resolved.version !== undefined && { credentialVersion: resolved.version }),
      ...(paid.principal.apiKeyId !== undefined && { apiKeyId: paid.principal.apiKeyId }),
      ...(typeof invocation === 'string' && UUID.test(invocation) && { clientInvocationId: invocation }),
    });
  }

  async #send(
    paid: PaidCall,
    resolved: ResolvedCredential,
    { call, identity, headers }: { call: OpenCall; identity: CallIdentity; headers: Record<string, string> },
  ): Promise<Sent> {
    const lifeline = new Lifeline(paid.callerGone, this.inFlight.cut, this.#options.drainTimeoutMs);
    const startedAtMs = performance.now();
    try {
      const { merchant, operation, modelId, body } = paid;
      const reply = await this.#runtime.send({
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
      return { call, paid, identity, reply, lifeline, facts, startedAtMs };
    } catch (error) {
      lifeline[Symbol.dispose]();
      const upstream = { latencyMs: performance.now() - startedAtMs };
      await call.resolve(
        error instanceof UpstreamError && error.executed === 'no'
          ? { state: 'void', reason: 'never reached AWS', upstream }
          : { state: 'unknown', reason: 'no answer from AWS', upstream },
      );
      throw error;
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
    const { status, headers } = sent.reply;
    const reported = usageOfReply(sent.paid.operation, headers, body);
    const usage = sent.paid.callerGone.aborted ? { ...reported, provenance: 'drained' as const } : reported;
    await sent.call.resolve({
      state: 'settled',
      usage,
      upstream: { ...sent.facts, latencyMs: performance.now() - sent.startedAtMs },
    });
    return { identity: sent.identity, status, headers: responseHeadersFromAws(headers), body };
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
      await sent.call.resolve({ state: 'unknown', reason: 'answer cut off', upstream });
      throw error;
    } finally {
      sent.lifeline[Symbol.dispose]();
      sent.reply.release();
    }
  }

  #stream(sent: Sent): PaidReply {
    const { status, headers } = sent.reply;
    const body = relayStream(sent, {
      idleTimeoutMs: this.#options.idleTimeoutMs,
      track: (work) => this.inFlight.track(work),
    });
    return { identity: sent.identity, status, headers: responseHeadersFromAws(headers), body };
  }
}

function awsRequestId(reply: RuntimeReply): { awsRequestId?: string } {
  const id = reply.headers['x-amzn-requestid'];
  return id === undefined ? {} : { awsRequestId: id.slice(0, 128) };
}
