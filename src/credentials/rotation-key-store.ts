import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { KeyState, RotationName, RotationRules } from './rotation-state.ts';

/** What is known of the key at IAM that a rotation left over: the one it replaced, or the one it made. */
export interface UnneededKey {
  /** Null where the process died before it could tell. */
  keyHint: string | null;
  /** When a new key was about to be asked for; null: never. */
  askedAt: Date | null;
  /** It was made so short a while ago that IAM may not list it yet. */
  fresh: boolean;
  /** Another rotation of the credential is being tested: a key that is not known yet may be its. */
  pending: boolean;
  /** Hints of keys that sign, or are about to. */
  live: readonly string[];
  /** Hints of all keys that the credential ever had. */
  known: readonly string[];
}

/** What is known of the keys at IAM that rotations left over. */
export class RotationKeyStore {
  readonly #database: Database;
  readonly #graceSeconds: number;

  constructor(database: Database, { keyGraceMs }: Pick<RotationRules, 'keyGraceMs'>) {
    this.#database = database;
    this.#graceSeconds = keyGraceMs / 1_000;
  }

  /** Writes that a new key is about to be asked for. @returns false when the rotation is over, so that none may be. */
  keyAsked(name: RotationName): Promise<boolean> {
    return this.#note(name, 'asked', null);
  }

  /** IAM made none. */
  keyRefused(name: RotationName): Promise<boolean> {
    return this.#note(name, 'refused', null);
  }

  /** Writes which key the rotation made. */
  keyMade(name: RotationName, keyHint: string): Promise<boolean> {
    return this.#note(name, 'made', keyHint);
  }

  /** Writes what was done at IAM with the key that a rotation left over. */
  async keyDone(name: RotationName, state: KeyState): Promise<boolean> {
    const [row] = await this.#database.query<{ done: boolean }>(
      Prisma.sql`SELECT rotation_key_done(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${state}, ${this.#graceSeconds}::double precision) AS done`,
    );
    return row?.done === true;
  }

  /** Keys at IAM that were deactivated and wait to be deleted. */
  leftKeys(
    merchantId: MerchantId,
    credentialId: CredentialId,
  ): Promise<(RotationName & { keyHint: string | null })[]> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.$queryRaw<{ version: number; hint: string | null }[]>`
        SELECT r.version, CASE r.state WHEN 'retired' THEN v.key_hint ELSE coalesce(r.made_key, v.key_hint) END AS hint
        FROM credential_rotations r LEFT JOIN credential_versions v
          ON v.merchant_id = r.merchant_id AND v.credential_id = r.credential_id
          AND v.version = CASE r.state WHEN 'retired' THEN r.replaces ELSE r.version END
        WHERE r.merchant_id = ${merchantId} AND r.credential_id = ${credentialId} AND r.key_state = 'deactivated'`;
      return rows.map(({ version, hint }) => ({ merchantId, credentialId, version, keyHint: hint }));
    });
  }

  /** The key that a rotation of mode `iam`, which is over, left over. */
  unneededKey({ merchantId, credentialId, version }: RotationName): Promise<UnneededKey> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<UnneededKey[]>`
        WITH versions AS (SELECT * FROM credential_versions WHERE merchant_id = ${merchantId} AND credential_id = ${credentialId}),
          rotations AS (SELECT * FROM credential_rotations WHERE merchant_id = ${merchantId} AND credential_id = ${credentialId})
        SELECT CASE r.state WHEN 'retired' THEN v.key_hint ELSE coalesce(r.made_key, v.key_hint) END AS "keyHint",
          r.key_asked_at AS "askedAt",
          r.state <> 'retired' AND r.ended_at > clock_timestamp() - interval '5 minutes' AS fresh,
          EXISTS (SELECT 1 FROM rotations WHERE state = 'pending') AS pending,
          ARRAY(SELECT coalesce(w.key_hint, c.key_hint) FROM versions w JOIN credentials c ON c.merchant_id = w.merchant_id AND c.id = w.credential_id
            WHERE w.state IN ('pending', 'current', 'previous')) AS live,
          ARRAY(SELECT key_hint FROM versions WHERE key_hint IS NOT NULL UNION SELECT made_key FROM rotations WHERE made_key IS NOT NULL) AS known
        FROM rotations r LEFT JOIN versions v ON v.version = CASE r.state WHEN 'retired' THEN r.replaces ELSE r.version END
        WHERE r.version = ${version}::integer`;
      if (row === undefined) throw new Error('the rotation is not on record');
      return row;
    });
  }

  async #note(name: RotationName, note: 'asked' | 'refused' | 'made', keyHint: string | null) {
    const [row] = await this.#database.query<{ noted: boolean }>(
      Prisma.sql`SELECT rotation_key_noted(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${note}, ${keyHint}) AS noted`,
    );
    return row?.noted === true;
  }
}
