import { resolveModel } from './model-id.ts';
import { cohereEmbed, titanEmbed } from './families/embeddings.ts';
import { textFamily } from './families/text-families.ts';
import { countUncached } from './prompt-cache.ts';
import { runModel } from './run.ts';
import { invocationMetrics, usageHeaders } from './usage.ts';
import { isEmbedding } from '../catalogue.ts';
import { json } from '../wire/answer.ts';
import { validationError } from '../wire/errors.ts';
import { eventFrame, padded } from '../wire/event-stream.ts';
import type { FamilyContext, TextFamily } from './families/family.ts';
import type { Run } from './run.ts';
import type { CatalogueModel } from '../catalogue.ts';
import type { Answer, StreamAnswer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

/** Makes the stream of a request whose input a guardrail blocks. */
const GUARDRAIL_DIRECTIVE = 'STAND_IN_GUARDRAIL_BLOCK';
/** Embeddings have no length that would set their latency. */
const EMBED_LATENCY_MS = 40;

interface Invocation {
  family: TextFamily;
  run: Run;
  context: FamilyContext;
}

/** InvokeModel: the family's own body, token counts in headers. */
export function invokeModel(call: Call, world: World): Answer {
  const model = resolveModel(call.resource ?? '', call.signer, world.bedrock.owned);
  if (isEmbedding(model)) return embed(call, model);
  const { family, run, context } = invoke(call, world, model);
  return json(family.answer(run, context), { headers: usageHeaders(run, family.caches), usage: run.usage });
}

/** InvokeModelWithResponseStream: the family's chunks in base64, token counts in the last chunk's metrics and in no header. */
export function invokeModelWithResponseStream(call: Call, world: World): Answer {
  const model = resolveModel(call.resource ?? '', call.signer, world.bedrock.owned);
  if (isEmbedding(model)) throw validationError('The model is unsupported for streaming.');
  if (call.request.body.includes(GUARDRAIL_DIRECTIVE)) return stream(chunkFrames([blockedByGuardrail()]));
  const invocation = invoke(call, world, model);
  return { ...stream(chunkFrames(chunks(invocation))), usage: invocation.run.usage };
}

function stream(frames: Iterable<Buffer>): StreamAnswer {
  return {
    kind: 'stream',
    status: 200,
    headers: {
      'content-type': 'application/vnd.amazon.eventstream',
      'x-amzn-bedrock-content-type': 'application/json',
    },
    frames,
  };
}

function invoke(call: Call, world: World, model: CatalogueModel): Invocation {
  const family = textFamily(model.family);
  if (!family) throw validationError('The provided model identifier is invalid.');
  const prompt = family.prompt(call.request.body);
  const { accountId } = call.signer;
  const input = family.caches
    ? world.bedrock.cache.count(`${accountId} ${model.modelId}`, prompt.items)
    : countUncached(prompt.items);
  return {
    family,
    run: runModel(prompt, accountId, input),
    context: { modelId: model.modelId, said: prompt.said },
  };
}

function embed(call: Call, model: CatalogueModel): Answer {
  const embedding = (model.family === 'titan-embed' ? titanEmbed : cohereEmbed)(
    call.request.body,
    call.signer.accountId,
  );
  return json(embedding.body, {
    headers: {
      'x-amzn-bedrock-invocation-latency': String(EMBED_LATENCY_MS),
      'x-amzn-bedrock-input-token-count': String(embedding.inputTokens),
    },
    usage: { input: embedding.inputTokens, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 },
  });
}

/** The family's chunks, with AWS's metrics added to the last. */
function* chunks({ family, run, context }: Invocation): Generator<object> {
  let held: object | undefined;
  for (const chunk of family.chunks(run, context)) {
    if (held) yield held;
    held = chunk;
  }
  yield { ...held, ...invocationMetrics(run, family.caches) };
}

function* chunkFrames(parts: Iterable<object>): Generator<Buffer> {
  let index = 0;
  for (const part of parts) {
    yield eventFrame(
      'chunk',
      padded({ bytes: Buffer.from(JSON.stringify(part)).toString('base64') }, index++),
    );
  }
}

/** One chunk and no metrics: no model ran, only guardrail units are billed. */
function blockedByGuardrail(): object {
  const usage = {
    topicPolicyUnits: 1,
    contentPolicyUnits: 1,
    wordPolicyUnits: 0,
    sensitiveInformationPolicyUnits: 0,
  };
  return {
    completion: 'Sorry, the model cannot answer this question.',
    'amazon-bedrock-trace': {
      guardrail: { input: { standingrd: { invocationMetrics: { guardrailProcessingLatency: 30, usage } } } },
    },
    'amazon-bedrock-guardrailAction': 'INTERVENED',
  };
}
