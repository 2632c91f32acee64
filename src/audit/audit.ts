/** An event of a chain, as it is read and exported. `seq` counts from 1 without gaps; hashes are hex. */
export interface AuditEvent {
  merchantId: string;
  seq: number;
  /** Microseconds since the epoch, by the database's clock: what the hash covers. */
  atMicros: string;
  at: string;
  actor: string;
  action: string;
  resource: string;
  outcome: string;
  requestId: string;
  /** JSON text, byte for byte as it was hashed. */
  body: string;
  prevHash: string;
  hash: string;
}
