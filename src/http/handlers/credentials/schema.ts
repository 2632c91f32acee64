import { z } from 'zod';
import type { StoredCredential } from '../../../credentials/stored-credential.ts';
import { CREDENTIAL_FIELDS } from '../../../domain/credential-choice.ts';
import { CREDENTIAL_KINDS, CREDENTIAL_STATES } from '../../../domain/credential.ts';
import type { AwsCredential } from '../../../domain/credential.ts';
import { ServiceError } from '../../../domain/errors.ts';
import { parseCredentialId } from '../../../domain/ids.ts';
import type { CredentialId } from '../../../domain/ids.ts';
import { Secret } from '../../../domain/secret.ts';
import { name, region } from '../../schemas.ts';

/** AWS publishes no grammar: long-lived ones begin with ABSK, short-lived ones with bedrock-api-key-; both are printable and without spaces. */
const bedrockApiKey = z
  .string()
  .regex(/^[\x21-\x7e]{20,8192}$/, 'must be a Bedrock API key: 20 to 8192 characters without spaces');
const common = { name, region, makeDefault: z.boolean().optional() };
const accessKeyFields = {
  kind: z.literal('access-key'),
  awsAccessKeyId: CREDENTIAL_FIELDS.awsAccessKeyId,
  awsSecretAccessKey: CREDENTIAL_FIELDS.awsSecretAccessKey,
  awsSessionToken: CREDENTIAL_FIELDS.awsSessionToken.optional(),
};
const bedrockApiKeyFields = { kind: z.literal('bedrock-api-key'), bedrockApiKey };

/** What proves, and nothing else. */
export const newMaterial = z.discriminatedUnion('kind', [
  z.strictObject(accessKeyFields),
  z.strictObject(bedrockApiKeyFields),
]);
export type NewMaterial = z.infer<typeof newMaterial>;

/** A credential as a merchant gives it. Secrets go in here and never come out: no reply schema has a place for them. */
export const newCredential = z.discriminatedUnion('kind', [
  z.strictObject({ ...accessKeyFields, ...common }),
  z.strictObject({ ...bedrockApiKeyFields, ...common }),
]);
export type NewCredential = z.infer<typeof newCredential>;

/** The secrets of the request, in the type that does not print. */
export function materialOf(body: NewMaterial): AwsCredential {
  if (body.kind === 'bedrock-api-key') return { kind: body.kind, apiKey: new Secret(body.bedrockApiKey) };
  return {
    kind: body.kind,
    accessKeyId: body.awsAccessKeyId,
    secretAccessKey: new Secret(body.awsSecretAccessKey),
    ...(body.awsSessionToken !== undefined && { sessionToken: new Secret(body.awsSessionToken) }),
  };
}

export const credentialReply = z.object({
  id: z.string(),
  name: z.string(),
  kind: z.enum(CREDENTIAL_KINDS),
  state: z.enum(CREDENTIAL_STATES),
  region: z.string(),
  accountId: z.string().nullable(),
  principalArn: z.string().nullable(),
  keyHint: z.string(),
  version: z.int(),
  isDefault: z.boolean(),
  createdAt: z.string(),
  testedAt: z.string().nullable(),
  testResult: z.string().nullable(),
});

/** A stored credential as JSON: what is not known is null. */
export function toCredentialReply(stored: StoredCredential): z.infer<typeof credentialReply> {
  const { createdBy: _createdBy, ...rest } = stored;
  return {
    ...rest,
    accountId: stored.accountId ?? null,
    principalArn: stored.principalArn ?? null,
    createdAt: stored.createdAt.toISOString(),
    testedAt: stored.testedAt?.toISOString() ?? null,
    testResult: stored.testResult ?? null,
  };
}

/** The same answer for what does not exist, was deleted, or is another merchant's. */
export function credentialIdOf(text: string | undefined): CredentialId {
  const id = parseCredentialId(text ?? '');
  if (id === undefined)
    throw new ServiceError(
      'credential.not_found',
      'This merchant has no such credential. GET /credentials lists those it has.',
    );
  return id;
}
