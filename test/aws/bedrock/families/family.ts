import type { Prompt } from '../prompt.ts';
import type { Run } from '../run.ts';

/** How one family of text models words its requests and answers in InvokeModel. */
export interface TextFamily {
  /** Whether the family reports prompt caching, in headers and metrics. */
  caches: boolean;
  /** @throws AwsError ValidationException */
  prompt(body: Buffer): Prompt;
  answer(run: Run, context: FamilyContext): object;
  /** The stream's chunks; AWS's invocation metrics are added to the last by invoke.ts. */
  chunks(run: Run, context: FamilyContext): Iterable<object>;
}

export interface FamilyContext {
  modelId: string;
  /** What was said, for families that give the prompt back. */
  said: string;
}

/** Each delta with its place: whether it is the first or the last, and how many tokens have gone out by its end. */
export function* paced(
  run: Run,
): Generator<{ text: string; first: boolean; last: boolean; tokensSoFar: number }> {
  let tokensSoFar = 0;
  for (const [index, text] of run.deltas.entries()) {
    tokensSoFar += text.trim().split(' ').length;
    yield { text, first: index === 0, last: index === run.deltas.length - 1, tokensSoFar };
  }
}
