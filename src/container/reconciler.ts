import { LogBucket } from '../bedrock/log-bucket-aws.ts';
import { LogGroup } from '../bedrock/log-group-aws.ts';
import type { Config } from '../config/settings.ts';
import { Reconciler } from '../gateway/reconciler.ts';
import type { ReconcilerParts } from '../gateway/reconciler.ts';
import { UnknownStore } from '../ledger/unknown-store.ts';
import type { Base } from './base.ts';

/** Reading logs is nobody's request: it may take its time, but few sockets. */
const LOG_LIMITS = { socketsMax: 16, connectMs: 3_000, firstByteMs: 30_000, totalMs: 60_000 };
const LOG_BYTES_MAX = 1_000_000_000;

/** What becomes of unknown calls. `reconciling` are to be closed, in this order. */
export function buildReconciler(
  { endpointCloudWatchLogs, endpointS3, privateEndpoints: privateNames }: Config,
  { database, logger }: Base,
  parts: Pick<ReconcilerParts, 'ledger' | 'merchants' | 'roleSessions' | 'vault'>,
) {
  const unknown = new UnknownStore(database);
  const logGroup = new LogGroup({ ...LOG_LIMITS, privateNames, endpoint: endpointCloudWatchLogs });
  const logBucket = new LogBucket({
    ...LOG_LIMITS,
    privateNames,
    endpoint: endpointS3,
    bytesMax: LOG_BYTES_MAX,
  });
  const reconciler = new Reconciler({ ...parts, unknown, logger, logGroup, logBucket });
  return { unknown, reconciler, reconciling: [reconciler, logGroup, logBucket] };
}
