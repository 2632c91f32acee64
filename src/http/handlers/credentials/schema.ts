import { z } from 'zod';
import type { CredentialInput } from '../../../credentials/prepared-credential.ts';
import { notFound } from '../../../credentials/credential-state.ts';
import type { StoredCredential } from '../../../credentials/stored-credential.ts';
import { CREDENTIAL_FIELDS } from '../../../domain/credential-choice.ts';
import type { AwsCredential } from '../../../domain/credential.ts';
import { CREDENTIAL_KINDS, CREDENTIAL_STATES } from '../../../domain/credential.ts';
import { parseCredentialId } from '../../../domain/ids.ts';
import type { CredentialId } from '../../../domain/ids.ts';
import { Secret } from '../../../domain/secret.ts';
import { name, region } from '../../schemas.ts';

/** AWS publishes no grammar: long-lived ones begin with ABSK, short-lived ones with bedrock-api-key-; both are printable and without spaces. */
const bedrockApiKey = z
  .string()
  .regex(/^[\x21-\x7e]{20,8192}$/, 'must be a Bedrock API key: 20 to 8192 characters without spaces');
/** Models that a role's policy is made for. */
export const MODELS_MAX = 50;
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
  // No externalId: who could choose it could choose another merchant's. No makeDefault: it cannot sign before it is activated.
  z.strictObject({
    kind: z.literal('assume-role'),
    name,
    region,
    models: z.array(z.string().min(1)).max(MODELS_MAX).optional(),
  }),
]);
export type NewCredential = z.infer<typeof newCredential>;

/** The secrets of the request, in the type that does not print. */
export function materialOf(body: NewMaterial): AwsCredential;
export function materialOf(body: NewCredential): CredentialInput['material'];
export function materialOf(body: NewCredential | NewMaterial): CredentialInput['material'] {
  if (body.kind === 'assume-role') return { kind: body.kind };
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
  externalId: z.string().nullable(),
  keyHint: z.string(),
  version: z.int(),
  isDefault: z.boolean(),
  createdAt: z.string(),
  rotationDueAt: z.string().nullable(),
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
    externalId: stored.externalId ?? null,
    createdAt: stored.createdAt.toISOString(),
    rotationDueAt: stored.rotationDueAt?.toISOString() ?? null,
    testedAt: stored.testedAt?.toISOString() ?? null,
    testResult: stored.testResult ?? null,
  };
}

const policyDocument = z.object({ Version: z.literal('2012-10-17'), Statement: z.array(z.looseObject({})) });

/** How to make the role of a credential: two documents, and the same as files. */
export const roleKit = z.object({
  externalId: z.string(),
  servicePrincipalArn: z.string(),
  roleName: z.string(),
  trustPolicy: policyDocument,
  permissionPolicy: policyDocument,
  json: z.string(),
  terraform: z.string(),
  cloudFormation: z.string(),
});

/** The same answer for what does not exist, was deleted, or is another merchant's. */
export function credentialIdOf(text: string | undefined): CredentialId {
  const id = parseCredentialId(text ?? '');
  if (id === undefined) throw notFound();
  return id;
}
