import type { Clock } from '../domain/clock.ts';
import type { Logger } from '../observability/logger.ts';
import type { Database } from '../persistence/database.ts';

/** What everything else is built on. */
export interface Base {
  clock: Clock;
  logger: Logger;
  database: Database;
}
