import type { CredentialKind, CredentialState } from '../domain/credential.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import type { CredentialId } from '../domain/ids.ts';

/** What is known of a stored credential, and may be shown to its merchant. Has no place for a secret or a wrapped key. */
export interface StoredCredential {
  id: CredentialId;
  name: string;
  kind: CredentialKind;
  state: CredentialState;
  region: string;
  /** Pinned when it was stored or activated; undefined for Bedrock API keys, whose account AWS does not tell. */
  accountId: string | undefined;
  /** Whose keys they are, or the role. */
  principalArn: string | undefined;
  /** Of roles only: what the role's trust policy asks for. No secret. */
  externalId: string | undefined;
  /** Of roles only: how often a proof found it unsafe. */
  unsafeCount: number;
  /** `AKIA…WXYZ`, or `ABSK…#` and eight digits of the SHA-256 of a Bedrock API key, or account and name of a role. */
  keyHint: string;
  /** The current version, from 1; 0 while a role was never activated. */
  version: number;
  /** Used where a request names no credential. */
  isDefault: boolean;
  createdBy: string;
  createdAt: Date;
  /** When the current version has been in use for as long as the settings say; undefined where they say nothing. */
  rotationDueAt: Date | undefined;
  /** The last test; undefined when there was none since it was stored (storing asks AWS, too). */
  testedAt: Date | undefined;
  testResult: TestResult | undefined;
}

/** The part that every call needs. */
export type CurrentVersion = Pick<StoredCredential, 'version' | 'region' | 'accountId'>;

/** `ok`, `account-changed`, or the code of the error that the test ended with. */
export type TestResult = 'ok' | 'account-changed' | ErrorCode;
