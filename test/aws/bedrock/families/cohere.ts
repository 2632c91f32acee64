import { z } from 'zod';
import { parseBody } from '../../wire/body.ts';
import type { TextFamily } from './family.ts';
import type { Run } from '../run.ts';

const commandShape = z.looseObject({ prompt: z.string().min(1), max_tokens: z.int().min(1).optional() });
const commandRShape = z.looseObject({
  message: z.string().min(1),
  chat_history: z.array(z.looseObject({ role: z.string(), message: z.string() })).optional(),
  preamble: z.string().optional(),
  max_tokens: z.int().min(1).optional(),
});

/** Command: no counts in the body, only in headers and metrics. */
export const cohereCommand: TextFamily = {
  caches: false,
  prompt: (body) => {
    const { prompt, max_tokens } = parseBody(commandShape, body);
    return { items: [{ text: prompt }], said: prompt, maxTokens: max_tokens };
  },
  answer: (run, { said }) => ({
    generations: [{ finish_reason: finishReason(run), id: run.id, text: run.text }],
    id: run.id,
    prompt: said,
  }),
  *chunks(run, { said }) {
    for (const text of run.deltas) yield { is_finished: false, text };
    yield { finish_reason: finishReason(run), id: run.id, is_finished: true, prompt: said };
  },
};

/** Command R: a chat; no counts in the body either. */
export const cohereCommandR: TextFamily = {
  caches: false,
  prompt: (body) => {
    const { message, chat_history = [], preamble = '', max_tokens } = parseBody(commandRShape, body);
    const texts = [preamble, ...chat_history.map((turn) => turn.message), message];
    return { items: texts.map((text) => ({ text })), said: message, maxTokens: max_tokens };
  },
  answer: (run, { said }) => commandRAnswer(run, said),
  *chunks(run, { said }) {
    yield { event_type: 'stream-start', generation_id: run.id, is_finished: false };
    for (const text of run.deltas) yield { event_type: 'text-generation', is_finished: false, text };
    yield {
      event_type: 'stream-end',
      finish_reason: finishReason(run),
      is_finished: true,
      response: commandRAnswer(run, said),
    };
  },
};

function commandRAnswer(run: Run, said: string): object {
  return {
    chat_history: [
      { message: said, role: 'USER' },
      { message: run.text, role: 'CHATBOT' },
    ],
    finish_reason: finishReason(run),
    generation_id: run.id,
    response_id: run.id,
    text: run.text,
  };
}

function finishReason(run: Run): string {
  return run.stopped === 'length' ? 'MAX_TOKENS' : 'COMPLETE';
}
