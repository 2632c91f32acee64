import { z } from 'zod';
import { parseBody, parseValue } from '../wire/body.ts';
import { textFamily } from './families/text-families.ts';
import { countUncached } from './prompt-cache.ts';
import { converseShape, promptOfConverse } from './prompt.ts';
import { catalogueModel } from '../catalogue.ts';
import { json } from '../wire/answer.ts';
import { validationError } from '../wire/errors.ts';
import type { Prompt } from './prompt.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call } from '../call.ts';

const shape = z.looseObject({
  input: z.looseObject({
    converse: z.looseObject({}).optional(),
    invokeModel: z.looseObject({ body: z.base64() }).optional(),
  }),
});

/** CountTokens: free, and only for Anthropic foundation model ids: AWS refuses inference profiles and Nova. */
export function countTokensOperation(call: Call): Answer {
  const model = catalogueModel(call.resource ?? '');
  if (model?.family !== 'anthropic')
    throw validationError("The provided model doesn't support counting tokens.");
  const { input } = parseBody(shape, call.request.body);
  const family = textFamily(model.family);
  let prompt: Prompt | undefined;
  if (input.converse) prompt = promptOfConverse(parseValue(converseShape, input.converse));
  if (input.invokeModel) prompt = family?.prompt(Buffer.from(input.invokeModel.body, 'base64'));
  if (!prompt) throw validationError('Either converse or invokeModel must be given as input.');
  return json({ inputTokens: countUncached(prompt.items).input });
}
