import { createECDH, createHash, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { z } from 'zod';
import { parseBody } from '../wire/body.ts';
import { amzJson } from '../wire/answer.ts';
import { AwsError } from '../wire/errors.ts';
import { usable } from './keys.ts';
import type { KmsKey } from './keys.ts';
import type { Call, World } from '../call.ts';
import type { Answer } from '../wire/answer.ts';

const ALGORITHM = 'ECDSA_SHA_256';
/** Limit of KMS for messages that it hashes itself. */
const MESSAGE_BYTES_MAX = 4096;

const blob = z.base64().min(1);
const signShape = z.looseObject({
  KeyId: z.string(),
  Message: blob,
  MessageType: z.literal('RAW').default('RAW'),
  SigningAlgorithm: z.literal(ALGORITHM),
});
const verifyShape = signShape.extend({ Signature: blob });
const keyShape = z.looseObject({ KeyId: z.string() });

/** On P-256; its private half is derived from the ARN, so that signatures verify after a restart too. */
function privateKeyOf({ arn }: KmsKey): KeyObject {
  const d = createHash('sha256').update(`stand-in kms signing ${arn}`).digest();
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(d);
  const point = curve.getPublicKey();
  const part = (bytes: Buffer) => bytes.toString('base64url');
  const jwk = {
    kty: 'EC',
    crv: 'P-256',
    d: part(d),
    x: part(point.subarray(1, 33)),
    y: part(point.subarray(33)),
  };
  return createPrivateKey({ key: jwk, format: 'jwk' });
}

/** @throws AwsError as KMS for a key that cannot sign */
function signingKey(id: string, call: Call, { kms }: World): KmsKey {
  const key = usable(kms.find(id, call.signer));
  if (key.spec === 'ECC_NIST_P256') return key;
  throw new AwsError(
    'UnsupportedOperationException',
    `${key.arn} key usage is ENCRYPT_DECRYPT which is not valid for ${call.operation}.`,
  );
}

function message(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length > MESSAGE_BYTES_MAX) throw new AwsError('ValidationException', 'Message is too long.');
  return bytes;
}

export function signMessage(call: Call, world: World): Answer {
  const body = parseBody(signShape, call.request.body);
  const key = signingKey(body.KeyId, call, world);
  const signature = sign('sha256', message(body.Message), privateKeyOf(key));
  return amzJson({ KeyId: key.arn, Signature: signature.toString('base64'), SigningAlgorithm: ALGORITHM });
}

export function verifySignature(call: Call, world: World): Answer {
  const body = parseBody(verifyShape, call.request.body);
  const key = signingKey(body.KeyId, call, world);
  const publicKey = createPublicKey(privateKeyOf(key));
  if (!verify('sha256', message(body.Message), publicKey, Buffer.from(body.Signature, 'base64')))
    throw new AwsError('KMSInvalidSignatureException', '');
  return amzJson({ KeyId: key.arn, SignatureValid: true, SigningAlgorithm: ALGORITHM });
}

export function getPublicKey(call: Call, world: World): Answer {
  const key = signingKey(parseBody(keyShape, call.request.body).KeyId, call, world);
  const der = createPublicKey(privateKeyOf(key)).export({ type: 'spki', format: 'der' });
  return amzJson({
    KeyId: key.arn,
    KeySpec: key.spec,
    CustomerMasterKeySpec: key.spec,
    KeyUsage: 'SIGN_VERIFY',
    PublicKey: der.toString('base64'),
    SigningAlgorithms: [ALGORITHM],
  });
}
