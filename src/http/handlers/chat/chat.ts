import { z } from 'zod';
import { serviceErrorOf } from '../../../bedrock/aws-errors.ts';
import { chatEventOfFrame, chatReplyOf, converseBodyOf } from '../../../bedrock/chat.ts';
import type { Frame } from '../../../bedrock/event-stream.ts';
import { ServiceError } from '../../../domain/errors.ts';
import type { PaidReply } from '../../../gateway/paid-call.ts';
import type { MerchantContext } from '../../context.ts';
import { merchantEndpoint } from '../../route.ts';
import { writeStream } from '../../stream-reply.ts';
import { identityHeaders, noteCall, pay, wantsSse } from '../model/wire.ts';

const body = z
  .strictObject({
    modelId: z.string().min(1).max(2_048).optional(),
    prompt: z.string().min(1).optional(),
    messages: z
      .array(z.strictObject({ role: z.enum(['user', 'assistant']), content: z.string().min(1) }))
      .min(1)
      .max(1_000)
      .optional(),
    system: z.string().min(1).optional(),
    temperature: z.number().min(0).max(1).optional(),
    topP: z.number().min(0).max(1).optional(),
    maxTokens: z.int().min(1).max(1_000_000).optional(),
    stopSequences: z.array(z.string().min(1)).max(2_500).optional(),
    stream: z.boolean().optional(),
  })
  .refine(
    (value) => (value.prompt === undefined) !== (value.messages === undefined),
    'needs exactly one of prompt and messages',
  );
type ChatBody = z.output<typeof body>;

const usage = z.object({
  inputTokens: z.int(),
  outputTokens: z.int(),
  cacheReadTokens: z.int(),
  cacheWriteTokens: z.int(),
  totalTokens: z.int(),
});

export const chat = merchantEndpoint<ChatBody>({
  summary:
    'Prompt or messages in, text and usage out; stream: true or Accept: text/event-stream gives server-sent events',
  body,
  namesCredential: true,
  paid: true,
  reply: {
    status: 200,
    description: 'The whole answer, or the events delta, stop, usage, and error if it breaks off',
    schema: z.object({
      text: z.string(),
      stopReason: z.string().nullable(),
      usage: usage.nullable(),
      modelId: z.string(),
      callId: z.uuid(),
      credentialSource: z.string(),
      region: z.string(),
      accountId: z.string().nullable(),
    }),
  },
  handle: async (context) => {
    const { req, res } = context;
    const asked = await withSessionDefaults(context);
    const stream = asked.stream ?? wantsSse(req.headers);
    const reply = await callConverse(context, asked, stream);
    noteCall(context, reply, asked.modelId);
    res.set(identityHeaders(reply.identity));
    if (reply.awsError !== undefined)
      throw serviceErrorOf(reply.awsError, {
        ...reply.identity,
        operation: stream ? 'converse-stream' : 'converse',
        modelId: asked.modelId,
      });
    if (!Buffer.isBuffer(reply.body)) {
      res.status(200).set('content-type', 'text/event-stream; charset=utf-8');
      await writeStream(res, eventsOf(reply.body), context.services.limits.stallTimeoutMs);
      return undefined;
    }
    const { callId, source: credentialSource, region, accountId = null } = reply.identity;
    const { modelId } = asked;
    const body = { ...chatReplyOf(reply.body), modelId, callId, credentialSource, region, accountId };
    return { status: 200, body };
  },
});

/** What the request leaves out comes from its session, if it has one. */
async function withSessionDefaults(
  context: MerchantContext<ChatBody>,
): Promise<ChatBody & { modelId: string }> {
  const { services, principal, choice, body: asked } = context;
  const defaults =
    choice.kind === 'session' ? (await services.sessions.open(choice.session, principal)).defaults : {};
  const modelId = asked.modelId ?? defaults.modelId;
  if (modelId === undefined) {
    throw new ServiceError(
      'request.invalid',
      'modelId is missing. Name a model here, or in the POST /initialize that made the session.',
    );
  }
  const { temperature = defaults.temperature, maxTokens = defaults.maxTokens } = asked;
  return { ...asked, modelId, temperature, maxTokens };
}

function callConverse(
  context: MerchantContext<ChatBody>,
  { modelId, stream: _stream, ...asked }: ChatBody & { modelId: string },
  stream: boolean,
): Promise<PaidReply> {
  return pay(context, {
    operation: stream ? 'converse-stream' : 'converse',
    modelId,
    body: Buffer.from(JSON.stringify(converseBodyOf(asked))),
    // The caller's Accept and Content-Type are about our route, not about Bedrock's; the other headers have no meaning here.
    headers: pick(context.req.headers, ['amz-sdk-invocation-id', 'idempotency-key', 'x-bedrock-end-user']),
  });
}

async function* eventsOf(frames: AsyncIterable<Frame>): AsyncGenerator<string> {
  for await (const frame of frames) {
    const event = chatEventOfFrame(frame);
    if (event !== undefined) yield `event: ${event.event}\ndata: ${JSON.stringify(event.data)}\n\n`;
  }
}

function pick<T>(from: Readonly<Record<string, T>>, names: readonly string[]): Record<string, T | undefined> {
  return Object.fromEntries(names.map((name) => [name, from[name]]));
}
