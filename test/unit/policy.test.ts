import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { IAM_ACTIONS, policySize } from '../../src/bedrock/policy-document.ts';
import { POLICY_USES, leastPrivilegePolicy } from '../../src/bedrock/policy.ts';
import type { PolicyTarget } from '../../src/bedrock/policy.ts';
import { SESSION_POLICY_MAX } from '../../src/credentials/session-policy.ts';

const NOVA = 'amazon.nova-micro-v1:0';
const ACCOUNT = '111122223333';
const model = (region: string, id = NOVA) => `arn:aws:bedrock:${region}::foundation-model/${id}`;
const profile = (id: string, region = 'us-east-2') =>
  `arn:aws:bedrock:${region}:${ACCOUNT}:inference-profile/${id}`;
const GEOGRAPHIC: PolicyTarget = {
  kind: 'inference-profile',
  arn: profile(`us.${NOVA}`),
  modelArns: ['us-east-1', 'us-east-2', 'us-west-2'].map((region) => model(region)),
};

describe('the policy for', () => {
  test('a model in its region is that model there', () => {
    const targets: PolicyTarget[] = [{ kind: 'foundation-model', modelId: NOVA, region: 'eu-west-1' }];
    expect(leastPrivilegePolicy({ targets, uses: ['invoke', 'stream', 'count-tokens'] })).toEqual({
      Version: '2012-10-17',
      Statement: [
        {
          Sid: 'Models',
          Effect: 'Allow',
          Action: ['bedrock:InvokeModel', 'bedrock:InvokeModelWithResponseStream'],
          Resource: [model('eu-west-1')],
        },
        {
          Sid: 'CountTokens',
          Effect: 'Allow',
          Action: ['bedrock:CountTokens'],
          Resource: [model('eu-west-1')],
        },
      ],
    });
  });

  test('a geographic profile is the profile, and the model in every region it routes to, through it only', () => {
    const { Statement } = leastPrivilegePolicy({ targets: [GEOGRAPHIC], uses: ['invoke'] });
    const Action = ['bedrock:InvokeModel'];
    expect(Statement).toEqual([
      { Sid: 'Profiles', Effect: 'Allow', Action, Resource: [profile(`us.${NOVA}`)] },
      {
        Sid: 'ModelsBehindProfilesOnly',
        Effect: 'Allow',
        Action,
        Resource: [model('us-east-1'), model('us-east-2'), model('us-west-2')],
        Condition: { ArnLike: { 'bedrock:InferenceProfileArn': [profile(`us.${NOVA}`)] } },
      },
    ]);
  });

  test('a global profile names its model in the region it is called in, and without a region', () => {
    const targets: PolicyTarget[] = [
      { kind: 'inference-profile', arn: profile(`global.${NOVA}`, 'eu-west-1'), modelArns: [] },
    ];
    const { Statement } = leastPrivilegePolicy({ targets, uses: ['invoke'] });
    expect(Statement[1]?.Resource).toEqual([model(''), model('eu-west-1')]);
  });

  test('provisioned throughput names itself, and the question about it', () => {
    const arn = `arn:aws:bedrock:us-east-1:${ACCOUNT}:provisioned-model/abcdefghijkl`;
    const { Statement } = leastPrivilegePolicy({
      targets: [{ kind: 'owned', arn }],
      uses: ['invoke', 'count-tokens', 'describe'],
    });
    expect(Statement.map(({ Action, Resource }) => [Action, Resource])).toEqual([
      [['bedrock:InvokeModel'], [arn]],
      [['bedrock:GetProvisionedModelThroughput'], [arn]],
    ]);
  });

  test('nothing is nothing: no statement without an action or a resource', () => {
    expect(leastPrivilegePolicy({ targets: [], uses: ['invoke', 'stream', 'discover'] }).Statement).toEqual(
      [],
    );
    expect(leastPrivilegePolicy({ targets: [GEOGRAPHIC], uses: [] }).Statement).toEqual([]);
  });
});

test.each<PolicyTarget>([
  { kind: 'foundation-model', modelId: '*', region: 'us-east-1' },
  { kind: 'foundation-model', modelId: NOVA, region: '*' },
  { kind: 'owned', arn: `arn:aws:bedrock:us-east-1:${ACCOUNT}:provisioned-model/*` },
  { kind: 'owned', arn: model('us-east-1') },
  { kind: 'owned', arn: 'arn:aws:iam::111122223333:role/admin' },
  { kind: 'inference-profile', arn: profile('us.${aws:username}'), modelArns: [] },
  { ...GEOGRAPHIC, kind: 'application-inference-profile' },
  { ...GEOGRAPHIC, modelArns: ['*'] },
  { ...GEOGRAPHIC, modelArns: [profile(`us.${NOVA}`)] },
])('what could be a pattern, or is not what it is said to be, makes no policy: %j', (target) => {
  expect(() => leastPrivilegePolicy({ targets: [target], uses: ['invoke'] })).toThrow('model.id_invalid');
});

test('whatever is asked: actions that IAM has, no wildcard but for actions without resources, the same in any order', () => {
  const region = fc.constantFrom('us-east-1', 'eu-west-1', 'ap-south-1');
  const target: fc.Arbitrary<PolicyTarget> = fc.oneof(
    fc.record({ kind: fc.constant('foundation-model' as const), modelId: fc.constant(NOVA), region }),
    region.map((home) => ({ ...GEOGRAPHIC, arn: profile(`us.${NOVA}`, home) })),
  );
  fc.assert(
    fc.property(fc.array(target, { maxLength: 6 }), fc.subarray([...POLICY_USES]), (targets, uses) => {
      const policy = leastPrivilegePolicy({ targets, uses });
      expect(leastPrivilegePolicy({ targets: targets.toReversed(), uses })).toEqual(policy);
      for (const { Action, Resource, Sid } of policy.Statement) {
        for (const action of Action) expect(IAM_ACTIONS).toContain(action);
        expect(Resource.some((arn) => arn.includes('*'))).toBe(['Discover', 'ApiKey'].includes(Sid));
      }
      expect(new Set(policy.Statement.map(({ Sid }) => Sid)).size).toBe(policy.Statement.length);
    }),
  );
});

test('one model fits the policy of a session', () => {
  const policy = leastPrivilegePolicy({ targets: [GEOGRAPHIC], uses: ['invoke', 'stream'] });
  expect(policySize(policy)).toBeLessThan(SESSION_POLICY_MAX);
});
