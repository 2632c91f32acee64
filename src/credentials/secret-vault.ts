import type { StoredMaterial } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';

/** What a sealed secret belongs to. It opens for exactly this place and no other. */
export interface SecretPlace {
  merchantId: MerchantId;
  credentialId: CredentialId;
  /** From 1. */
  version: number;
}

/** Where the two halves of a sealed version are: the wrapped key goes to Postgres, the rest says where the ciphertext is. No secret. */
export interface SealedVersion {
  /** The version's data key, wrapped by KMS for its place. Without it the ciphertext is noise. */
  wrappedKey: Buffer;
  kmsKeyArn: string;
  secretName: string;
  secretVersionId: string;
}

/**
 * Where secrets lie: ciphertext in Secrets Manager, the right to unwrap its key in KMS, the wrapped key with the caller.
 * Any one of the three alone opens nothing.
 */
export interface SecretVault {
  /** @throws ServiceError vault.unavailable; nothing usable was stored then. Cost: one KMS call, one Secrets Manager call. */
  seal(place: SecretPlace, credential: StoredMaterial): Promise<SealedVersion>;
  /**
   * @throws ServiceError vault.unavailable (try again) | credential.unreadable (it will not get better by itself).
   * Cost: one KMS call, one Secrets Manager call.
   */
  open(place: SecretPlace, sealed: SealedVersion): Promise<StoredMaterial>;
  /**
   * Removes the ciphertext: `in-7-days` leaves AWS's recovery window, `now` is for what never came into use. Gone already is fine.
   * @throws ServiceError vault.unavailable
   */
  discard(secretName: string, when: 'in-7-days' | 'now'): Promise<void>;
}
