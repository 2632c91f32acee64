import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** Alerts of one transaction: it holds the audit heads of their merchants. */
const AT_ONCE = 100;

/** Reminds merchants of stored keys that have been in use for long. */
export class RotationAlertsStore {
  readonly #database: Pick<Database, 'query'>;

  constructor(database: Pick<Database, 'query'>) {
    this.#database = database;
  }

  /**
   * Raises what is due, each version's `due` and `overdue` once. Of all replicas one does it, once a day: ask as often as you like. Where it
   * does not come to its end, another one goes on after a minute.
   * @param days a key may be in use.
   * @returns how many alerts were raised; undefined when it was done within the last day, or somebody does it. @throws ServiceError ledger.unavailable
   */
  async raise(days: number, atOnce = AT_ONCE): Promise<number | undefined> {
    let sum = 0;
    for (let first = true; ; first = false) {
      const [row] = await this.#database.query<{ raised: number | null }>(
        Prisma.sql`SELECT rotation_alerts(${days}::integer, ${atOnce}::integer, ${first}) AS raised`,
      );
      const raised = row?.raised;
      if (raised == null) return undefined;
      sum += raised;
      if (raised < atOnce) return sum;
    }
  }
}
