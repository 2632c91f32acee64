import type { InvocationLogs } from '../domain/invocation-logs.ts';

/*
 * What the sessions of merchants' roles may do, whatever the role allows: a session never has more than both. From the one that says most to
 * the shortest: where AWS cannot pack a policy with its tags, the next is taken; a session without a policy is never asked for.
 */
export type SessionPolicies = readonly [string, ...string[]];

/** Characters of a session policy. Source: API reference of AWS STS, "AssumeRole", Policy. */
export const SESSION_POLICY_MAX = 2_048;

/**
 * Calls, with the guardrails and stored prompts that they may name, and what this service asks AWS about them: which model stands behind an ARN,
 * and how many tokens a prompt has. Source of the actions: Bedrock user guide, "Prerequisites for running model inference".
 */
const CALL_ACTIONS = [
  'bedrock:InvokeModel',
  'bedrock:InvokeModelWithResponseStream',
  'bedrock:CountTokens',
  'bedrock:ApplyGuardrail',
  'bedrock:RenderPrompt',
  'bedrock:GetFoundationModel',
  'bedrock:GetFoundationModelAvailability',
  'bedrock:GetInferenceProfile',
  'bedrock:GetProvisionedModelThroughput',
  'bedrock:ListFoundationModels',
  'bedrock:ListInferenceProfiles',
];

/** The same calls, and of the questions only those that a call needs. */
const CALL_ACTIONS_SHORT = [
  'bedrock:InvokeModel*',
  'bedrock:CountTokens',
  'bedrock:ApplyGuardrail',
  'bedrock:RenderPrompt',
  'bedrock:GetInferenceProfile',
  'bedrock:GetProvisionedModelThroughput',
];

/** The role's own policy names the models; this one keeps a role that allows more than Bedrock from being used for it. */
export const CALL_POLICIES: SessionPolicies = [
  policy([allow(CALL_ACTIONS, '*')]),
  policy([allow(CALL_ACTIONS_SHORT, '*')]),
];

/** For asking whether a role can be assumed at all: a session that may do nothing. */
export const NO_POLICIES: SessionPolicies = [policy([{ Effect: 'Deny', Action: ['*'], Resource: ['*'] }])];

/** Reading the merchant's own invocation logs, and nothing else. */
export function logPolicies(logs: InvocationLogs): SessionPolicies {
  if ('cloudWatch' in logs)
    return [
      policy([allow(['logs:FilterLogEvents'], `arn:aws:logs:*:*:log-group:${logs.cloudWatch.logGroup}:*`)]),
    ];
  const { bucket, prefix } = logs.s3;
  return [
    policy([
      allow(['s3:ListBucket'], `arn:aws:s3:::${bucket}`),
      allow(['s3:GetObject'], `arn:aws:s3:::${bucket}/${prefix === undefined ? '' : `${prefix}/`}*`),
      {
        ...allow(['kms:Decrypt'], '*'),
        Condition: { StringLike: { 'kms:ViaService': 's3.*.amazonaws.com' } },
      },
    ]),
  ];
}

interface Statement {
  Effect: 'Allow' | 'Deny';
  Action: readonly string[];
  Resource: readonly string[];
  Condition?: Record<string, Record<string, string>>;
}

function allow(actions: readonly string[], resource: string): Statement {
  return { Effect: 'Allow', Action: actions, Resource: [resource] };
}

function policy(statements: readonly Statement[]): string {
  return JSON.stringify({ Version: '2012-10-17', Statement: statements });
}
