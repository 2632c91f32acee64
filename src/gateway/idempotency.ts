import { createHash } from 'node:crypto';
import { ServiceError } from '../domain/errors.ts';
import type { PaidCall } from './paid-call.ts';

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/;

/** The raw Idempotency-Key of a call, if it carries one. @throws ServiceError request.invalid */
export function idempotencyKeyOf({ headers }: Pick<PaidCall, 'headers'>): string | undefined {
  const key = headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key === 'string' && IDEMPOTENCY_KEY.test(key)) return key;
  throw new ServiceError('request.invalid', 'Idempotency-Key must be 1 to 255 visible ASCII characters.');
}

/** What the ledger keeps of a key. 32 bytes. */
export function keyHashOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

/**
 * Tells whether a second call with the same key asks for the same thing: operation, model, body, and the headers that say how Bedrock runs it
 * (guardrail, tier, trace). Not the credential, nor the caller: a merchant's key is one over all of them. Hex.
 * @param headers those that go on to AWS: their names and values hold no line feed, so no two calls give the same bytes.
 */
export function bodyHashOf(
  { operation, modelId, body }: Pick<PaidCall, 'operation' | 'modelId' | 'body'>,
  headers: Readonly<Record<string, string>>,
): string {
  const settings = Object.entries(headers)
    .filter(([name]) => name.startsWith('x-amzn-bedrock-'))
    .map(([name, value]) => `${name}:${value}\n`)
    .sort();
  return createHash('sha256')
    .update(`${operation}\n${modelId}\n${settings.join('')}\n`)
    .update(body)
    .digest('hex');
}
