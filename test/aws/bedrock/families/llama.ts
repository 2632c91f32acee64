import { z } from 'zod';
import { parseBody } from '../../wire/body.ts';
import { paced } from './family.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

const shape = z.looseObject({ prompt: z.string().min(1), max_gen_len: z.int().min(1).optional() });

export const llama: TextFamily = {
  caches: false,
  prompt: (body) => {
    const { prompt, max_gen_len } = parseBody(shape, body);
    return { items: [{ text: prompt }], said: prompt, maxTokens: max_gen_len };
  },
  answer: (run) => ({
    generation: run.text,
    prompt_token_count: run.usage.input,
    generation_token_count: run.usage.output,
    stop_reason: stopReason(run),
  }),
  *chunks(run) {
    for (const { text, first, last, tokensSoFar } of paced(run)) {
      yield {
        generation: text,
        prompt_token_count: first ? run.usage.input : null,
        generation_token_count: tokensSoFar,
        stop_reason: last ? stopReason(run) : null,
      };
    }
  },
};

function stopReason(run: Run): string {
  return run.stopped === 'length' ? 'length' : 'stop';
}
