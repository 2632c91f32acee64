import type { Actor } from '../domain/audit.ts';
import type { ApiKeyId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import type { StoredHash } from './token-hash.ts';

/** A key as verification needs it. */
export interface StoredKey extends StoredHash {
  environment: string;
  scopes: readonly string[];
  expiresAt: Date;
  revokedAt: Date | null;
}

export interface NewKey extends StoredHash {
  id: ApiKeyId;
  name: string;
  environment: string;
  scopes: readonly string[];
  expiresAt: Date;
}

/** A key as it may be shown: no hash. Times in ISO 8601. */
export interface ApiKeyView {
  id: string;
  name: string;
  environment: string;
  scopes: readonly string[];
  createdBy: string;
  createdAt: string;
  expiresAt: string;
  revokedAt: string | null;
}

interface FoundRow {
  merchant_id: MerchantId;
  environment: string;
  secret_hash: Uint8Array;
  pepper_version: number;
  scopes: string[];
  expires_at: Date;
  revoked_at: Date | null;
}

/** API keys. The two finders look across merchants, because a token says only later whose it is; all else is one merchant's. */
export class ApiKeyStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async find(id: ApiKeyId): Promise<(StoredKey & { merchantId: MerchantId }) | undefined> {
    const [row] = await this.#database.query<FoundRow>(Prisma.sql`SELECT * FROM find_api_key(${id})`);
    return row && { ...toStored(row), merchantId: row.merchant_id };
  }

  async findOperator(id: ApiKeyId): Promise<StoredKey | undefined> {
    const [row] = await this.#database.query<FoundRow>(Prisma.sql`SELECT * FROM find_operator_key(${id})`);
    return row && toStored(row);
  }

  /** Writes a key and its audit record in the caller's transaction, which must be of this merchant. */
  async insert(tx: Tx, merchantId: MerchantId, actor: Actor, key: NewKey): Promise<void> {
    const { id, name, environment, scopes, expiresAt, hash, pepperVersion } = key;
    await appendAudit(tx, merchantId, {
      actor: actor.subject,
      action: 'token.created',
      resource: `api-key/${id}`,
      outcome: 'allowed',
      requestId: actor.requestId,
      body: { scopes, expiresAt: expiresAt.toISOString() },
    });
    await tx.apiKey.create({
      data: {
        merchantId,
        id,
        name,
        environment,
        secretHash: Uint8Array.from(hash),
        pepperVersion,
        scopes: [...scopes],
        createdBy: actor.subject,
        expiresAt,
      },
      select: { id: true },
    });
  }

  insertAlone(merchantId: MerchantId, actor: Actor, key: NewKey): Promise<void> {
    return this.#database.asTenant(merchantId, (tx) => this.insert(tx, merchantId, actor, key));
  }

  /** All keys of a merchant, oldest first, revoked and expired ones included. */
  list(merchantId: MerchantId): Promise<ApiKeyView[]> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.apiKey.findMany({
        where: { merchantId },
        orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
        omit: { secretHash: true, pepperVersion: true },
      });
      return rows.map(({ merchantId: _merchantId, ...row }) => ({
        ...row,
        createdAt: row.createdAt.toISOString(),
        expiresAt: row.expiresAt.toISOString(),
        revokedAt: row.revokedAt?.toISOString() ?? null,
      }));
    });
  }

  /**
   * Revokes a key, with its audit record in the same commit. The lock on the head of the chain comes first: it orders this with the admission
   * of calls (ledger_hold), so that none is admitted with the key once this has been committed. Of several at once one is recorded.
   * @returns false when the merchant has no such key; true also when it was revoked before.
   */
  async revoke(actor: Actor, merchantId: MerchantId, id: ApiKeyId): Promise<boolean> {
    const [row] = await this.#database.query<{ found: boolean }>(
      Prisma.sql`SELECT api_key_revoke(${merchantId}, ${id}, ${actor.subject}, ${actor.requestId}) AS found`,
    );
    return row?.found === true;
  }
}

function toStored(row: FoundRow): StoredKey {
  return {
    environment: row.environment,
    hash: row.secret_hash,
    pepperVersion: row.pepper_version,
    scopes: row.scopes,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
  };
}
