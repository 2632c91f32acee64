import type { AwsCredential } from '../domain/credential.ts';

/** What AWS said to each question: allowed, denied, or nothing that says which. */
export type Probed = Readonly<Record<string, 'allowed' | 'denied' | 'unknown'>>;

/** Asks AWS what a credential may do, by questions that cost nothing. */
export interface PermissionProbes {
  /** By IAM action. Never throws: what cannot be asked is unknown. Cost: three reads of Bedrock's control plane. */
  ask(credential: AwsCredential, region: string): Promise<Probed>;
}

/** What the version before might and the new one may not, in words for the merchant. */
export function lostPermissions(before: Probed, after: Probed): string[] {
  return Object.entries(before)
    .filter(([action, answer]) => answer === 'allowed' && after[action] === 'denied')
    .map(
      ([action]) =>
        `The new credential is denied ${action}, which the one before was allowed. Calls may fail: compare the policies of the two, or roll back.`,
    );
}
