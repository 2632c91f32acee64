import type { Mutant } from '../../scripts/mutants/mutant.ts';
import { AUDIT } from './audit.ts';
import { BEDROCK } from './bedrock.ts';
import { CALLERS } from './callers.ts';
import { CANARY } from './canary.ts';
import { CHECKPOINTING } from './checkpoints.ts';
import { CRASH } from './crash.ts';
import { CREDENTIALS } from './credentials.ts';
import { DATABASE } from './database.ts';
import { ENDINGS } from './endings.ts';
import { FAULTS } from './faults.ts';
import { HARDENING } from './hardening.ts';
import { HTTP } from './http.ts';
import { KEYS } from './keys.ts';
import { RECONCILING } from './reconcile.ts';
import { LIMITS } from './limits.ts';
import { OUTAGES } from './outages.ts';
import { PERMISSIONS } from './permissions.ts';
import { PRICES } from './prices.ts';
import { REVOCATION } from './revocation.ts';
import { ROTATING } from './rotation.ts';
import { SHARPENED } from './sharpen.ts';
import { RETENTION } from './retention.ts';
import { ROLES } from './roles.ts';
import { STREAMS } from './streams.ts';
import { UNASKED } from './unasked.ts';
import { USAGE } from './usage.ts';
import { WEBHOOKS } from './webhooks.ts';

/** The promises of the product and how each is broken on purpose: `npm run test:mutants`. */
export const MUTANTS: readonly Mutant[] = [
  ...CREDENTIALS,
  ...CANARY,
  ...CALLERS,
  ...BEDROCK,
  ...STREAMS,
  ...RECONCILING,
  ...DATABASE,
  ...CRASH,
  ...AUDIT,
  ...HTTP,
  ...LIMITS,
  ...PERMISSIONS,
  ...PRICES,
  ...USAGE,
  ...OUTAGES,
  ...WEBHOOKS,
  ...SHARPENED,
  ...RETENTION,
  ...FAULTS,
  ...HARDENING,
  ...REVOCATION,
  ...KEYS,
  ...CHECKPOINTING,
  ...ROLES,
  ...ROTATING,
  ...UNASKED,
  ...ENDINGS,
];
