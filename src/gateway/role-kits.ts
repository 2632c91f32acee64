import { INLINE_POLICIES_MAX, policySize } from '../bedrock/policy-document.ts';
import type { PolicyDocument } from '../bedrock/policy-document.ts';
import type { RoleActivation } from '../credentials/role-activation.ts';
import { cloudFormationTemplate, jsonTemplate, terraformTemplate } from '../credentials/role-templates.ts';
import type { StoredCredential } from '../credentials/stored-credential.ts';
import type { PolicyDocument as TrustPolicy } from '../credentials/trust-policy.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';

/** What the role is to allow: these models of a region, all where none is named. @throws ServiceError model.id_invalid */
export type RolePolicyFor = (models: readonly string[], region: string) => PolicyDocument;

/** Everything that a merchant needs to make its role, in the forms that people make roles with; each says the same. No secret. */
export interface RoleKit {
  externalId: string;
  servicePrincipalArn: string;
  roleName: string;
  trustPolicy: TrustPolicy;
  permissionPolicy: PolicyDocument;
  json: string;
  terraform: string;
  cloudFormation: string;
}

/** The trust is the credentials' business, the permissions are Bedrock's; here they become one role. */
export class RoleKits {
  readonly #roles: Pick<RoleActivation, 'setup' | 'checkRegion'>;
  readonly #policyFor: RolePolicyFor;

  constructor(roles: Pick<RoleActivation, 'setup' | 'checkRegion'>, policyFor: RolePolicyFor) {
    this.#roles = roles;
    this.#policyFor = policyFor;
  }

  /**
   * Whether a kit can be made, before anything is stored for it.
   * @throws ServiceError region.not_allowed | model.id_invalid | request.invalid (more models than a role holds) | upstream.unreachable
   */
  async check(region: string, models: readonly string[] = []): Promise<void> {
    this.#fitting(models, region);
    await this.#roles.checkRegion(region);
  }

  /** @throws ServiceError model.id_invalid | request.invalid (more models than a role holds) | credential.not_usable (of another kind) | upstream.unreachable */
  async of(
    merchantId: MerchantId,
    credential: Pick<StoredCredential, 'id' | 'externalId' | 'region'>,
    models: readonly string[] = [],
  ): Promise<RoleKit> {
    const permissionPolicy = this.#fitting(models, credential.region);
    const setup = await this.#roles.setup(merchantId, credential);
    const { externalId, principalArn: servicePrincipalArn, roleName, trustPolicy } = setup;
    const role = { roleName, trustPolicy, permissionPolicy };
    return {
      externalId,
      servicePrincipalArn,
      ...role,
      json: jsonTemplate(role),
      terraform: terraformTemplate(role),
      cloudFormation: cloudFormationTemplate(role),
    };
  }

  /** The policy stands in the role itself: IAM would refuse a longer one. */
  #fitting(models: readonly string[], region: string): PolicyDocument {
    const policy = this.#policyFor(models, region);
    const size = policySize(policy);
    if (size <= INLINE_POLICIES_MAX) return policy;
    throw new ServiceError(
      'request.invalid',
      `The policy for these models has ${size.toLocaleString('en')} characters, and a role holds ${INLINE_POLICIES_MAX.toLocaleString('en')}. Name fewer models, or none, which allows all of the region.`,
    );
  }
}
