import { resolveModel } from './model-id.ts';
import { textFamily } from './families/text-families.ts';
import { countUncached } from './prompt-cache.ts';
import { parseBody } from '../wire/body.ts';
import { converseShape, promptOfConverse } from './prompt.ts';
import { runModel } from './run.ts';
import { converseUsage } from './usage.ts';
import { json } from '../wire/answer.ts';
import { validationError } from '../wire/errors.ts';
import { eventFrame, padded } from '../wire/event-stream.ts';
import type { Run } from './run.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

interface Conversation {
  run: Run;
  caches: boolean;
  serviceTier: object;
}

/** Converse: no token headers, usage in the body. */
export function converse(call: Call, world: World): Answer {
  const { run, caches, serviceTier } = hold(call, world);
  const body = {
    metrics: { latencyMs: run.latencyMs },
    output: { message: { content: [{ text: run.text }], role: 'assistant' } },
    stopReason: stopReason(run),
    usage: converseUsage(run.usage, caches),
    ...serviceTier,
  };
  return json(body, { usage: run.usage });
}

/** ConverseStream: usage in the last event, `metadata`. */
export function converseStream(call: Call, world: World): Answer {
  const conversation = hold(call, world);
  return {
    kind: 'stream',
    status: 200,
    headers: { 'content-type': 'application/vnd.amazon.eventstream' },
    frames: frames(conversation),
    usage: conversation.run.usage,
  };
}

function hold(call: Call, world: World): Conversation {
  const model = resolveModel(call.resource ?? '', call.signer, world.bedrock.owned);
  const family = textFamily(model.family);
  if (!family)
    throw validationError(
      "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
    );
  const body = parseBody(converseShape, call.request.body);
  const prompt = promptOfConverse(body);
  const { accountId } = call.signer;
  const input = family.caches
    ? world.bedrock.cache.count(`${accountId} ${model.modelId}`, prompt.items)
    : countUncached(prompt.items);
  return {
    run: runModel(prompt, accountId, input),
    caches: family.caches,
    serviceTier: body.serviceTier ? { serviceTier: body.serviceTier } : {},
  };
}

function* frames({ run, caches, serviceTier }: Conversation): Generator<Buffer> {
  let index = 0;
  for (const [type, payload] of events(run)) yield eventFrame(type, padded(payload, index++));
  const metadata = {
    metrics: { latencyMs: run.latencyMs },
    usage: converseUsage(run.usage, caches),
    ...serviceTier,
  };
  yield eventFrame('metadata', padded(metadata, index));
}

function* events(run: Run): Generator<readonly [type: string, payload: object]> {
  yield ['messageStart', { role: 'assistant' }];
  for (const text of run.deltas) yield ['contentBlockDelta', { contentBlockIndex: 0, delta: { text } }];
  yield ['contentBlockStop', { contentBlockIndex: 0 }];
  yield ['messageStop', { stopReason: stopReason(run) }];
}

function stopReason(run: Run): string {
  return run.stopped === 'length' ? 'max_tokens' : 'end_turn';
}
