import type { AccessKey } from '../domain/credential.ts';
import type { SessionPolicies } from './session-policy.ts';

/** What AssumeRole is asked for. */
export interface AssumeRoleAsk {
  roleArn: string;
  /** Absent only when a proof asks whether the role can do without. */
  externalId?: string;
  region: string;
  sessionName: string;
  tags: Readonly<Record<string, string>>;
  policies: SessionPolicies;
}

/** A session of a role. `lifetimeMs` is by AWS's clock alone: from AWS's answer to AWS's expiration. */
export interface AssumedRole {
  accessKey: AccessKey;
  lifetimeMs: number;
}

/** Assumes roles with the service's own identity. */
export interface RoleAssumer {
  /**
   * @throws ServiceError region.not_allowed | credential.refused_by_aws (`refusal`: role-denied, role-tags, session-policy, region-disabled) |
   * upstream.unreachable | upstream.throttled. Cost: one call of STS, two where the first policy is too large.
   */
  assume(ask: AssumeRoleAsk): Promise<AssumedRole>;
  /**
   * The ARN that a trust policy must name for this service to get in.
   * @throws ServiceError upstream.unreachable. Cost: one call of STS in the life of the process; none where the setting says it.
   */
  ownPrincipal(): Promise<string>;
}
