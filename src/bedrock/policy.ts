import { ServiceError } from '../domain/errors.ts';
import type { Operation } from '../domain/usage.ts';
import type { IamAction, PolicyDocument, PolicyStatement } from './policy-document.ts';

/**
 * What a policy is asked for. `modelArns` are those that AWS lists behind the profile: the foundation model in every region that it may
 * route to. The region that a profile is called in is that of its ARN.
 */
export type PolicyTarget =
  | { kind: 'foundation-model'; modelId: string; region: string }
  | { kind: 'inference-profile'; arn: string; modelArns: readonly string[] }
  | { kind: 'application-inference-profile'; arn: string; modelArns: readonly string[] }
  /** Names itself in a policy, and nothing behind it: provisioned-model, custom-model-deployment, imported-model. */
  | { kind: 'owned'; arn: string };

/**
 * `invoke`: InvokeModel and Converse. `stream`: the same as streams. `describe`: what this service asks about a model before it is called.
 * `discover`: lists, and whether the account may use a model. `bearer`: being called with a Bedrock API key.
 */
export const POLICY_USES = ['invoke', 'stream', 'count-tokens', 'describe', 'discover', 'bearer'] as const;
export type PolicyUse = (typeof POLICY_USES)[number];

const ARN =
  /^arn:(?:aws|aws-us-gov|aws-cn):bedrock:([a-z0-9-]{0,20}):([0-9]{12})?:([a-z-]+)\/([a-zA-Z0-9:._/-]{1,255})$/;
/** A foundation model's id: nothing that a policy would read as a pattern or a variable. */
const MODEL_ID = /^[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,3}(?::[a-z0-9-]{1,63}){0,2}$/;
const PROFILES: ReadonlySet<PolicyTarget['kind']> = new Set([
  'inference-profile',
  'application-inference-profile',
]);
const OWNED: ReadonlySet<string> = new Set([
  'provisioned-model',
  'custom-model-deployment',
  'imported-model',
]);

/**
 * The IAM policy that lets a principal do exactly `uses` with `targets`, and nothing else. Models behind a profile are allowed through these
 * profiles only; one statement names all of them, which allows no more than one for each would, since AWS decides what a profile runs.
 * Without wildcards, so it may be long: compare `policySize` with MANAGED_POLICY_MAX.
 * The same targets in any order make the same document.
 * @throws ServiceError model.id_invalid for an id or ARN that is none: what stands in a policy must not be a pattern.
 */
export function leastPrivilegePolicy(ask: {
  targets: readonly PolicyTarget[];
  uses: readonly PolicyUse[];
}): PolicyDocument {
  const targets = ask.targets.map(checked);
  const profiles = targets.filter(isProfile);
  const parts = {
    models: targets.flatMap(ownResource),
    profiles: profiles.map(({ arn }) => arn),
    behind: profiles.flatMap(modelsBehind),
    counted: targets.flatMap(countedModels),
  };
  return policyOf(parts, ask.uses);
}

/** ARNs that a policy is to allow. Here they may be patterns: whoever may not have any checks them before. */
export interface PolicyParts {
  /** What calls name directly, profiles left out. */
  models: readonly string[];
  profiles: readonly string[];
  /** What may be called through `profiles` only. */
  behind: readonly string[];
  /** Models whose tokens may be counted. */
  counted: readonly string[];
}

/** The one form of all our policies. */
export function policyOf(parts: PolicyParts, asked: readonly PolicyUse[]): PolicyDocument {
  const { models, profiles, behind, counted } = parts;
  const uses = new Set(asked);
  const invoking = INVOKING.filter(([use]) => uses.has(use)).map(([, action]) => action);
  const any = models.length + profiles.length > 0;
  return {
    Version: '2012-10-17',
    Statement: [
      ...statement('Models', invoking, models),
      ...statement('Profiles', invoking, profiles),
      // IAM takes ArnLike and ArnEquals for the same.
      ...statement('ModelsBehindProfilesOnly', invoking, behind, {
        ArnLike: { 'bedrock:InferenceProfileArn': sorted(profiles) },
      }),
      ...(uses.has('count-tokens') ? statement('CountTokens', ['bedrock:CountTokens'], counted) : []),
      ...(uses.has('describe') ? descriptions(models, profiles) : []),
      ...(uses.has('discover') && any ? statement('Discover', DISCOVER, ['*']) : []),
      ...(uses.has('bearer') ? statement('ApiKey', ['bedrock:CallWithBearerToken'], ['*']) : []),
    ],
  };
}

/** The IAM action behind each operation. */
export const ACTION_OF_OPERATION: Readonly<Record<Operation, IamAction>> = {
  invoke: 'bedrock:InvokeModel',
  converse: 'bedrock:InvokeModel',
  'invoke-with-response-stream': 'bedrock:InvokeModelWithResponseStream',
  'converse-stream': 'bedrock:InvokeModelWithResponseStream',
  'count-tokens': 'bedrock:CountTokens',
};

