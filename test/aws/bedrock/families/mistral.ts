import { z } from 'zod';
import { parseBody } from '../../wire/body.ts';
import { paced } from './family.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

const shape = z.looseObject({ prompt: z.string().min(1), max_tokens: z.int().min(1).optional() });

/** Mistral 7B and Large: no counts in the body, only in headers and metrics. */
export const mistral: TextFamily = {
  caches: false,
  prompt: (body) => {
    const { prompt, max_tokens } = parseBody(shape, body);
    return { items: [{ text: prompt }], said: prompt, maxTokens: max_tokens };
  },
  answer: (run) => ({ outputs: [{ text: run.text, stop_reason: stopReason(run) }] }),
  *chunks(run) {
    for (const { text, last } of paced(run))
      yield { outputs: [{ text, stop_reason: last ? stopReason(run) : null }] };
  },
};

function stopReason(run: Run): string {
  return run.stopped === 'length' ? 'length' : 'stop';
}
