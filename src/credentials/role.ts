import { z } from 'zod';
import { randomBase62 } from '../domain/ids.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';

/*
 * What a role is called, and what we say of ourselves when we assume it. Pure. Grammars: API reference of AWS STS, "AssumeRole"; IAM user
 * guide, "IAM and AWS STS quotas".
 */

const ROLE_ARN = /^arn:aws:iam::(\d{12}):role\/(?:[\w+=,.@/-]{1,510}\/)?([\w+=,.@-]{1,64})$/;
const SESSION_NAME_MAX = 64;
const TAG_VALUE_MAX = 256;

/** The ARN of a role, as a request gives it. */
export const roleArn = z
  .string()
  .regex(
    ROLE_ARN,
    'must be the ARN of a role, such as arn:aws:iam::111122223333:role/merchant-bedrock, and not that of a session',
  );

/** 256 random bits: nobody comes to it by guessing, and no two credentials have the same. */
export function newExternalId(): string {
  return `mbk-${randomBase62(43)}`;
}

/** The account of a role's ARN, 12 digits; undefined for what is none. */
export function accountOfRole(arn: string): string | undefined {
  return ROLE_ARN.exec(arn)?.[1];
}

/** What a person recognises a role by: `111122223333:role/merchant-bedrock`. */
export function roleHint(arn: string): string {
  const [, account = '', name = ''] = ROLE_ARN.exec(arn) ?? [];
  return `${account}:role/${name}`;
}

/** Stands in every line that CloudTrail writes of the session, so it is the merchant's id. */
export function sessionNameOf(merchantId: MerchantId): string {
  return sanitised(merchantId, /[^\w+=,.@-]/g, SESSION_NAME_MAX).padEnd(2, '-');
}

/** Session tags, for the merchant's cost reports and for conditions of its policies; roles that a session assumes in turn keep them. */
export function sessionTagsOf(merchantId: MerchantId, credentialId: CredentialId): Record<string, string> {
  const legal = (text: string) => sanitised(text, /[^\p{L}\p{Z}\p{N}_.:/=+\-@]/gu, TAG_VALUE_MAX);
  return { merchant_id: legal(merchantId), credential_id: legal(credentialId) };
}

function sanitised(text: string, illegal: RegExp, max: number): string {
  return Array.from(text.replace(illegal, '-')).slice(0, max).join('');
}

/**
 * Who a trust policy must name, of what GetCallerIdentity says: for a session of a role, its role. A role's path is not told, so a service
 * whose role has one must be given its ARN (SERVICE_PRINCIPAL_ARN).
 */
export function principalOf(callerArn: string): string {
  const [, account, name] = /^arn:aws:sts::(\d{12}):assumed-role\/([^/]+)\/[^/]+$/.exec(callerArn) ?? [];
  return name === undefined ? callerArn : `arn:aws:iam::${account ?? ''}:role/${name}`;
}
