import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { assertModelInScope, parseModelId } from '../../src/bedrock/model-id.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { cpuMsOf } from '../support/cpu.ts';

const ACCOUNT = '123456789012';

describe('model ids', () => {
  test.each([
    'amazon.nova-micro-v1:0',
    'anthropic.claude-3-5-haiku-20241022-v1:0',
    'us.anthropic.claude-sonnet-4-20250514-v1:0',
    'global.anthropic.claude-sonnet-4-20250514-v1:0',
    'meta.llama3-8b-instruct-v1:0:8k',
    'abcdefghijkl',
    'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0',
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:provisioned-model/abcdefghijkl`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:inference-profile/us.amazon.nova-micro-v1:0`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:application-inference-profile/a1b2c3d4e5f6`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:imported-model/abcdefghijkl`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:custom-model-deployment/abcdefghijkl`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:prompt/ABCDEFGHIJ:1`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:default-prompt-router/anthropic.claude:1`,
    `arn:aws:sagemaker:us-east-1:${ACCOUNT}:endpoint/my-endpoint`,
  ])('%s is one', (id) => {
    expect(parseModelId(id).id).toBe(id);
  });

  test.each([
    '',
    '.',
    '..',
    'a/b',
    '../../credentials',
    'a..b',
    'amazon.nova micro',
    'amazon.nova\nmicro',
    'amazon.nova%2Fmicro',
    'modèle',
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:foundation-model/amazon.nova-micro-v1:0`,
    'arn:aws:bedrock:us-east-1::provisioned-model/abcdefghijkl',
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:provisioned-model/abc`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:inference-profile/..`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:guardrail/abcdefghijkl`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:constructor/abcdefghijkl`,
    `arn:aws:sagemaker:us-east-1:${ACCOUNT}:provisioned-model/abcdefghijkl`,
    `arn:aws:bedrock:us-east-1:${ACCOUNT}:endpoint/mine`,
    'arn:aws:iam::123456789012:role/x',
    'x'.repeat(2_049),
  ])('%s is none', (id) => {
    expect(() => parseModelId(id)).toThrow(ServiceError);
  });

  test('whatever is sent: an id of harmless characters, or the one error', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string().map((tail) => `arn:aws:bedrock:us-east-1:${ACCOUNT}:inference-profile/${tail}`),
      fc.stringMatching(/^[a-z.:/%-]{1,40}$/),
    );
    fc.assert(
      fc.property(text, (id) => {
        try {
          expect(parseModelId(id).id).toMatch(/^(?!.*\.\.)[A-Za-z0-9:/._-]+$/);
        } catch (error) {
          expect(error).toMatchObject({ code: 'model.id_invalid' });
          expect((error as ServiceError).detail.length).toBeLessThan(200);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test('the longest text costs no time', () => {
    const texts = [
      'a.'.repeat(50_000),
      'arn:aws:bedrock:'.repeat(6_000),
      `arn:aws:bedrock:us-east-1:${ACCOUNT}:custom-model/${'a-'.repeat(900)}`,
    ];
    const read = () => {
      for (const text of texts) expect(() => parseModelId(text)).toThrow();
    };
    expect(cpuMsOf(read, 50)).toBeLessThan(50);
  });
});

describe('scope', () => {
  const own = { region: 'us-east-1', accountId: ACCOUNT, source: 'stored' } as const;
  const ofTheService = { ...own, source: 'service-default' } as const;
  const arn = (region: string, account: string, what = 'provisioned-model/abcdefghijkl') =>
    parseModelId(`arn:aws:bedrock:${region}:${account}:${what}`);

  test('the region and account of the credential, and ids that have neither', () => {
    assertModelInScope(parseModelId('amazon.nova-micro-v1:0'), own);
    assertModelInScope(arn('us-east-1', ACCOUNT), own);
    assertModelInScope(arn('us-east-1', '', 'foundation-model/amazon.nova-micro-v1:0'), {
      ...own,
      accountId: undefined,
    });
  });

  test('service defaults reach what AWS defines, by id and by ARN', () => {
    for (const model of [
      parseModelId('us.amazon.nova-micro-v1:0'),
      parseModelId('amazon.nova-micro-v1:0'),
      arn('us-east-1', ACCOUNT, 'inference-profile/us.amazon.nova-micro-v1:0'),
      arn('us-east-1', '', 'foundation-model/amazon.nova-micro-v1:0'),
    ])
      assertModelInScope(model, ofTheService);
    assertModelInScope(parseModelId('abcdefghijkl'), own);
  });

  test.each([
    ['another region', arn('eu-west-1', ACCOUNT), own],
    ['another account', arn('us-east-1', '999999999999'), own],
    ['provisioned throughput of the operator', arn('us-east-1', ACCOUNT), ofTheService],
    [
      'a profile that the operator made for another merchant',
      arn('us-east-1', ACCOUNT, 'application-inference-profile/abcdefghijkl'),
      ofTheService,
    ],
    ['the same by twelve characters alone', parseModelId('abcdefghijkl'), ofTheService],
    ['an account that cannot be compared', arn('us-east-1', ACCOUNT), { ...own, accountId: undefined }],
    [
      'a foundation model of another region',
      arn('eu-west-1', '', 'foundation-model/amazon.nova-micro-v1:0'),
      own,
    ],
  ])('%s is foreign', (_name, model, scope) => {
    expect(() => {
      assertModelInScope(model, scope);
    }).toThrow(/^model.foreign_arn/);
  });
});
