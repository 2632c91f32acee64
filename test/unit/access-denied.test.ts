import { describe, expect, test } from '@jest/globals';
import {
  denialOfCall,
  howToAllow,
  mayBeEndOfSession,
  missingStatement,
  readDenial,
} from '../../src/bedrock/access-denied.ts';
import { classifyReply, explainedBody, serviceErrorOf } from '../../src/bedrock/aws-errors.ts';

const WHO = 'arn:aws:sts::111122223333:assumed-role/bedrock/session';
const WHAT = 'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0';
const DENIED = `User: ${WHO} is not authorized to perform: bedrock:InvokeModel on resource: ${WHAT}`;
const CALL = {
  operation: 'converse',
  modelId: 'us.amazon.nova-micro-v1:0',
  region: 'us-east-1',
  source: 'stored',
} as const;

describe('what AWS says of a denial', () => {
  test.each([
    [
      ' because no identity-based policy allows the bedrock:InvokeModel action',
      'missing-permission',
      undefined,
    ],
    ['', 'missing-permission', undefined],
    [
      ' because no service control policy allows the bedrock:InvokeModel action',
      'guard-rail',
      'service control policy',
    ],
    [
      ' because no permissions boundary allows the bedrock:InvokeModel action',
      'guard-rail',
      'permissions boundary',
    ],
    [' because no session policy allows the bedrock:InvokeModel action', 'guard-rail', 'session policy'],
    [
      ' because no VPC endpoint policy allows the bedrock:InvokeModel action',
      'guard-rail',
      'VPC endpoint policy',
    ],
    [' with an explicit deny in a service control policy', 'explicit-deny', 'a service control policy'],
    [' with an explicit deny in an identity-based policy', 'explicit-deny', 'an identity-based policy'],
  ])('%s', (why, by, policy) => {
    const denial = readDenial(DENIED + why, 'bedrock:InvokeModel');
    expect(denial).toEqual({
      by,
      action: 'bedrock:InvokeModel',
      resource: WHAT,
      principal: WHO,
      ...(policy !== undefined && { policy }),
    });
    expect(howToAllow(denial)).toContain(WHO);
    expect(missingStatement(denial) === undefined).toBe(by === 'explicit-deny');
    // The policy of a role's session is this service's own.
    expect(howToAllow(denial).includes('operator')).toBe(policy === 'session policy');
    // IAM writes an end of sessions into the role's own policies.
    const ofItself = policy === 'an identity-based policy';
    expect(mayBeEndOfSession({ type: 'AccessDeniedException', message: DENIED + why })).toBe(ofItself);
    expect(mayBeEndOfSession({ type: 'ValidationException', message: DENIED + why })).toBe(false);
  });

  test.each([
    ["You don't have access to the model with the specified model ID.", 'model-access'],
    ['Your account is not authorized to invoke this API operation.', 'model-access'],
    [
      'Model access is denied due to IAM user or service role is not authorized to perform the required AWS Marketplace actions',
      'model-access',
    ],
    ['no', 'unsaid'],
    ['', 'unsaid'],
  ])('%s is %s', (message, by) => {
    expect(readDenial(message, 'bedrock:InvokeModel')).toEqual({ by, action: 'bedrock:InvokeModel' });
  });

  test('the resource is filled in where the call says it, and never guessed for a profile', () => {
    expect(denialOfCall('no', { ...CALL, modelId: 'amazon.nova-micro-v1:0' }).resource).toBe(WHAT);
    expect(denialOfCall('no', CALL).resource).toBeUndefined();
    expect(
      denialOfCall('no', { ...CALL, modelId: 'global.amazon.nova-micro-v1:0' }).resource,
    ).toBeUndefined();
  });
});

describe('the body of a refusal', () => {
  const refusalOf = (message: string, type = 'AccessDeniedException') => {
    const body = Buffer.from(JSON.stringify({ message, other: 1 }));
    const headers = { 'x-amzn-errortype': type };
    return { body, refusal: classifyReply({ status: 403, headers, body }) };
  };

  test('keeps what AWS wrote and says after it what to add', () => {
    const { body, refusal } = refusalOf(DENIED);
    const explained = JSON.parse(explainedBody(body, refusal, CALL).toString()) as { message: string };
    expect(explained).toMatchObject({ other: 1 });
    expect(explained.message.startsWith(`${DENIED} [merchant-bedrock: `)).toBe(true);
    expect(explained.message).toContain('"Action":["bedrock:InvokeModel"]');
  });

  test.each([
    ['another exception', 'max_tokens is too large', 'ValidationException'],
    [
      'a bad API key',
      'Authentication failed: Please make sure your API Key is valid.',
      'AccessDeniedException',
    ],
  ])('of %s is AWS’s, byte for byte', (_what, message, type) => {
    const { body, refusal } = refusalOf(message, type);
    expect(explainedBody(body, refusal, CALL)).toBe(body);
  });

  test('that is no JSON is left alone', () => {
    const body = Buffer.from('<html>');
    expect(explainedBody(body, classifyReply({ status: 403, headers: {}, body }), CALL)).toBe(body);
  });

  test.each(['AccessDeniedException', 'ValidationException'])(
    'tells no ARN of the service’s own account (%s)',
    (type) => {
      const { body, refusal } = refusalOf(`${DENIED} in 111122223333`, type);
      const own = { ...CALL, source: 'service-default' } as const;
      const told =
        explainedBody(body, refusal, own).toString() + JSON.stringify(serviceErrorOf(refusal, own));
      expect(told + serviceErrorOf(refusal, own).detail).not.toMatch(/111122223333|assumed-role/);
    },
  );

  test('of the service’s own account tells the number of the account, as every answer does', () => {
    const { body, refusal } = refusalOf('Account 111122223333 has reached its limit.', 'ValidationException');
    const own = { ...CALL, source: 'service-default' } as const;
    expect(explainedBody(body, refusal, own)).toBe(body);
    expect(serviceErrorOf(refusal, own).detail).toContain('111122223333');
  });
});
