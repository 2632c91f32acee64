import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { AwsError } from '../wire/errors.ts';
import type { KmsKey } from './keys.ts';

export type EncryptionContext = Readonly<Record<string, string>>;

const VERSION = 1;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** AES-256-GCM under the key's material. Layout: version | u8 length of ARN | ARN | iv | tag | ciphertext. */
export function seal(key: KmsKey, plaintext: Buffer, context: EncryptionContext): Buffer {
  const arn = Buffer.from(key.arn);
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key.material, iv);
  cipher.setAAD(associatedData(context));
  const body = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([Buffer.from([VERSION, arn.length]), arn, iv, cipher.getAuthTag(), body]);
}

/** The ARN of the key that sealed this, as KMS reads it from the blob. @throws AwsError InvalidCiphertextException */
export function sealedBy(blob: Buffer): string {
  const length = blob[1] ?? 0;
  if (blob[0] !== VERSION || blob.length < 2 + length + IV_BYTES + TAG_BYTES) throw invalidCiphertext();
  return blob.subarray(2, 2 + length).toString();
}

/** @throws AwsError InvalidCiphertextException, without a message as at AWS, when the bytes or the context are wrong */
export function open(key: KmsKey, blob: Buffer, context: EncryptionContext): Buffer {
  const start = 2 + (blob[1] ?? 0);
  const iv = blob.subarray(start, start + IV_BYTES);
  const tag = blob.subarray(start + IV_BYTES, start + IV_BYTES + TAG_BYTES);
  try {
    const decipher = createDecipheriv('aes-256-gcm', key.material, iv);
    decipher.setAAD(associatedData(context));
    decipher.setAuthTag(tag);
    return Buffer.concat([decipher.update(blob.subarray(start + IV_BYTES + TAG_BYTES)), decipher.final()]);
  } catch {
    throw invalidCiphertext();
  }
}

/** The order of a context's members does not matter. */
function associatedData(context: EncryptionContext): Buffer {
  return Buffer.from(JSON.stringify(Object.entries(context).sort(([a], [b]) => (a < b ? -1 : 1))));
}

function invalidCiphertext(): AwsError {
  return new AwsError('InvalidCiphertextException', '');
}
