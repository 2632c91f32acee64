import type { IncomingHttpHeaders } from 'node:http';
import { explainedBody } from '../../../bedrock/aws-errors.ts';
import type { Frame } from '../../../bedrock/event-stream.ts';
import { sseOfFrame } from '../../../bedrock/sse.ts';
import { nothingDone } from '../../../domain/errors.ts';
import type { Operation } from '../../../domain/usage.ts';
import type { CallIdentity, PaidCall, PaidReply } from '../../../gateway/paid-call.ts';
import type { MerchantContext } from '../../context.ts';
import { rateLimitHeaders } from '../../rate-limit.ts';
import { merchantEndpoint } from '../../route.ts';
import { writeStream } from '../../stream-reply.ts';

type CallerPart = Pick<
  PaidCall,
  'actor' | 'principal' | 'merchant' | 'choice' | 'requestedRegion' | 'callerGone'
>;

/** One operation of Bedrock runtime in AWS's own wire protocol: bytes in, bytes out. */
export function wire(operation: Operation) {
  return merchantEndpoint<Buffer>({
    summary: `Bedrock runtime ${operation}, in AWS's wire protocol`,
    body: 'bytes',
    paid: true,
    reply: { status: 200, description: "AWS's answer, byte for byte" },
    handle: async (context) => {
      const { req, res, params } = context;
      const modelId = params['modelId'] ?? '';
      const answer = await pay(context, {
        operation,
        modelId,
        body: context.body,
        headers: req.headers,
      });
      const reply = explained(answer, operation, modelId);
      noteCall(context, reply, modelId);
      res.status(reply.status);
      // Not Express's set(): it would add a charset to AWS's content type.
      const headers = { ...reply.headers, ...identityHeaders(reply.identity) };
      for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
      if (reply.awsError?.credentialBroken === true)
        res.set('x-bedrock-error-code', 'credential.refused_by_aws');
      await writeBody(context, reply, wantsSse(req.headers));
      return undefined;
    },
  });
}

/** AWS's refusal as AWS wrote it, with what to do about a denial. */
function explained(reply: PaidReply, operation: Operation, modelId: string): PaidReply {
  if (reply.awsError === undefined || !Buffer.isBuffer(reply.body)) return reply;
  const body = explainedBody(reply.body, reply.awsError, { ...reply.identity, operation, modelId });
  return { ...reply, body };
}

/**
 * Makes a paid call.
 * @throws ServiceError as the gateway. Behind the admission of a call nothing of it asks the database, so one that is away let nothing be sent.
 */
export function pay(
  context: MerchantContext<unknown>,
  call: Omit<PaidCall, keyof CallerPart>,
): Promise<PaidReply> {
  return context.services.gateway.call({ ...callerOf(context), ...call }).catch((error: unknown) => {
    throw nothingDone(error, 'No call was made and nothing was sent to AWS');
  });
}

/** Who calls, and with which keys: what every paid call takes over from its request. */
export function callerOf(context: MerchantContext<unknown>): CallerPart {
  const { actor, principal, merchant, choice, requestedRegion, callerGone } = context;
  return {
    actor,
    principal,
    merchant,
    choice,
    callerGone,
    ...(requestedRegion !== undefined && { requestedRegion }),
  };
}

/** Says whose keys were used, what the output was held to, and what is left of the merchant's limits: on every answer of a paid call. */
export function identityHeaders(identity: CallIdentity): Record<string, string> {
  const { maxTokens, limits } = identity;
  return {
    'x-bedrock-call-id': identity.callId,
    'x-bedrock-credential-source': identity.source,
    'x-bedrock-credential-region': identity.region,
    ...(identity.accountId !== undefined && { 'x-bedrock-credential-account': identity.accountId }),
    ...(identity.replayed === true && { 'x-bedrock-idempotent-replay': 'true' }),
    ...(maxTokens !== undefined && { 'x-bedrock-max-tokens': String(maxTokens) }),
    ...rateLimitHeaders(limits),
  };
}

export function noteCall({ event }: Pick<MerchantContext, 'event'>, reply: PaidReply, modelId: string): void {
  event['callId'] = reply.identity.callId;
  event['source'] = reply.identity.source;
  event['region'] = reply.identity.region;
  event['modelId'] = modelId.slice(0, 256);
  if (reply.identity.replayed === true) event['replayed'] = true;
  if (reply.awsError !== undefined) event['awsError'] = reply.awsError.type;
}

export function wantsSse(headers: IncomingHttpHeaders): boolean {
  return headers.accept?.toLowerCase().includes('text/event-stream') === true;
}

async function writeBody(
  { res, services }: MerchantContext<Buffer>,
  reply: PaidReply,
  sse: boolean,
): Promise<void> {
  if (Buffer.isBuffer(reply.body)) {
    res.setHeader('content-length', reply.body.length);
    res.end(reply.body);
    return;
  }
  if (sse) res.setHeader('content-type', 'text/event-stream; charset=utf-8');
  await writeStream(res, piecesOf(reply.body, sse), services.limits.stallTimeoutMs);
}

async function* piecesOf(frames: AsyncIterable<Frame>, sse: boolean): AsyncGenerator<Uint8Array | string> {
  for await (const frame of frames) yield sse ? sseOfFrame(frame) : frame.bytes;
}
