import type { Request } from 'express';
import type { z } from 'zod';
import { ServiceError } from '../../domain/errors.ts';
import { parseJsonObject } from '../json.ts';
import type { BodyMemory } from '../body-budget.ts';
import type { HttpLimits } from '../services.ts';
import { readBody } from './read-body.ts';

/** Names of members come from the caller: only what is shorter than any secret and looks like a name is repeated. */
const NAME = /^[A-Za-z_][A-Za-z0-9_-]{0,31}$/;

/** Reads a JSON body. The bytes are given back as soon as they are parsed. */
export async function readJsonBody(
  req: Request,
  { budget, limits }: { budget: BodyMemory; limits: HttpLimits },
): Promise<Record<string, unknown>> {
  refuseOtherTypes(req.headers['content-type']);
  using lease = await readBody(req, {
    bytesMax: limits.jsonBodyBytesMax,
    budget,
    timeoutMs: limits.bodyTimeoutMs,
  });
  if (lease.bytes.length === 0)
    throw new ServiceError('request.malformed_json', 'The body is empty. Send a JSON object.');
  return parseJsonObject(lease.bytes);
}

/**
 * Checks what came against a schema.
 * @throws ServiceError request.invalid that lists every problem with the name of its member; values are never repeated.
 */
export function validate<T>(schema: z.ZodType<T>, value: unknown, where: 'body' | 'query'): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => {
    const path = issue.path.map((part) => nameOf(part)).join('.');
    if (issue.code === 'unrecognized_keys') {
      return `unknown: ${issue.keys.map((key) => nameOf(key)).join(', ')}`;
    }
    return path === '' ? issue.message : `${path}: ${issue.message}`;
  });
  throw new ServiceError(
    'request.invalid',
    `The ${where} is not as this route expects it: ${problems.slice(0, 5).join('; ')}.`,
    { problems },
  );
}

/** The query as names and values; a name that is there twice is refused rather than guessed at. */
export function readQuery(req: Request): Record<string, string> {
  const at = req.url.indexOf('?');
  const query: Record<string, string> = {};
  if (at === -1) return query;
  for (const [name, value] of new URLSearchParams(req.url.slice(at + 1))) {
    if (Object.hasOwn(query, name))
      throw new ServiceError('request.invalid', `The query names ${nameOf(name)} twice.`);
    Object.defineProperty(query, name, { value, enumerable: true });
  }
  return query;
}

function nameOf(part: PropertyKey): string {
  return typeof part === 'number' || NAME.test(String(part)) ? String(part) : '(a name that is not repeated)';
}

function refuseOtherTypes(contentType: string | undefined): void {
  if (contentType === undefined || /^application\/([a-z0-9.+-]+\+)?json\s*(;|$)/i.test(contentType)) return;
  throw new ServiceError(
    'request.unsupported_media_type',
    'This route takes JSON. Send Content-Type: application/json.',
  );
}
