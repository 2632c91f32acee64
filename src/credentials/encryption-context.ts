import type { EnvelopeContext } from './envelope.ts';
import type { SecretPlace } from './secret-vault.ts';

/** What the data key of a place is bound to, in KMS and in the envelope. One that differs in a byte opens nothing. */
export function encryptionContextOf(environment: string, place: SecretPlace): EnvelopeContext {
  return {
    app: 'mbk',
    env: environment,
    merchant_id: place.merchantId,
    credential_id: place.credentialId,
    version: String(place.version),
    purpose: 'aws-credential',
  };
}
