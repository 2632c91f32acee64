import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database, Tx } from '../persistence/database.ts';

/** A secret at Secrets Manager that belongs to no credential. */
export interface Leftover {
  merchantId: MerchantId;
  secretName: string;
}

/** Names of secrets on their way in or out: written before AWS is asked, gone when the credential is committed or the secret removed. */
export class LeftoverStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws ServiceError ledger.unavailable: then the secret must not be created. */
  async announce({ merchantId, secretName }: Leftover): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT secret_announce(${merchantId}, ${secretName})`);
  }

  /** @throws ServiceError ledger.unavailable */
  async forget({ merchantId, secretName }: Leftover): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT secret_forget(${merchantId}, ${secretName})`);
  }

  /**
   * Those written down at least `afterMs` ago and still of no credential, for this sweep alone; a sweep that dies leaves them to the next in ten minutes.
   * @throws ServiceError ledger.unavailable
   */
  take(afterMs: number, limit: number): Promise<Leftover[]> {
    return this.#database.query<Leftover>(Prisma.sql`
      SELECT merchant_id AS "merchantId", secret_name AS "secretName"
      FROM secret_leftovers_take(${afterMs}::bigint, ${limit}::integer)`);
  }
}

/**
 * In the transaction that writes the credential: its secret is none that is left over.
 * @throws ServiceError vault.unavailable when it took so long that a sweep has begun to remove it.
 */
export async function claimSecret(tx: Tx, secretName: string): Promise<void> {
  const [row] = await tx.$queryRaw<{ mine: boolean }[]>`SELECT secret_commit(${secretName}) AS mine`;
  if (row?.mine === true) return;
  throw new ServiceError('vault.unavailable', 'Storing took too long and was given up. Try again.', {
    retryAfterSeconds: 5,
  });
}

/** In the transaction that destroys the keys of these secrets: from its commit on they are left over, until they are removed. */
export async function leaveSecrets(tx: Tx, secretNames: readonly string[]): Promise<void> {
  await tx.$queryRaw`SELECT secrets_orphaned(${[...secretNames]}::text[])`;
}
