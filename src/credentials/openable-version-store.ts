import type { CredentialState } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import type { Tx } from '../persistence/database.ts';
import { assertActive, notFound } from './credential-state.ts';
import type { SealedVersion } from './secret-vault.ts';

interface OpenableRow {
  wrapped_key: Uint8Array;
  kms_key_arn: string;
  secret_name: string;
  secret_version_id: string;
}

/** @throws ServiceError credential.not_found */
export async function stateOf(merchantId: MerchantId, tx: Tx, id: CredentialId): Promise<CredentialState> {
  const row = await tx.credential.findFirst({
    where: { merchantId, id, state: { not: 'deleted' } },
    select: { state: true },
  });
  if (row === null) throw notFound();
  return row.state as CredentialState;
}

/** Nothing of a merchant that was stopped is opened, by whoever asks: also what the service does by itself waits. @throws ServiceError merchant.not_active */
export async function assertMerchantActive(merchantId: MerchantId, tx: Tx): Promise<void> {
  const active = await tx.merchant.count({ where: { id: merchantId, status: 'active' } });
  if (active === 1) return;
  throw new ServiceError(
    'merchant.not_active',
    'This merchant is suspended or closed: nothing is done with its credentials. An operator can say why.',
  );
}

/**
 * In a transaction that has the merchant's audit head, so that neither changes before it is committed.
 * @throws ServiceError merchant.not_active | credential.not_found | credential.not_usable
 */
export async function assertUsable(
  merchantId: MerchantId,
  tx: Tx,
  credentialId: CredentialId,
): Promise<void> {
  await assertMerchantActive(merchantId, tx);
  assertActive(await stateOf(merchantId, tx, credentialId));
}

/** @throws ServiceError as `assertUsable`, for the version as well */
export async function openableVersion(
  merchantId: MerchantId,
  tx: Tx,
  credentialId: CredentialId,
  version: number,
): Promise<SealedVersion> {
  await assertUsable(merchantId, tx, credentialId);
  // The same rule as in ledger_hold: whoever is admitted may open, and nobody else.
  const [row] = await tx.$queryRaw<OpenableRow[]>`
    SELECT wrapped_key, kms_key_arn, secret_name, secret_version_id FROM credential_versions
    WHERE merchant_id = ${merchantId} AND credential_id = ${credentialId} AND version = ${version}::integer
      AND (state = 'current' OR (state = 'previous' AND overlap_until > clock_timestamp()))`;
  if (row === undefined) {
    throw new ServiceError(
      'credential.not_usable',
      'This version of the credential was replaced while the request was under way. Send the request again.',
    );
  }
  return {
    wrappedKey: Buffer.from(row.wrapped_key),
    kmsKeyArn: row.kms_key_arn,
    secretName: row.secret_name,
    secretVersionId: row.secret_version_id,
  };
}
