import type { Mutant } from '../../scripts/mutants/mutant.ts';
import { AUDIT } from './audit.ts';
import { BEDROCK } from './bedrock.ts';
import { CALLERS } from './callers.ts';
import { CREDENTIALS } from './credentials.ts';
import { DATABASE } from './database.ts';
import { HTTP } from './http.ts';
import { RECONCILING } from './reconcile.ts';
import { STREAMS } from './streams.ts';

/** The promises of the product and how each is broken on purpose: `npm run test:mutants`. */
export const MUTANTS: readonly Mutant[] = [
  ...CREDENTIALS,
  ...CALLERS,
  ...BEDROCK,
  ...STREAMS,
  ...RECONCILING,
  ...DATABASE,
  ...AUDIT,
  ...HTTP,
];
