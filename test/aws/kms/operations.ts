import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { open, seal, sealedBy } from './ciphertext.ts';
import { usable } from './keys.ts';
import { getPublicKey, signMessage, verifySignature } from './signing.ts';
import { amzJson } from '../wire/answer.ts';
import { AwsError, validationError } from '../wire/errors.ts';
import { parseBody } from '../wire/body.ts';
import type { KmsKey } from './keys.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

type Operation = (call: Call, world: World) => Answer;

const ALGORITHM = 'SYMMETRIC_DEFAULT';
/** Limits of KMS. */
const PLAINTEXT_BYTES_MAX = 4096;
const DATA_KEY_BYTES_MAX = 1024;

const context = z.record(z.string(), z.string()).optional();
const blob = z.base64().min(1);
const generateShape = z.looseObject({
  KeyId: z.string(),
  KeySpec: z.enum(['AES_128', 'AES_256']).optional(),
  NumberOfBytes: z.int().min(1).max(DATA_KEY_BYTES_MAX).optional(),
  EncryptionContext: context,
});
const encryptShape = z.looseObject({ KeyId: z.string(), Plaintext: blob, EncryptionContext: context });
const decryptShape = z.looseObject({
  CiphertextBlob: blob,
  KeyId: z.string().optional(),
  EncryptionContext: context,
});
const reEncryptShape = z.looseObject({
  CiphertextBlob: blob,
  SourceKeyId: z.string().optional(),
  SourceEncryptionContext: context,
  DestinationKeyId: z.string(),
  DestinationEncryptionContext: context,
});
const describeShape = z.looseObject({ KeyId: z.string() });

const generateDataKey: Operation = (call, { kms }) => {
  const body = parseBody(generateShape, call.request.body);
  if ((body.KeySpec === undefined) === (body.NumberOfBytes === undefined))
    throw validationError('Please specify either number of bytes or key spec.');
  const key = encrypting(kms.find(body.KeyId, call.signer));
  const plaintext = randomBytes(body.NumberOfBytes ?? (body.KeySpec === 'AES_128' ? 16 : 32));
  const sealed = seal(key, plaintext, body.EncryptionContext ?? {});
  const withPlaintext = call.operation === 'GenerateDataKey' && { Plaintext: plaintext.toString('base64') };
  return amzJson({ CiphertextBlob: sealed.toString('base64'), ...withPlaintext, KeyId: key.arn });
};

const encrypt: Operation = (call, { kms }) => {
  const body = parseBody(encryptShape, call.request.body);
  const plaintext = Buffer.from(body.Plaintext, 'base64');
  if (plaintext.length > PLAINTEXT_BYTES_MAX)
    throw validationError(
      "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
    );
  const key = encrypting(kms.find(body.KeyId, call.signer));
  const sealed = seal(key, plaintext, body.EncryptionContext ?? {});
  return amzJson({
    CiphertextBlob: sealed.toString('base64'),
    KeyId: key.arn,
    EncryptionAlgorithm: ALGORITHM,
  });
};

const decrypt: Operation = (call, world) => {
  const body = parseBody(decryptShape, call.request.body);
  const sealed = Buffer.from(body.CiphertextBlob, 'base64');
  const key = keyOf(sealed, body.KeyId, call, world);
  const plaintext = open(key, sealed, body.EncryptionContext ?? {});
  return amzJson({ KeyId: key.arn, Plaintext: plaintext.toString('base64'), EncryptionAlgorithm: ALGORITHM });
};

const reEncrypt: Operation = (call, world) => {
  const body = parseBody(reEncryptShape, call.request.body);
  const sealed = Buffer.from(body.CiphertextBlob, 'base64');
  const source = keyOf(sealed, body.SourceKeyId, call, world);
  const destination = encrypting(world.kms.find(body.DestinationKeyId, call.signer));
  const plaintext = open(source, sealed, body.SourceEncryptionContext ?? {});
  return amzJson({
    CiphertextBlob: seal(destination, plaintext, body.DestinationEncryptionContext ?? {}).toString('base64'),
    SourceKeyId: source.arn,
    KeyId: destination.arn,
    SourceEncryptionAlgorithm: ALGORITHM,
    DestinationEncryptionAlgorithm: ALGORITHM,
  });
};

const describeKey: Operation = (call, { kms }) => {
  const key = kms.find(parseBody(describeShape, call.request.body).KeyId, call.signer);
  return amzJson({
    KeyMetadata: {
      AWSAccountId: key.accountId,
      Arn: key.arn,
      KeyId: key.keyId,
      CreationDate: 1_735_689_600,
      Enabled: key.state === 'Enabled',
      KeyState: key.state,
      KeyUsage: key.spec === ALGORITHM ? 'ENCRYPT_DECRYPT' : 'SIGN_VERIFY',
      KeySpec: key.spec,
      CustomerMasterKeySpec: key.spec,
      ...(key.spec === ALGORITHM
        ? { EncryptionAlgorithms: [ALGORITHM] }
        : { SigningAlgorithms: ['ECDSA_SHA_256'] }),
      KeyManager: 'CUSTOMER',
      Origin: 'AWS_KMS',
      MultiRegion: false,
      Description: '',
    },
  });
};

/** @throws AwsError as KMS for a key that signs */
function encrypting(key: KmsKey): KmsKey {
  if (usable(key).spec === ALGORITHM) return key;
  throw new AwsError('InvalidKeyUsageException', `${key.arn} key usage is SIGN_VERIFY.`);
}

/** The key inside the blob; a `KeyId` in the request must name the same one. */
function keyOf(sealed: Buffer, keyId: string | undefined, call: Call, { kms }: World): KmsKey {
  const arn = sealedBy(sealed);
  if (keyId !== undefined && kms.find(keyId, call.signer).arn !== arn) {
    throw new AwsError(
      'IncorrectKeyException',
      'The key ID in the request does not identify a CMK that can perform this operation.',
    );
  }
  // AWS does not tell a key of another region from bytes that are no ciphertext.
  if (!kms.byArn(arn) || arn.split(':')[3] !== call.signer.region)
    throw new AwsError('InvalidCiphertextException', '');
  return usable(kms.find(arn, call.signer));
}

export const KMS_OPERATIONS: Readonly<Record<string, Operation>> = {
  GenerateDataKey: generateDataKey,
  GenerateDataKeyWithoutPlaintext: generateDataKey,
  Encrypt: encrypt,
  Decrypt: decrypt,
  ReEncrypt: reEncrypt,
  DescribeKey: describeKey,
  Sign: signMessage,
  Verify: verifySignature,
  GetPublicKey: getPublicKey,
};
