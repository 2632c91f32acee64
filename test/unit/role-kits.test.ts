import { expect, test } from '@jest/globals';
import { INLINE_POLICIES_MAX, policySize } from '../../src/bedrock/policy-document.ts';
import type { PolicyStatement } from '../../src/bedrock/policy-document.ts';
import { terraformTemplate } from '../../src/credentials/role-templates.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { RoleKits } from '../../src/gateway/role-kits.ts';
import { rolePolicyFor } from '../../src/gateway/role-policy.ts';

const NOVA = 'amazon.nova-micro-v1:0';
const HERE = 'us-east-1';
const foundation = (model: string, region = HERE) => `arn:aws:bedrock:${region}::foundation-model/${model}`;

function grants(models: readonly string[], action: PolicyStatement['Action'][number]): string[] {
  const { Statement } = rolePolicyFor(models, HERE);
  return Statement.filter(({ Action }) => Action.includes(action)).flatMap(({ Resource }) => Resource);
}

test('tokens may be counted for the models that were named, and for no other', () => {
  const counted = (...models: string[]) => grants(models, 'bedrock:CountTokens');
  expect(counted(NOVA)).toEqual([foundation(NOVA)]);
  expect(counted(`us.${NOVA}`)).toEqual([foundation(NOVA)]);
  expect(counted(`arn:aws:bedrock:${HERE}:111122223333:provisioned-model/abcdefghijkl`)).toEqual([]);
  expect(counted()).toEqual([foundation('*')]);
});

test('a model behind a profile may be called through that profile only, and is not described', () => {
  const profile = `arn:aws:bedrock:${HERE}:*:inference-profile/us.${NOVA}`;
  const { Statement } = rolePolicyFor([`us.${NOVA}`], HERE);
  const behind = Statement.filter(({ Resource }) => Resource.includes(foundation(NOVA, '*')));
  expect(behind.map(({ Sid, Condition }) => [Sid, Condition])).toEqual([
    ['ModelsBehindProfilesOnly', { ArnLike: { 'bedrock:InferenceProfileArn': [profile] } }],
  ]);
  expect(grants([`us.${NOVA}`], 'bedrock:GetInferenceProfile')).toEqual([profile]);
  expect(grants([`us.${NOVA}`], 'bedrock:GetFoundationModel')).toEqual([]);
});

test('a kit that IAM would refuse for its length is refused before anything is stored', async () => {
  const asked: string[] = [];
  const refuse = () => {
    asked.push('the roles');
    return Promise.reject(new Error('not to be asked'));
  };
  const kits = new RoleKits({ setup: refuse, checkRegion: refuse }, rolePolicyFor);
  const many = Array.from(
    { length: 50 },
    (_, at) => `us.anthropic.claude-3-5-sonnet-2024102${String(at)}-v2:0`,
  );
  expect(policySize(rolePolicyFor(many, HERE))).toBeGreaterThan(INLINE_POLICIES_MAX);
  const refusal = { code: 'request.invalid', detail: expect.stringContaining('10,240') as unknown };
  await expect(kits.check(HERE, many)).rejects.toMatchObject(refusal);
  const credential = { id: 'cred_x' as CredentialId, externalId: 'x', region: HERE };
  await expect(kits.of('m' as MerchantId, credential, many)).rejects.toMatchObject(refusal);
  expect(asked).toEqual([]);
  await expect(kits.check(HERE, many.slice(0, 10))).rejects.toThrow('not to be asked');
});

test('what begins a template of HCL is text in a document', () => {
  const trustPolicy = {
    Version: '2012-10-17',
    Statement: [{ Resource: '${aws:username} %{if} $${x}' }],
  } as const;
  const text = terraformTemplate({ roleName: 'x', trustPolicy, permissionPolicy: trustPolicy });
  expect(text.match(/"Resource": (.*)/)?.[1]).toBe('"$${aws:username} %%{if} $$${x}"');
});
