import type { StoredMaterial } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { ServiceErrorOptions } from '../domain/errors.ts';
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

/** KMS or Secrets Manager was throttled, failed, or did not answer: nothing was learned, and what was opened before may serve a while longer. */
export class VaultSilence extends ServiceError {
  constructor(detail: string, options: ServiceErrorOptions = {}) {
    super('vault.unavailable', detail, { retryAfterSeconds: 5, ...options });
  }
}

/** KMS or Secrets Manager said no, or what they gave does not open. What was opened before is not to be used any more. */
export class VaultRefusal extends ServiceError {
  /** Whom it concerns: this credential, or every one, because it was the key that was refused. */
  readonly of: 'credential' | 'key';

  constructor(of: 'credential' | 'key', cause: Error) {
    super(
      'credential.unreadable',
      'The vault refuses to open this stored credential: it was removed, its encryption key is disabled, or it was altered. ' +
        'Nothing else was used in its place. Store the credential again and delete this one; the operator finds the cause under this request id.',
      { cause },
    );
    this.of = of;
  }
}

/** Where a ciphertext lies. */
export type PutVersion = Pick<SealedVersion, 'secretName' | 'secretVersionId'>;

/**
 * The version of an existing secret that is to hold a new ciphertext. `kmsKeyArn` is that of the version it replaces, because Secrets Manager
 * encrypts every version of a secret under the secret's key, whatever is configured since; a re-wrap moves both at one time.
 */
export type NextVersion = PutVersion & Pick<SealedVersion, 'kmsKeyArn'>;

/** Which version of a secret bears which label of Secrets Manager; nothing reads by them, people do. */
export interface VersionLabels {
  current: string;
  /** None: the label is taken off. */
  previous?: string | undefined;
  /** The only one that may bear AWSPENDING; none: the label is taken off. */
  pending?: string | undefined;
}

/**
 * Where secrets lie: ciphertext in Secrets Manager, the right to unwrap its key in KMS, the wrapped key with the caller.
 * Any one of the three alone opens nothing.
 */
export interface SecretVault {
  /**
   * @param announce called with the secret's name before it is created; what it throws ends the sealing.
   * @throws ServiceError vault.unavailable; nothing usable was stored then. Cost: one KMS call, one Secrets Manager call.
   */
  seal(
    place: SecretPlace,
    credential: StoredMaterial,
    announce: (secretName: string) => Promise<void>,
  ): Promise<SealedVersion>;
  /**
   * The same into a secret that exists, as a version that is labelled pending. `next.secretVersionId` names the attempt: repeated, it is the same.
   * @throws ServiceError vault.unavailable | credential.unreadable when the secret is gone; nothing usable was stored then.
   */
  sealNext(place: SecretPlace, credential: StoredMaterial, next: NextVersion): Promise<SealedVersion>;
  /** Moves the labels to where they belong; those that are there stay. Of a secret that is gone there are none. @throws ServiceError vault.unavailable */
  relabel(secretName: string, labels: VersionLabels): Promise<void>;
  /**
   * @throws VaultSilence (try again), VaultRefusal (it will not get better by itself), ServiceError vault.unavailable (the service's own
   * identity was refused).
   * Cost: one KMS call, one Secrets Manager call.
   */
  open(place: SecretPlace, sealed: SealedVersion): Promise<StoredMaterial>;
  /**
   * Removes the ciphertext: `in-7-days` leaves AWS's recovery window, `now` is for what never came into use. Gone already is fine.
   * @throws ServiceError vault.unavailable
   */
  discard(secretName: string, when: 'in-7-days' | 'now'): Promise<void>;
}
