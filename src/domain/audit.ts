import type { CredentialSource } from './credential.ts';
import type { CredentialId, MerchantId } from './ids.ts';

/** What the audit trail records. A closed list: docs and verifier know every one. */
export const AUDIT_ACTIONS = [
  'merchant.created',
  'token.created',
  'token.revoked',
  'token.rolled',
  'credential.created',
  'credential.opened',
  'credential.used_stale',
  'credential.tested',
  'credential.activated',
  'credential.unsafe',
  'permissions.tested',
  'environment.tested',
  'credential.deleted',
  'credential.made_default',
  'credential.frozen',
  'credential.thawed',
  'credential.rotation_started',
  'credential.rotated',
  'credential.rotation_failed',
  'credential.rolled_back',
  'credential.version_retired',
  'credential.key_deactivated',
  'credential.key_deleted',
  'credential.key_left',
  'credential.account_approved',
  'session.created',
  'aws.asked',
  'call.admitted',
  'call.settled',
  'call.void',
  'call.unknown',
  'call.decided',
  'merchant.stopped',
  'limits.set',
  'plan.created',
  'merchant.updated',
  'merchant.closed',
  'webhook.created',
  'webhook.deleted',
  'webhook.disabled',
  'webhook.tested',
  'webhook.replayed',
  'keys.rewrapped',
  'prices.imported',
  'calls.rerated',
  'calls.retired',
  'audit.read',
  'access.denied',
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

/** One thing that was done or refused. `body` holds identifiers and numbers only, never a secret or a prompt. */
export interface AuditEntry {
  /** Who: `api-key:<id>`, `jwt:<sub>`, `operator:<id>`, `dev:<user>`. */
  actor: string;
  action: AuditAction;
  /** What it was done to, e.g. `credential/cred_…`. */
  resource: string;
  outcome: 'allowed' | 'denied' | 'failed';
  requestId: string;
  body?: Readonly<Record<string, string | number | boolean | null | readonly string[]>>;
}

/** Who asks, carried from the request to everything that writes an audit record. */
export interface Actor {
  subject: string;
  requestId: string;
}

/** Takes the record of what is about to be done. @throws ServiceError ledger.unavailable: then it must not be done. */
export interface AuditTrail {
  append(merchantId: MerchantId, entry: AuditEntry): Promise<void>;
}

/** Whose a credential is; a session of a role, or whether it lets us in; what a model is; how many tokens a prompt has; model invocation logs; the access keys of an IAM user; what a credential may do, without a call. */
export type AskedAbout = 'identity' | 'role' | 'model' | 'tokens' | 'logs' | 'keys' | 'permissions';

/** The record of a question to AWS that is no paid call: append it, then ask. */
export function askingAws(
  { subject, requestId }: Actor,
  about: AskedAbout,
  { source, credentialId }: { source: CredentialSource; credentialId?: CredentialId },
): AuditEntry {
  return {
    actor: subject,
    action: 'aws.asked',
    resource: credentialId === undefined ? source : `credential/${credentialId}`,
    outcome: 'allowed',
    requestId,
    body: { about, source },
  };
}

/** The chain of operators' own deeds. Not a legal merchant id, so no merchant can have it. */
export const SYSTEM_CHAIN = '~system';
