/** Every name under which something may be logged. What is not here is not logged: a new field is a decision, and stands here with it. */
export const LOG_FIELDS = [
  // A request
  'requestId',
  'method',
  'protocol',
  'route',
  'subject',
  'merchantId',
  'status',
  'code',
  'durationMs',
  'complete',
  // A paid call
  'callId',
  'keyId',
  'source',
  'region',
  'modelId',
  'replayed',
  'awsError',
  // What failed, and where
  'error',
  'at',
  'reason',
  'name',
  'chain',
  'secretName',
  'file',
  'lines',
  // Counts of housekeeping
  'calls',
  'looked',
  'resolved',
  'removed',
  'alerts',
  'streams',
  // Alerts and webhooks
  'webhookId',
  'deliveryId',
  'event',
  'attempt',
  'written',
  'alertId',
  'kind',
  'scope',
  'limit',
  'percent',
  'used',
  'max',
  // The process
  'host',
  'port',
  'environment',
  'signal',
] as const;

export type LogField = (typeof LOG_FIELDS)[number];
