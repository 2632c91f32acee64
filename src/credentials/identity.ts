import type { AwsCredential, AwsIdentity } from '../domain/credential.ts';

/** Asks AWS who a credential is. Free of charge, needs no permission for access keys. */
export interface IdentityCheck {
  /**
   * @throws ServiceError region.not_allowed | credential.refused_by_aws (says what to fix) | upstream.unreachable
   * Cost: one call of STS (access keys) or of Bedrock's model list (Bedrock API keys).
   */
  checkCredential(credential: AwsCredential, region: string): Promise<AwsIdentity>;
}
