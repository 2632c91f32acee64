import { z } from 'zod';
import { parseBody } from '../../wire/body.ts';
import { paced } from './family.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

const shape = z.looseObject({
  inputText: z.string().min(1),
  textGenerationConfig: z.looseObject({ maxTokenCount: z.int().min(1).optional() }).optional(),
});

export const titanText: TextFamily = {
  caches: false,
  prompt: (body) => {
    const { inputText, textGenerationConfig } = parseBody(shape, body);
    return { items: [{ text: inputText }], said: inputText, maxTokens: textGenerationConfig?.maxTokenCount };
  },
  answer: (run) => ({
    inputTextTokenCount: run.usage.input,
    results: [
      { tokenCount: run.usage.output, outputText: run.text, completionReason: completionReason(run) },
    ],
  }),
  *chunks(run) {
    for (const { text, first, last } of paced(run)) {
      yield {
        outputText: text,
        index: 0,
        totalOutputTextTokenCount: last ? run.usage.output : null,
        completionReason: last ? completionReason(run) : null,
        inputTextTokenCount: first ? run.usage.input : null,
      };
    }
  },
};

function completionReason(run: Run): string {
  return run.stopped === 'length' ? 'LENGTH' : 'FINISH';
}
