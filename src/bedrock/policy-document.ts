/**
 * An IAM policy as JSON, of the parts that we write: Allow only, no wildcards but `*` for actions that know no resource. A role that is yet to
 * be made has more: its account is not known (gateway/role-policy.ts).
 */
export interface PolicyDocument {
  Version: '2012-10-17';
  Statement: PolicyStatement[];
}

export interface PolicyStatement {
  Sid: string;
  Effect: 'Allow';
  Action: IamAction[];
  Resource: string[];
  /** The profiles through which alone the models of `Resource` may be called. */
  Condition?: { ArnLike: { 'bedrock:InferenceProfileArn': string[] } };
}

/**
 * Every IAM action that we ever ask for; one that IAM does not have makes a policy that grants less than it says. Converse, ConverseStream,
 * StartAsyncInvoke and calls of provisioned models have none of their own. Source: service authorization reference of Amazon Bedrock.
 */
export const IAM_ACTIONS = [
  'bedrock:InvokeModel',
  'bedrock:InvokeModelWithResponseStream',
  'bedrock:CountTokens',
  'bedrock:CallWithBearerToken',
  'bedrock:ListFoundationModels',
  'bedrock:ListInferenceProfiles',
  'bedrock:GetFoundationModelAvailability',
  'bedrock:GetFoundationModel',
  'bedrock:GetInferenceProfile',
  'bedrock:GetProvisionedModelThroughput',
] as const;
export type IamAction = (typeof IAM_ACTIONS)[number];

/** Characters that IAM allows, white space not counted: of a managed policy, and of all that stand in a role itself. */
export const MANAGED_POLICY_MAX = 6_144;
export const INLINE_POLICIES_MAX = 10_240;

/** Characters as IAM counts them: without white space. */
export function policySize(policy: PolicyDocument): number {
  return JSON.stringify(policy).length;
}
