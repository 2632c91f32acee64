import { parseBody } from '../../wire/body.ts';
import { converseShape, promptOfConverse } from '../prompt.ts';
import { totalTokens } from '../usage.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

/** Nova: a body like Converse's, usage with `*Count` names for the cache. */
export const nova: TextFamily = {
  caches: true,
  prompt: (body) => promptOfConverse(parseBody(converseShape, body)),
  answer: (run) => ({
    output: { message: { content: [{ text: run.text }], role: 'assistant' } },
    stopReason: stopReason(run),
    usage: { ...cacheCounts(run), totalTokens: totalTokens(run.usage) },
  }),
  *chunks(run) {
    yield { messageStart: { role: 'assistant' } };
    for (const text of run.deltas) yield { contentBlockDelta: { delta: { text }, contentBlockIndex: 0 } };
    yield { contentBlockStop: { contentBlockIndex: 0 } };
    yield { messageStop: { stopReason: stopReason(run) } };
    yield { metadata: { usage: cacheCounts(run), metrics: {}, trace: {} } };
  },
};

function stopReason(run: Run): string {
  return run.stopped === 'length' ? 'max_tokens' : 'end_turn';
}

function cacheCounts({ usage }: Run): object {
  return {
    inputTokens: usage.input,
    outputTokens: usage.output,
    cacheReadInputTokenCount: usage.cacheRead,
    cacheWriteInputTokenCount: usage.cacheWrite5m + usage.cacheWrite1h,
  };
}
