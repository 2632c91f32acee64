import type { Actor } from '../domain/audit.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { SecretPlace } from './secret-vault.ts';

/** The data key of a version as it lies in the database. */
export interface WrappedKey extends SecretPlace {
  kmsKeyArn: string;
  wrappedKey: Uint8Array;
  secretName: string;
  secretVersionId: string;
}

export interface RewrappedKey extends WrappedKey {
  after: Uint8Array;
}

/** What is under one key. `key`: ARN of a KMS key; id of a session key in hex, '' when not known; version of a pepper. */
export interface KeyCount {
  kind: 'data-key' | 'webhook-secret' | 'answer' | 'token' | 'operator-token';
  key: string;
  count: number;
}

/** A live API key that was not used since a pepper came. */
export interface StaleToken {
  /** Null: an operator's. */
  merchantId: string | null;
  id: string;
  name: string;
  pepperVersion: number;
  expiresAt: string;
}

interface TakenRow {
  merchant_id: MerchantId;
  credential_id: CredentialId;
  version: number;
  kms_key_arn: string;
  wrapped_key: Uint8Array;
  secret_name: string;
  secret_version_id: string;
}

/** The service's own keys across merchants: an administrator's view, with an administrator's login. */
export class DataKeyStore {
  readonly #database: Pick<Database, 'query'>;

  constructor(database: Pick<Database, 'query'>) {
    this.#database = database;
  }

  /** Data keys under another KMS key than `arn`, in order of merchant, from behind `after` on. */
  async take(arn: string, after: SecretPlace | undefined, limit: number): Promise<WrappedKey[]> {
    const { merchantId = '', credentialId = '', version = 0 } = after ?? {};
    const rows = await this.#database.query<TakenRow>(Prisma.sql`
      SELECT * FROM data_keys_take(${arn}, ${merchantId}, ${credentialId}, ${version}::integer, ${limit}::integer)`);
    return rows.map((row) => ({
      merchantId: row.merchant_id,
      credentialId: row.credential_id,
      version: row.version,
      kmsKeyArn: row.kms_key_arn,
      wrappedKey: row.wrapped_key,
      secretName: row.secret_name,
      secretVersionId: row.secret_version_id,
    }));
  }

  /** Writes keys that are wrapped anew, each only over the one it was made of. @returns how many were written. */
  async rewrapped(actor: Actor, arn: string, keys: readonly RewrappedKey[]): Promise<number> {
    const items = keys.map(({ merchantId, credentialId, version, wrappedKey, after }) => ({
      merchantId,
      credentialId,
      version,
      before: Buffer.from(wrappedKey).toString('hex'),
      after: Buffer.from(after).toString('hex'),
    }));
    const [row] = await this.#database.query<{ written: number }>(Prisma.sql`
      SELECT data_keys_rewrapped(${JSON.stringify(items)}::jsonb, ${arn}, ${actor.subject}, ${actor.requestId}) AS written`);
    return row?.written ?? 0;
  }

  async status(): Promise<KeyCount[]> {
    const rows = await this.#database.query<{ kind: KeyCount['kind']; key: string; count: bigint }>(
      Prisma.sql`SELECT * FROM keys_status()`,
    );
    return rows.map(({ count, ...row }) => ({ ...row, count: Number(count) }));
  }

  /** Operators' first, then in order of merchant. */
  async belowPepper(version: number, limit: number): Promise<StaleToken[]> {
    const rows = await this.#database.query<{
      merchant_id: string | null;
      id: string;
      name: string;
      pepper_version: number;
      expires_at: Date;
    }>(Prisma.sql`SELECT * FROM keys_below_pepper(${version}::integer, ${limit}::integer)`);
    return rows.map((row) => ({
      merchantId: row.merchant_id,
      id: row.id,
      name: row.name,
      pepperVersion: row.pepper_version,
      expiresAt: row.expires_at.toISOString(),
    }));
  }
}
