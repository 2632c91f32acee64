import type { CredentialSource } from '../domain/credential.ts';
import type { ApiKeyId, CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** What a call may run by: all of it must hold. */
export interface Right {
  merchantId: MerchantId;
  source: CredentialSource;
  apiKeyId?: ApiKeyId | undefined;
  /** Of stored credentials. Whichever version signed: what one began goes on when it is rotated away. */
  credentialId?: CredentialId | undefined;
}

/** What ended: the merchant (suspended, closed), the API key (revoked, expired), the leave to use this source, the credential (frozen, deleted). */
export type EndedBy = 'merchant' | 'api_key' | 'source' | 'credential';

/** Asks what has been taken away since a call was admitted. */
export class RightsStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * One statement for any number of rights of any merchants (prisma/migrations, rights_ended).
   * @returns by position in `rights`; what still holds is left out.
   * @throws ServiceError ledger.unavailable
   */
  async ended(rights: readonly Right[]): Promise<Map<number, EndedBy>> {
    const held = rights.map(({ merchantId, apiKeyId, source, credentialId }, pos) => ({
      pos,
      merchant_id: merchantId,
      api_key_id: apiKeyId,
      source,
      credential_id: credentialId,
    }));
    const rows = await this.#database.query<{ pos: number; ended: EndedBy }>(
      Prisma.sql`SELECT pos, ended FROM rights_ended(${JSON.stringify(held)}::jsonb)`,
    );
    return new Map(rows.map(({ pos, ended }) => [pos, ended]));
  }
}