const INVOKING: readonly (readonly [PolicyUse, IamAction])[] = [
  ['invoke', 'bedrock:InvokeModel'],
  ['stream', 'bedrock:InvokeModelWithResponseStream'],
];
/** None of these knows a resource. */
const DISCOVER: readonly IamAction[] = [
  'bedrock:ListFoundationModels',
  'bedrock:ListInferenceProfiles',
  'bedrock:GetFoundationModelAvailability',
];

type Profile = Extract<PolicyTarget, { modelArns: readonly string[] }>;

function isProfile(target: PolicyTarget): target is Profile {
  return PROFILES.has(target.kind);
}

/** The ARN of a foundation model: of nobody's account. Of `region` '': the one that global profiles name beside the region's own. */
export function foundationModelArn(modelId: string, region: string, partition = 'aws'): string {
  return `arn:${partition}:bedrock:${region}::foundation-model/${modelId}`;
}

/** Throws for anything that is not exactly what it is said to be. */
function checked(target: PolicyTarget): PolicyTarget {
  const legal = target.kind === 'foundation-model' ? isModel(target) : isOfAccount(target);
  if (!legal || (isProfile(target) && !target.modelArns.every(isModelArn))) throw invalid();
  return target;
}

function isModel({ modelId, region }: { modelId: string; region: string }): boolean {
  return MODEL_ID.test(modelId) && /^[a-z0-9-]{1,20}$/.test(region);
}

function isOfAccount({ kind, arn }: Exclude<PolicyTarget, { kind: 'foundation-model' }>): boolean {
  const { region, account, resource } = partsOf(arn);
  const named = kind === 'owned' ? OWNED.has(resource) : resource === kind;
  return named && account !== '' && region !== '';
}

function isModelArn(arn: string): boolean {
  const { account, resource, name } = partsOf(arn);
  return resource === 'foundation-model' && account === '' && MODEL_ID.test(name);
}

function partsOf(arn: string) {
  const [, region = '', account = '', resource = '', name = ''] = ARN.exec(arn) ?? [];
  if (name === '') throw invalid();
  return { partition: arn.split(':')[1] ?? 'aws', region, account, resource, name };
}

function invalid(): ServiceError {
  return new ServiceError('model.id_invalid', 'A policy can only name whole model ids and ARNs.');
}

/** What a call names directly, profiles left out. */
function ownResource(target: PolicyTarget): string[] {
  if (target.kind === 'foundation-model') return [foundationModelArn(target.modelId, target.region)];
  return target.kind === 'owned' ? [target.arn] : [];
}

/**
 * Every model that a profile may run. A global one is checked against the model in the region it is called in and against an ARN without
 * a region, whatever the listing says. Source: 'Prerequisites for inference profiles' of the user guide.
 */
function modelsBehind({ kind, arn, modelArns }: Profile): readonly string[] {
  const { partition, region, name } = partsOf(arn);
  if (kind !== 'inference-profile' || !name.startsWith('global.')) return modelArns;
  const modelId = name.slice('global.'.length);
  return [
    ...modelArns,
    foundationModelArn(modelId, region, partition),
    foundationModelArn(modelId, '', partition),
  ];
}

/** CountTokens takes foundation models only, so for a profile it is asked of its model in the region where the profile is called. */
function countedModels(target: PolicyTarget): string[] {
  if (target.kind === 'foundation-model') return ownResource(target);
  if (target.kind === 'owned') return [];
  const { region, partition } = partsOf(target.arn);
  return target.modelArns.map((arn) => foundationModelArn(partsOf(arn).name, region, partition));
}

function descriptions(models: readonly string[], profiles: readonly string[]): PolicyStatement[] {
  const of = (kind: string) => models.filter((arn) => arn.includes(`:${kind}/`));
  return [
    ...statement('DescribeModels', ['bedrock:GetFoundationModel'], of('foundation-model')),
    ...statement('DescribeProfiles', ['bedrock:GetInferenceProfile'], profiles),
    ...statement('DescribeProvisioned', ['bedrock:GetProvisionedModelThroughput'], of('provisioned-model')),
  ];
}

/** None where there is nothing to allow: IAM refuses a statement with an empty list. */
function statement(
  sid: string,
  actions: readonly IamAction[],
  resources: readonly string[],
  condition?: PolicyStatement['Condition'],
): PolicyStatement[] {
  if (actions.length === 0 || resources.length === 0) return [];
  return [
    {
      Sid: sid,
      Effect: 'Allow',
      Action: [...actions],
      Resource: sorted(resources),
      ...(condition !== undefined && { Condition: condition }),
    },
  ];
}

function sorted(arns: readonly string[]): string[] {
  return [...new Set(arns)].sort();
}
