import type { CredentialId } from './ids.ts';
import type { Secret } from './secret.ts';

/** Where the keys of a call came from. Stored in every ledger row and sent as `x-bedrock-credential-source`. */
export const CREDENTIAL_SOURCES = ['direct', 'stored', 'session', 'service-default'] as const;
export type CredentialSource = (typeof CREDENTIAL_SOURCES)[number];

export const CREDENTIAL_KINDS = ['access-key', 'bedrock-api-key', 'assume-role'] as const;
export type CredentialKind = (typeof CREDENTIAL_KINDS)[number];

/**
 * Only an `active` credential signs calls. `pending` waits for its proof, `unsafe` failed it, `frozen` was stopped and can be thawed.
 * Deleted ones are not shown.
 */
export const CREDENTIAL_STATES = ['pending', 'active', 'unsafe', 'frozen'] as const;
export type CredentialState = (typeof CREDENTIAL_STATES)[number];

/** An AWS key pair. `accessKeyId` is an identifier, not a secret, but is shown only as prefix and last four. */
export interface AccessKey {
  kind: 'access-key';
  accessKeyId: string;
  secretAccessKey: Secret;
  sessionToken?: Secret;
}

/** A Bedrock API key, sent to AWS as a bearer token. */
export interface BedrockApiKey {
  kind: 'bedrock-api-key';
  apiKey: Secret;
}

/**
 * A role of the merchant's that this service assumes. It signs nothing itself: its sessions do, which are access keys. Neither part is a
 * secret; it lies in the vault all the same, so that every kind is opened, recorded and destroyed in one way.
 */
export interface AssumableRole {
  kind: 'assume-role';
  /** `arn:aws:iam::<account>:role/<path and name>` */
  roleArn: string;
  /** What the role's trust policy asks for; drawn by this service, for this credential. */
  externalId: string;
}

/** What signs a call. */
export type AwsCredential = AccessKey | BedrockApiKey;

/** What lies in the vault. */
export type StoredMaterial = AwsCredential | AssumableRole;

/** Who AWS says a credential is. `accountId` is undefined for Bedrock API keys where AWS does not tell. */
export interface AwsIdentity {
  accountId: string | undefined;
  arn: string | undefined;
}

/** The outcome of the credential choice: always says source, region and account. Built only by credentials/resolve.ts. */
export interface ResolvedCredential {
  source: CredentialSource;
  region: string;
  /** 12 digits; undefined only for a Bedrock API key whose account AWS does not reveal. */
  accountId: string | undefined;
  credential: AwsCredential;
  /** Names the client in the pool: unique per merchant, credential version (or keyed hash of direct keys). Not a secret. */
  poolKey: string;
  /** Stored credentials only. */
  credentialId?: CredentialId;
  version?: number;
}

/** `AKIA…WXYZ`: enough to recognise a key in an audit record, not enough to use it. */
export function accessKeyHint(accessKeyId: string): string {
  return `${accessKeyId.slice(0, 4)}…${accessKeyId.slice(-4)}`;
}
