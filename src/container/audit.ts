import { CheckpointBucket } from '../audit/checkpoint-bucket-aws.ts';
import { CheckpointSigner } from '../audit/checkpoint-signer-aws.ts';
import { CheckpointStore } from '../audit/checkpoint-store.ts';
import { Checkpointer } from '../audit/checkpointer.ts';
import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { sdkOptions } from '../credentials/sdk-options-aws.ts';
import { reachOf } from '../domain/address.ts';
import type { Base } from './base.ts';

/** Of one attempt at AWS. Nobody waits for it. Milliseconds. */
const ATTEMPT_MS = 5_000;

/** Who proves what was done: the store of checkpoints, and, where there is a key to sign with, what makes them. */
export function buildAudit(config: Config, secrets: Secrets, { database, logger, monotonic }: Base) {
  const stores = { checkpoints: new CheckpointStore(database) };
  const { auditKmsKeyId: keyId, auditCheckpointBucket, awsRegion, deployment } = config;
  if (keyId === undefined) return { ...stores, checkpointer: undefined, auditing: [] };
  const sdkFor = (region: string, host: string, given?: string) => {
    const endpoint = given ?? `https://${host}.${region}.amazonaws.com`;
    const reach = reachOf(given, config.privateEndpoints);
    const target = { region, endpoint, reach, maxAttempts: 2, requestTimeoutMs: ATTEMPT_MS };
    return sdkOptions(target, secrets.serviceCredential ?? 'workload');
  };
  const signer = new CheckpointSigner({ sdk: sdkFor(awsRegion, 'kms', config.endpointKms), keyId });
  const bucket =
    auditCheckpointBucket === undefined
      ? undefined
      : new CheckpointBucket({
          sdk: sdkFor(config.auditCheckpointBucketRegion ?? awsRegion, 's3', config.endpointS3),
          bucket: auditCheckpointBucket,
          owner: config.auditCheckpointBucketOwner,
          retainDays: config.auditCheckpointRetainDays,
          deployment,
        });
  const checkpointer = new Checkpointer({
    store: stores.checkpoints,
    signer,
    ...(bucket && { bucket }),
    logger,
    origin: deployment,
    everyMs: config.auditCheckpointEveryMs,
    events: config.auditCheckpointEvents,
    clock: monotonic,
  });
  return { ...stores, checkpointer, auditing: [checkpointer, signer, ...(bucket ? [bucket] : [])] };
}
