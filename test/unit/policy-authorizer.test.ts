import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { leastPrivilegePolicy } from '../../src/bedrock/policy.ts';
import type { PolicyTarget, PolicyUse } from '../../src/bedrock/policy.ts';
import { resourcesOf } from '../aws/bedrock/iam-resources.ts';
import { destinations } from '../aws/bedrock/inference-profiles.ts';
import { serves } from '../aws/bedrock/model-id.ts';
import { OwnedModels } from '../aws/bedrock/owned.ts';
import { catalogueModel } from '../aws/catalogue.ts';
import { authorize } from '../aws/identity/authorize.ts';
import { parsePolicy } from '../aws/identity/session-policy.ts';
import type { Signer } from '../aws/identity/key-ring.ts';
import { AwsError } from '../aws/wire/errors.ts';

const ACCOUNT = '111122223333';
const REGIONS = ['us-east-1', 'us-west-2', 'eu-west-1', 'ap-south-1'];
const MODELS = [
  'amazon.nova-micro-v1:0',
  'anthropic.claude-3-haiku-20240307-v1:0',
  'anthropic.claude-sonnet-4-20250514-v1:0',
  'amazon.titan-text-lite-v1',
];
/** Operations of the runtime by what they are used for. */
const OPERATIONS: readonly (readonly [operation: string, use: PolicyUse])[] = [
  ['InvokeModel', 'invoke'],
  ['Converse', 'invoke'],
  ['InvokeModelWithResponseStream', 'stream'],
  ['ConverseStream', 'stream'],
  ['CountTokens', 'count-tokens'],
];

/** Something that can be called, and where. */
interface Callable {
  /** As a request names it. */
  id: string;
  region: string;
  target: PolicyTarget;
  /** The bare id that CountTokens takes. */
  base: string;
}

const owned = new OwnedModels();
const model = (id: string, region: string) => `arn:aws:bedrock:${region}::foundation-model/${id}`;

/** Every model, profile and resource of the account in every region that has it. */
const WORLD: Callable[] = REGIONS.flatMap((region) =>
  MODELS.flatMap((id): Callable[] => [
    { id, region, base: id, target: { kind: 'foundation-model', modelId: id, region } },
    ...(catalogueModel(id)?.profiles ?? [])
      .filter((geography) => serves(geography, region))
      .map((geography): Callable => {
        const name = `${geography}.${id}`;
        const arn = `arn:aws:bedrock:${region}:${ACCOUNT}:inference-profile/${name}`;
        const modelArns = destinations(geography, region).map((to) => model(id, to));
        return { id: name, region, base: id, target: { kind: 'inference-profile', arn, modelArns } };
      }),
    ...(['application-inference-profile', 'provisioned-model'] as const).map((kind): Callable => {
      const name = `${kind.slice(0, 2)}${String(MODELS.indexOf(id)).repeat(10)}`;
      const arn = `arn:aws:bedrock:${region}:${ACCOUNT}:${kind}/${name}`;
      owned.declare(arn, id);
      const target: PolicyTarget =
        kind === 'provisioned-model' ? { kind: 'owned', arn } : { kind, arn, modelArns: [model(id, region)] };
      return { id: arn, region, base: id, target };
    }),
  ]),
);

/** CountTokens takes bare models alone. */
const CALLS = WORLD.flatMap((callable) =>
  OPERATIONS.filter(([, use]) => use !== 'count-tokens' || callable.id === callable.base).map(
    ([operation, use]) => ({ callable, operation, use }),
  ),
);

function isSame(a: Pick<Callable, 'base' | 'region'>, b: Callable): boolean {
  return a.base === b.base && a.region === b.region;
}

function isAllowed(
  policy: object,
  { id, region }: Pick<Callable, 'id' | 'region'>,
  operation: string,
): boolean {
  const signer: Signer = {
    accountId: ACCOUNT,
    arn: `arn:aws:iam::${ACCOUNT}:user/somebody`,
    region,
    deny: [],
    temporary: false,
    policy: parsePolicy(JSON.stringify(policy)),
  };
  const service = 'bedrock-runtime' as const;
  try {
    authorize(signer, service, operation, resourcesOf({ service, operation, resource: id }, signer, owned));
    return true;
  } catch (error) {
    if (error instanceof AwsError) return false;
    throw error;
  }
}

test('a policy lets exactly the asked calls through and no other, whatever is asked', () => {
  const asks = fc.record({
    asked: fc.subarray(WORLD, { maxLength: 5 }),
    uses: fc.subarray<PolicyUse>(['invoke', 'stream', 'count-tokens']),
  });
  fc.assert(
    fc.property(asks, ({ asked, uses }) => {
      const policy = leastPrivilegePolicy({ targets: asked.map(({ target }) => target), uses });
      const wrong = CALLS.filter(({ callable, operation, use }) => {
        // Asking to count for a profile is asking to count for its model in that region.
        const named =
          use === 'count-tokens'
            ? asked.some(
                ({ base, region, target }) => isSame({ base, region }, callable) && target.kind !== 'owned',
              )
            : asked.includes(callable);
        return isAllowed(policy, callable, operation) !== (named && uses.includes(use));
      });
      expect(wrong).toEqual([]);
    }),
    { numRuns: 40 },
  );
});

test('a model behind an allowed profile cannot be called directly, in any region that the profile routes to', () => {
  const profile = WORLD.find(({ id, region }) => id === `us.${MODELS[0] ?? ''}` && region === 'us-east-1');
  const policy = leastPrivilegePolicy({ targets: profile ? [profile.target] : [], uses: ['invoke'] });
  expect(isAllowed(policy, profile ?? { id: '', region: '' }, 'Converse')).toBe(true);
  for (const region of ['us-east-1', 'us-west-2'])
    expect(isAllowed(policy, { id: MODELS[0] ?? '', region }, 'Converse')).toBe(false);
});
