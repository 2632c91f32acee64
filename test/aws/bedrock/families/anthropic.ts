import { parseBody } from '../../wire/body.ts';
import { anthropicShape, promptOfAnthropic } from '../prompt.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

/** Anthropic Messages: `input_tokens` excludes the cache; `message_delta` counts output cumulatively. */
export const anthropic: TextFamily = {
  caches: true,
  prompt: (body) => promptOfAnthropic(parseBody(anthropicShape, body)),
  answer: (run, { modelId }) => ({
    ...message(run, modelId),
    content: [{ type: 'text', text: run.text }],
    stop_reason: stopReason(run),
    usage: { ...inputUsage(run), output_tokens: run.usage.output },
  }),
  *chunks(run, { modelId }) {
    yield {
      type: 'message_start',
      message: {
        ...message(run, modelId),
        content: [],
        stop_reason: null,
        usage: { ...inputUsage(run), output_tokens: 1 },
      },
    };
    yield { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } };
    for (const text of run.deltas)
      yield { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } };
    yield { type: 'content_block_stop', index: 0 };
    yield {
      type: 'message_delta',
      delta: { stop_reason: stopReason(run), stop_sequence: null },
      usage: { output_tokens: run.usage.output },
    };
    yield { type: 'message_stop' };
  },
};

function message(run: Run, model: string): object {
  return { model, id: `msg_bdrk_${run.id}`, type: 'message', role: 'assistant', stop_sequence: null };
}

function stopReason(run: Run): string {
  return run.stopped === 'length' ? 'max_tokens' : 'end_turn';
}

function inputUsage({ usage }: Run): object {
  return {
    input_tokens: usage.input,
    cache_creation_input_tokens: usage.cacheWrite5m + usage.cacheWrite1h,
    cache_read_input_tokens: usage.cacheRead,
    cache_creation: {
      ephemeral_5m_input_tokens: usage.cacheWrite5m,
      ephemeral_1h_input_tokens: usage.cacheWrite1h,
    },
  };
}
