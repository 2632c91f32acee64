import { createHash } from 'node:crypto';
import { z } from 'zod';
import { parseBody } from '../../wire/body.ts';
import { countTokens } from '../prompt.ts';

export interface Embedding {
  body: object;
  inputTokens: number;
}

const titanShape = z.looseObject({
  inputText: z.string().min(1),
  dimensions: z.union([z.literal(256), z.literal(512), z.literal(1024)]).optional(),
});
const cohereShape = z.looseObject({ texts: z.array(z.string()).min(1).max(96), input_type: z.string() });
/** Both models' usual length. */
const DIMENSIONS = 1024;

/** Titan Text Embeddings V2: the count is in the body and in the input header. */
export function titanEmbed(body: Buffer, accountId: string): Embedding {
  const { inputText, dimensions = DIMENSIONS } = parseBody(titanShape, body);
  const embedding = vector(accountId, inputText, dimensions);
  const inputTokens = countTokens(inputText);
  return {
    body: { embedding, embeddingsByType: { float: embedding }, inputTextTokenCount: inputTokens },
    inputTokens,
  };
}

/** Cohere Embed v3: the count is only in the input header. */
export function cohereEmbed(body: Buffer, accountId: string): Embedding {
  const { texts } = parseBody(cohereShape, body);
  return {
    body: {
      id: createHash('sha256').update(texts.join('\n')).digest('hex').slice(0, 24),
      texts: texts.map((text) => text.toLowerCase()),
      embeddings: texts.map((text) => vector(accountId, text, DIMENSIONS)),
      response_type: 'embeddings_floats',
    },
    inputTokens: texts.reduce((sum, text) => sum + countTokens(text), 0),
  };
}

/** Numbers between -1 and 1 that depend on account and text alone. */
function vector(accountId: string, text: string, dimensions: number): number[] {
  const seed = createHash('sha512').update(`${accountId}\n${text}`).digest();
  return Array.from(
    { length: dimensions },
    (_, i) => Math.round(Math.sin(seed.readUInt32BE((i * 4) % 60) + i) * 1e6) / 1e6,
  );
}
