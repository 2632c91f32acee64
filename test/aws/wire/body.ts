import { validationError } from './errors.ts';
import type { z } from 'zod';

/**
 * The request body as the operation expects it. Members that the stand-in does not know pass through unread, as at AWS.
 * @throws AwsError ValidationException that names the first member at fault
 */
export function parseBody<T>(schema: z.ZodType<T>, body: Buffer): T {
  return parseValue(schema, parseJson(body));
}

export function parseValue<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const place = ['#', ...(issue?.path ?? []).map(String)].join('/');
  throw validationError(
    `Malformed input request: ${place}: ${issue?.message ?? 'invalid'}, please reformat your input and try again.`,
  );
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw validationError('Malformed input request, please reformat your input and try again.');
  }
}
