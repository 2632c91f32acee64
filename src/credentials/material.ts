import { createHash, createHmac, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { AccessKey, StoredMaterial } from '../domain/credential.ts';
import { accessKeyHint } from '../domain/credential.ts';
import type { MerchantId } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import { roleHint } from './role.ts';

/*
 * A credential as plain bytes: the only place that turns Secrets into something that can be sealed or hashed, and back.
 * Secrets are strings and cannot be wiped (V8 moves them); buffers are wiped by whoever receives them.
 */

const accessKeyForm = z.strictObject({
  kind: z.literal('access-key'),
  accessKeyId: z.string(),
  secretAccessKey: z.string(),
  sessionToken: z.string().optional(),
});
const materialForm = z.discriminatedUnion('kind', [
  accessKeyForm,
  z.strictObject({ kind: z.literal('bedrock-api-key'), apiKey: z.string() }),
  z.strictObject({ kind: z.literal('assume-role'), roleArn: z.string(), externalId: z.string() }),
]);

/** The bytes that go into an envelope. The caller wipes them. */
export function encodeMaterial(credential: StoredMaterial): Buffer {
  return Buffer.from(JSON.stringify(plainForm(credential)), 'utf8');
}

/** @throws Error when the bytes are not what `encodeMaterial` wrote; its message holds none of them. */
export function decodeMaterial(bytes: Buffer): StoredMaterial {
  const material = materialForm.safeParse(parseJson(bytes)).data;
  if (material === undefined) throw new Error('sealed material has an unknown form');
  if (material.kind === 'assume-role') return material;
  if (material.kind === 'bedrock-api-key')
    return { kind: material.kind, apiKey: new Secret(material.apiKey) };
  return {
    kind: material.kind,
    accessKeyId: material.accessKeyId,
    secretAccessKey: new Secret(material.secretAccessKey),
    ...(material.sessionToken === undefined ? {} : { sessionToken: new Secret(material.sessionToken) }),
  };
}

/**
 * What a person recognises a credential by: `AKIA…WXYZ`, or `ABSK…#1a2b3c4d` for a Bedrock API key, where the part after `#` is the
 * beginning of the key's SHA-256 and not of the key: an API key is all secret.
 */
export function keyHint(credential: StoredMaterial): string {
  if (credential.kind === 'assume-role') return roleHint(credential.roleArn);
  if (credential.kind === 'access-key') return accessKeyHint(credential.accessKeyId);
  const apiKey = credential.apiKey.reveal();
  return `${apiKey.slice(0, 4)}…#${createHash('sha256').update(apiKey).digest('hex').slice(0, 8)}`;
}

/**
 * Names keys that are not stored anywhere, without saying what they are: HMAC-SHA-256 under a key of this process.
 * Two merchants that use the same keys get different names, so that nothing is shared between them.
 */
export class KeyedHash {
  readonly #key = randomBytes(32);

  of(merchantId: MerchantId, accessKey: AccessKey): string {
    const fields = [
      merchantId,
      accessKey.accessKeyId,
      accessKey.secretAccessKey.reveal(),
      accessKey.sessionToken?.reveal() ?? '',
    ];
    return createHmac('sha256', this.#key).update(JSON.stringify(fields)).digest('base64url');
  }
}

function plainForm(credential: StoredMaterial): z.input<typeof materialForm> {
  if (credential.kind === 'assume-role') return credential;
  if (credential.kind === 'bedrock-api-key')
    return { kind: credential.kind, apiKey: credential.apiKey.reveal() };
  const { kind, accessKeyId, secretAccessKey, sessionToken } = credential;
  return {
    kind,
    accessKeyId,
    secretAccessKey: secretAccessKey.reveal(),
    ...(sessionToken === undefined ? {} : { sessionToken: sessionToken.reveal() }),
  };
}

/** V8 quotes the text it could not parse, so its error must not travel. */
function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
