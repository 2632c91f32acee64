import type { CredentialSource } from '../domain/credential.ts';
import type { ApiKeyId, CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** What a call may run by: all of it must hold. */
export interface Right {
  merchantId: MerchantId;
  /** Absent: what needs no credential. */
  source?: CredentialSource | undefined;
  apiKeyId?: ApiKeyId | undefined;
  /** Of stored credentials. Whichever version signed: what one began goes on when it is rotated away. */
  credentialId?: CredentialId | undefined;
}

/** What an operator may read by. */
export interface OperatorRight {
  operatorKeyId: ApiKeyId;
}

export type Held = Right | OperatorRight;

/**
 * What ended: the merchant (suspended, closed), the API key (revoked, expired), the leave to use this source, the credential (frozen, deleted),
 * the operator's key (revoked, expired).
 */
export type EndedBy<R = Held> = R extends OperatorRight
  ? 'operator_key'
  : 'merchant' | 'api_key' | 'source' | 'credential';

/** Asks what has been taken away since a call was admitted. */
export class RightsStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * One statement for any number of rights of any merchants and operators (prisma/migrations, rights_ended and find_operator_key).
   * @returns by position in `rights`; what still holds is left out.
   * @throws ServiceError ledger.unavailable
   */
  async ended<R extends Held>(rights: readonly R[]): Promise<Map<number, EndedBy<R>>> {
    const held = rights.map(rowOf);
    const [merchants, operators] = [held.filter(isOfMerchant), held.filter((row) => !isOfMerchant(row))];
    const rows = await this.#database.query<{ pos: number; ended: EndedBy<R> }>(Prisma.sql`
      SELECT pos, ended FROM rights_ended(${JSON.stringify(merchants)}::jsonb)
      UNION ALL
      SELECT o.pos, 'operator_key' FROM jsonb_to_recordset(${JSON.stringify(operators)}::jsonb) AS o (pos integer, id text)
      WHERE NOT EXISTS (SELECT 1 FROM find_operator_key(o.id) k WHERE k.revoked_at IS NULL AND k.expires_at > clock_timestamp())`);
    return new Map(rows.map(({ pos, ended }) => [pos, ended]));
  }
}

function rowOf(right: Held, pos: number) {
  if ('operatorKeyId' in right) return { pos, id: right.operatorKeyId };
  const { merchantId, apiKeyId, source, credentialId } = right;
  return { pos, merchant_id: merchantId, api_key_id: apiKeyId, source, credential_id: credentialId };
}

function isOfMerchant(row: object): boolean {
  return 'merchant_id' in row;
}
