import { z } from 'zod';
import { BEDROCK_REGIONS } from './region.ts';

/**
 * How a limit acts. `hard` refuses what does not fit. `soft` only tells (alerts, GET /limits). `shadow` counts what `hard` would have
 * refused, to try a limit before it is meant.
 */
export const LIMIT_MODES = ['hard', 'soft', 'shadow'] as const;

/** Limits that count. Days and months are UTC, by the database's clock; credit never resets. Money in integer nano-USD. */
export const COUNTING_LIMITS = [
  'requestsPerMinute',
  'tokensPerMinute',
  'callsInFlight',
  'requestsPerDay',
  'tokensPerDay',
  'nanoUsdPerDay',
  'requestsPerMonth',
  'tokensPerMonth',
  'nanoUsdPerMonth',
  'nanoUsdCredit',
] as const;
export type CountingLimit = (typeof COUNTING_LIMITS)[number];

const counting = z
  .strictObject({
    max: z.int('must be a whole number').min(0).max(Number.MAX_SAFE_INTEGER),
    mode: z.enum(LIMIT_MODES, `must be one of ${LIMIT_MODES.join(', ')}`).default('hard'),
  })
  .optional();

/** Limits of one API key or end user: they count what is counted for the merchant, once more for each. */
export const namedLimitsSchema = z.strictObject({
  requestsPerMinute: counting,
  tokensPerMinute: counting,
  callsInFlight: counting,
  requestsPerDay: counting,
  tokensPerDay: counting,
  nanoUsdPerDay: counting,
  requestsPerMonth: counting,
  tokensPerMonth: counting,
  nanoUsdPerMonth: counting,
  nanoUsdCredit: counting,
} satisfies Record<CountingLimit, unknown>);
export type NamedLimits = z.output<typeof namedLimitsSchema>;

/** What a plan holds, and what an override may replace, member by member. What is absent is not limited. */
export const planSpecSchema = namedLimitsSchema.extend({
  /** Model ids, `*` for any characters: `anthropic.*`. Compared with the foundation model behind a profile. */
  models: z
    .array(z.string().regex(/^[a-zA-Z0-9.:*_-]{1,256}$/, 'must be a model id, with * for any characters'))
    .max(200)
    .optional(),
  regions: z.array(z.enum(BEDROCK_REGIONS)).max(100).optional(),
  sources: z.array(z.enum(['direct', 'session', 'stored', 'service-default'])).optional(),
  /** The most output tokens of one call. */
  maxTokens: z.int().min(1).max(10_000_000).optional(),
  /** Told to calls whose body says nothing. */
  defaultMaxTokens: z.int().min(1).max(10_000_000).optional(),
  /** What becomes of a call of which only a part fits: its output is clamped, or it is refused. */
  whenOver: z.enum(['clamp', 'refuse']).optional(),
  /** A clamp below this is a refusal: an answer of three words helps nobody. */
  clampFloor: z.int().min(1).max(10_000_000).optional(),
  /** Percent of each limit on tokens and money at which an alert is raised, once a period. */
  thresholds: z.array(z.int().min(1).max(1_000)).max(10).optional(),
  /** How long the outcome of an unknown call is looked for before `whenUnknown` decides. Minutes; 1,440 where nothing is said. */
  unknownAfterMinutes: z.int().min(0).max(100_000).optional(),
  /**
   * What an unknown call then counts as: `most`, the most it can have been (where nothing is said); `seen`, what came of it, and the most where
   * nothing came; `keep`, unknown until an operator decides.
   */
  whenUnknown: z.enum(['most', 'seen', 'keep']).optional(),
});
export type PlanSpec = z.output<typeof planSpecSchema>;

/** Plan ids and versions are written `id@version`. */
export const PLAN_ID_PATTERN = /^[a-z0-9][a-z0-9-]{0,62}$/;

export interface Plan {
  id: string;
  version: number;
  spec: PlanSpec;
  createdBy: string;
  createdAt: string;
}
