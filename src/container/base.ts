import type { AuditStore } from '../audit/audit-store.ts';
import type { Clock } from '../domain/clock.ts';
import type { Logger } from '../observability/logger.ts';
import type { Database } from '../persistence/database.ts';

/** What everything else is built on. */
export interface Base {
  clock: Clock;
  /** For spans: nobody sets it. */
  monotonic: Clock;
  logger: Logger;
  database: Database;
  audit: AuditStore;
}
