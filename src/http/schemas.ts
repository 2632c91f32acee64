import { z } from 'zod';
import { BEDROCK_REGIONS } from '../domain/region.ts';

/** Shapes that several routes share. */
export const name = z.string().trim().min(1).max(200);
export const region = z.enum(
  BEDROCK_REGIONS,
  'must be a region where Bedrock has an endpoint, such as us-east-1',
);
/** Goes into the audit trail: words, and nothing that could be a key or token. */
export const reason = z
  .string()
  .trim()
  .regex(
    /^(?!.*[A-Za-z0-9+/=_-]{33})[\x20-\x7e]{1,200}$/,
    'must be 1 to 200 characters of plain text, with no long runs of letters and digits',
  );
export const limit = z
  .string()
  .regex(/^[1-9]\d{0,2}$/, 'must be a whole number from 1 to 200')
  .transform(Number)
  .refine((value) => value <= 200, 'must be at most 200')
  .default(50);

export const tokenSums = z.object({
  input: z.int(),
  output: z.int(),
  cacheRead: z.int(),
  cacheWrite5m: z.int(),
  cacheWrite1h: z.int(),
});
export const usageSums = {
  calls: z.object({
    settled: z.int(),
    void: z.int(),
    unknown: z.int(),
    estimated: z.int(),
    unpriced: z.int(),
    throttled: z.int(),
    failed: z.int(),
  }),
  tokens: tokenSums.extend({ total: z.int() }),
  images: z.int(),
  costNanoUsd: z.int(),
  correctionNanoUsd: z.int(),
  totalNanoUsd: z.int(),
  latencyMs: z.object({ mean: z.number(), p50: z.number(), p90: z.number(), p99: z.number() }).nullable(),
};

export function page<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), nextCursor: z.string().optional() });
}
