import type { Config } from '../config/settings.ts';
import type { OpenedCache } from '../credentials/opened-cache.ts';
import { RotationKeyStore } from '../credentials/rotation-key-store.ts';
import { RotationKeys } from '../credentials/rotation-keys.ts';
import type { RotationKeysParts } from '../credentials/rotation-keys.ts';
import { RotationSteps } from '../credentials/rotation-steps.ts';
import type { RotationStepsParts } from '../credentials/rotation-steps.ts';
import { RotationStore } from '../credentials/rotation-store.ts';
import { RotationWorker } from '../credentials/rotation-worker.ts';
import { Rotations } from '../credentials/rotation.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

/** Another version of a stored credential under running calls. */
export function buildRotation(
  config: Config,
  { logger, database, audit }: Pick<Base, 'logger' | 'database' | 'audit'>,
  {
    opened,
    iamKeys,
    ...parts
  }: Omit<RotationStepsParts, 'store'> & Omit<RotationKeysParts, 'store'> & { opened: OpenedCache },
) {
  const store = new RotationStore(database, {
    overlapMs: config.rotationOverlapMs,
    minIntervalMs: config.rotationMinIntervalMs,
  });
  const keyStore = new RotationKeyStore(database, { keyGraceMs: config.rotationKeyGraceMs });
  const steps = new RotationSteps({ ...parts, store });
  const keys = new RotationKeys({ ...parts, store: keyStore, iamKeys });
  const rotations = new Rotations({
    ...parts,
    audit,
    store,
    steps,
    keys,
    onLeft: ({ merchantId, credentialId, version }, cause) => {
      logger.warn('rotation: a step was left to the worker', {
        ...{ merchantId, credentialId, version },
        ...errorFields(cause),
      });
    },
  });
  const { vault } = parts;
  return { rotations, rotationWorker: new RotationWorker({ store, steps, keys, vault, opened, logger }) };
}
