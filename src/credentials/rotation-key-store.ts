import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { KeyState, RotationName, RotationRules } from './rotation-state.ts';

interface UnneededKey {
  keyHint: string | null;
  startedAt: Date;
}

/** What is known of the keys at IAM that rotations left over. */
export class RotationKeyStore {
  readonly #database: Database;
  readonly #graceSeconds: number;

  constructor(database: Database, { keyGraceMs }: Pick<RotationRules, 'keyGraceMs'>) {
    this.#database = database;
    this.#graceSeconds = keyGraceMs / 1_000;
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
        SELECT r.version, v.key_hint AS hint FROM credential_rotations r JOIN credential_versions v
          ON v.merchant_id = r.merchant_id AND v.credential_id = r.credential_id
          AND v.version = CASE r.state WHEN 'retired' THEN r.replaces ELSE r.version END
        WHERE r.merchant_id = ${merchantId} AND r.credential_id = ${credentialId} AND r.key_state = 'deactivated'`;
      return rows.map(({ version, hint }) => ({ merchantId, credentialId, version, keyHint: hint }));
    });
  }

  /** The key that a rotation of mode `iam` left over; without a hint where its process died before it was sealed. */
  unneededKey({ merchantId, credentialId, version }: RotationName): Promise<UnneededKey> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const key = { merchantId, credentialId };
      const rotation = await tx.credentialRotation.findFirstOrThrow({ where: { ...key, version } });
      const unneeded = rotation.state === 'retired' ? rotation.replaces : version;
      const row = await tx.credentialVersion.findFirst({ where: { ...key, version: unneeded } });
      return { keyHint: row?.keyHint ?? null, startedAt: rotation.startedAt };
    });
  }
}
