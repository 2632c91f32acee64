import type { Mutant } from '../../scripts/mutants/mutant.ts';
import { AUDIT } from './audit.ts';
import { BEDROCK } from './bedrock.ts';
import { CALLERS } from './callers.ts';
import { CRASH } from './crash.ts';
import { CREDENTIALS } from './credentials.ts';
import { DATABASE } from './database.ts';
import { HTTP } from './http.ts';
import { RECONCILING } from './reconcile.ts';
import { LIMITS } from './limits.ts';
import { OUTAGES } from './outages.ts';
import { PRICES } from './prices.ts';
import { ROTATING } from './rotation.ts';
import { SHARPENED } from './sharpen.ts';
import { RETENTION } from './retention.ts';
import { STREAMS } from './streams.ts';
import { USAGE } from './usage.ts';
import { WEBHOOKS } from './webhooks.ts';

/** The promises of the product and how each is broken on purpose: `npm run test:mutants`. */
export const MUTANTS: readonly Mutant[] = [
  ...CREDENTIALS,
  ...CALLERS,
  ...BEDROCK,
  ...STREAMS,
  ...RECONCILING,
  ...DATABASE,
  ...CRASH,
  ...AUDIT,
  ...HTTP,
  ...LIMITS,
  ...PRICES,
  ...USAGE,
  ...OUTAGES,
  ...WEBHOOKS,
  ...SHARPENED,
  ...RETENTION,
  ...ROTATING,
];
