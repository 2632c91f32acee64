import type { Actor } from '../domain/audit.ts';
import { ServiceError } from '../domain/errors.ts';
import type { ApiKeyId, MerchantId } from '../domain/ids.ts';
import type { MerchantScope } from '../domain/principal.ts';
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
  /** The key that took its place; it ends by itself. */
  rolledTo: string | null;
}

/** A hash in place of another. */
export interface Rehashed {
  before: Uint8Array;
  after: StoredHash;
}

export interface KeyRoll {
  id: ApiKeyId;
  successor: StoredHash & { id: ApiKeyId; environment: string };
  overlapHours: number;
}

/** What a successor has of its predecessor. Times in ISO 8601. */
export interface RolledFacts {
  name: string;
  scopes: readonly MerchantScope[];
  expiresAt: string;
  oldExpiresAt: string;
}

type RollAnswer =
  | { state: 'not_found' | 'not_usable' }
  | { state: 'rolled_before'; successor: string }
  | ({ state: 'rolled' } & RolledFacts);

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

  /** Scopes of a key; undefined when the merchant has no such key. They never change. */
  scopesOf(merchantId: MerchantId, id: ApiKeyId): Promise<readonly string[] | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const row = await tx.apiKey.findFirst({ where: { merchantId, id }, select: { scopes: true } });
      return row?.scopes;
    });
  }

  /**
   * A successor, and an end for the old key, in one transaction with its audit record.
   * @throws ServiceError api_key.not_found | api_key.not_usable | api_key.rolled_before | ledger.unavailable
   */
  async roll(
    actor: Actor,
    merchantId: MerchantId,
    { id, successor, overlapHours }: KeyRoll,
  ): Promise<RolledFacts> {
    const { hash, ...facts } = successor;
    const [row] = await this.#database.query<{ answer: RollAnswer }>(Prisma.sql`
      SELECT api_key_roll(${merchantId}, ${id}, ${JSON.stringify(facts)}::jsonb, ${hash}, ${overlapHours}::integer, ${actor.subject}, ${actor.requestId}) AS answer`);
    const answer = row?.answer ?? { state: 'not_found' };
    if (answer.state !== 'rolled') throw rollRefusal(answer);
    const { state: _state, ...rolled } = answer;
    return rolled;
  }

  /** Writes a hash only over the one it takes the place of, and only one of a newer pepper. @returns whether it was. */
  async rehash(merchantId: MerchantId, id: ApiKeyId, { before, after }: Rehashed): Promise<boolean> {
    const [row] = await this.#database.query<{ done: boolean }>(Prisma.sql`
      SELECT api_key_rehash(${merchantId}, ${id}, ${before}, ${after.hash}, ${after.pepperVersion}::integer) AS done`);
    return row?.done === true;
  }

  /** The same for an operator's key. */
  async rehashOperator(id: ApiKeyId, { before, after }: Rehashed): Promise<boolean> {
    const [row] = await this.#database.query<{ done: boolean }>(Prisma.sql`
      SELECT operator_key_rehash(${id}, ${before}, ${after.hash}, ${after.pepperVersion}::integer) AS done`);
    return row?.done === true;
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

function rollRefusal(answer: Exclude<RollAnswer, { state: 'rolled' }>): ServiceError {
  switch (answer.state) {
    case 'not_found':
      return new ServiceError(
        'api_key.not_found',
        'This merchant has no such API key. GET …/api-keys lists them.',
      );
    case 'not_usable':
      return new ServiceError(
        'api_key.not_usable',
        'This API key was revoked, has expired, or is of another environment. Make a new one: POST …/api-keys.',
      );
    case 'rolled_before':
      return new ServiceError(
        'api_key.rolled_before',
        `This API key was rolled before; its successor is ${answer.successor}. If that token was lost, roll the successor or revoke it.`,
        { extra: { successorId: answer.successor } },
      );
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
