import type { Actor } from '../domain/audit.ts';
import type { CredentialState } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import { notFound } from './credential-state.ts';

export interface FreezeChange {
  frozen: boolean;
  /** Words for the audit trail: no secret. */
  reason?: string | undefined;
}

/** Stops a credential and lets it go on: one function of the database, which writes the audit record in the same commit. */
export class FreezeStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * What is so already stays so, without a second record.
   * @throws ServiceError credential.not_found | credential.not_usable when it is neither active nor frozen | ledger.unavailable
   */
  async change(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    { frozen, reason }: FreezeChange,
  ): Promise<void> {
    const [row] = await this.#database.query<{ before: CredentialState | null }>(
      Prisma.sql`SELECT credential_freeze(${merchantId}, ${credentialId}, ${frozen}, ${reason ?? null}, ${actor.subject}, ${actor.requestId}) AS before`,
    );
    const before = row?.before ?? undefined;
    if (before === undefined) throw notFound();
    if (before !== 'active' && before !== 'frozen')
      throw new ServiceError(
        'credential.not_usable',
        `This credential is ${before}, so no call uses it: there is nothing to freeze or thaw. Delete it if it must never be used.`,
      );
  }
}
