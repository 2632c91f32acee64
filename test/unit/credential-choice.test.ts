import { inspect } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { choiceFromBody, choiceFromHeaders } from '../../src/domain/credential-choice.ts';
import type { CredentialChoice } from '../../src/domain/credential-choice.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { Secret } from '../../src/domain/secret.ts';

const LONG_LIVED = 'AKIAIOSFODNN7EXAMPLE';
const TEMPORARY = 'ASIAIOSFODNN7EXAMPLE';
const SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
const TOKEN = 'IQoJb3JpZ2luX2VjEXAMPLETOKEN==';
const CREDENTIAL_ID = 'cred_0123456789abcdefghijAB';
const SESSION = 'aaaa..bbbb.cccc.dddd';

const HEADER_OF = {
  awsAccessKeyId: 'x-bedrock-aws-access-key-id',
  awsSecretAccessKey: 'x-bedrock-aws-secret-access-key',
  awsSessionToken: 'x-bedrock-aws-session-token',
  awsRegion: 'x-bedrock-aws-region',
  credentialId: 'x-bedrock-credential-id',
  session: 'x-bedrock-session',
  useServiceDefaults: 'x-bedrock-use-service-defaults',
} as const;
type Field = keyof typeof HEADER_OF;

const VALUES: Readonly<Record<Field, string | true>> = {
  awsAccessKeyId: LONG_LIVED,
  awsSecretAccessKey: SECRET,
  awsSessionToken: TOKEN,
  awsRegion: 'us-east-1',
  credentialId: CREDENTIAL_ID,
  session: SESSION,
  useServiceDefaults: true,
};
const FIELDS = Object.keys(VALUES) as Field[];

/** The whole rule, as a table: which sets of fields are one choice. */
const LEGAL: Readonly<Record<string, CredentialChoice['kind']>> = {
  '': 'merchant-default',
  'awsAccessKeyId=AKIA awsRegion awsSecretAccessKey': 'direct',
  'awsAccessKeyId=ASIA awsRegion awsSecretAccessKey awsSessionToken': 'direct',
  credentialId: 'stored',
  session: 'session',
  useServiceDefaults: 'service-default',
};

describe('of all combinations of fields exactly the legal ones are a choice', () => {
  const combination = fc.record({
    fields: fc.subarray(FIELDS),
    keyId: fc.constantFrom(LONG_LIVED, TEMPORARY),
    rest: fc.constantFrom({}, { modelId: 'm' }),
  });

  test('in a body', () => {
    fc.assert(
      fc.property(combination, ({ fields, keyId, rest }) => {
        const given = { ...rest, ...valuesOf(fields, keyId) };
        const expected = LEGAL[nameOf(fields, keyId)];
        if (expected === undefined) expectInvalid(() => choiceFromBody(given), given);
        else {
          const read = choiceFromBody(given);
          expect(read.choice.kind).toBe(expected);
          expect(read.rest).toEqual(rest);
          expectCarries(read.choice, keyId);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test('in headers', () => {
    fc.assert(
      fc.property(combination, ({ fields, keyId }) => {
        const given = headersOf(valuesOf(fields, keyId));
        const expected = LEGAL[nameOf(fields, keyId)];
        if (expected === undefined) expectInvalid(() => choiceFromHeaders(given), given);
        else {
          const choice = choiceFromHeaders({ ...given, host: 'localhost', 'x-bedrock-region': 'us-west-2' });
          expect(choice.kind).toBe(expected);
          expectCarries(choice, keyId);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('a field of the wrong form is refused', () => {
  const wrong: readonly [Field, readonly unknown[]][] = [
    [
      'awsAccessKeyId',
      ['', 'akiaiosfodnn7example', `${LONG_LIVED}X`, 'AROAIOSFODNN7EXAMPLE', `${LONG_LIVED}\n`, 1, null],
    ],
    ['awsSecretAccessKey', ['', SECRET.slice(1), `${SECRET}A`, `${SECRET.slice(1)} `, null, {}]],
    ['awsRegion', ['', 'US-EAST-1', 'us-east-1.evil.example', 'us-east-1/', 'localhost', '..', 7, null]],
    [
      'credentialId',
      ['', 'cred_', `${CREDENTIAL_ID}x`, CREDENTIAL_ID.slice(1), '../other', null, [CREDENTIAL_ID]],
    ],
    ['session', ['', 'with space', 'x'.repeat(8_193), 'tab\t', null, 5]],
    ['useServiceDefaults', [false, 'true', 1, null, 'yes']],
  ];

  test.each(wrong.flatMap(([field, values]) => values.map((value) => [field, value] as const)))(
    '%s: %j',
    (field, value) => {
      const complete = field.startsWith('aws')
        ? valuesOf(['awsAccessKeyId', 'awsSecretAccessKey', 'awsRegion'])
        : {};
      const given = { ...complete, [field]: value };
      expectInvalid(() => choiceFromBody(given), given, field);
      if (typeof value === 'string' && !(field === 'useServiceDefaults' && value === 'true'))
        expectInvalid(() => choiceFromHeaders(headersOf(given)), given, HEADER_OF[field]);
    },
  );

  test('a session token that is too short, too long or has spaces', () => {
    for (const awsSessionToken of ['', 'short', 'x'.repeat(4_097), `${TOKEN} ${TOKEN}`]) {
      const given = {
        ...valuesOf(['awsAccessKeyId', 'awsSecretAccessKey', 'awsRegion'], TEMPORARY),
        awsSessionToken,
      };
      expectInvalid(() => choiceFromBody(given), given, 'awsSessionToken');
    }
  });

  test('a header that came twice', () => {
    expectInvalid(() => choiceFromHeaders({ 'x-bedrock-credential-id': [CREDENTIAL_ID, CREDENTIAL_ID] }), {});
    expectInvalid(
      () => choiceFromHeaders({ 'x-bedrock-credential-id': `${CREDENTIAL_ID}, ${CREDENTIAL_ID}` }),
      {},
    );
  });
});

describe('a name that is nearly right does not end as "no choice"', () => {
  test.each([
    'awsAccessKeyID',
    'aws_access_key_id',
    'AWSSecretAccessKey',
    'awsProfile',
    'credential_id',
    'CredentialId',
    'Session',
    'use-service-defaults',
  ])('body: %s', (name) => {
    expectInvalid(() => choiceFromBody({ [name]: SECRET }), { [name]: SECRET });
  });

  test.each([
    'x-bedrock-aws-secret-key',
    'x-bedrock-access-key-id',
    'x-bedrock-credential',
    'x-bedrock-credentialid',
    'x-bedrock-sessions',
    'x-bedrock-use-service-default',
    'X-Bedrock-Anything',
  ])('header: %s', (name) => {
    expectInvalid(() => choiceFromHeaders({ [name]: SECRET }), { [name]: SECRET });
  });

  test('header names count in any case', () => {
    expect(choiceFromHeaders({ 'X-Bedrock-Credential-Id': CREDENTIAL_ID }).kind).toBe('stored');
  });
});

test('half a pair says what is missing, of both kinds of keys', () => {
  expectInvalid(() => choiceFromBody({ awsAccessKeyId: LONG_LIVED }), {}, 'awsSecretAccessKey is missing');
  expectInvalid(
    () => choiceFromBody(valuesOf(['awsAccessKeyId', 'awsSecretAccessKey'])),
    {},
    'awsRegion is missing',
  );
  expectInvalid(
    () => choiceFromBody(valuesOf(['awsAccessKeyId', 'awsSecretAccessKey', 'awsRegion'], TEMPORARY)),
    {},
    'awsSessionToken is missing',
  );
  expectInvalid(
    () =>
      choiceFromHeaders(
        headersOf(valuesOf(['awsAccessKeyId', 'awsSecretAccessKey', 'awsRegion', 'awsSessionToken'])),
      ),
    {},
    'leave it out',
  );
});

test('the rest of a body keeps what it had, a "__proto__" member included, and inherits nothing from it', () => {
  const body = JSON.parse(
    '{"__proto__":{"admin":true},"prompt":"hi","credentialId":"' + CREDENTIAL_ID + '"}',
  ) as Record<string, unknown>;
  const { choice, rest } = choiceFromBody(body);
  expect(choice).toEqual({ kind: 'stored', credentialId: CREDENTIAL_ID });
  expect(Object.keys(rest)).toEqual(['__proto__', 'prompt']);
  expect((rest as { admin?: boolean }).admin).toBeUndefined();
  expect(Object.getPrototypeOf(rest)).toBe(Object.prototype);
});

test('a choice prints no secret', () => {
  const { choice } = choiceFromBody(
    valuesOf(['awsAccessKeyId', 'awsSecretAccessKey', 'awsRegion', 'awsSessionToken'], TEMPORARY),
  );
  for (const printed of [
    JSON.stringify(choice),
    inspect(choice, { depth: 9 }),
    JSON.stringify(choiceFromBody({ session: SESSION })),
  ]) {
    expect(printed).not.toContain(SECRET);
    expect(printed).not.toContain(TOKEN);
    expect(printed).not.toContain(SESSION);
  }
});

function valuesOf(fields: readonly Field[], keyId = LONG_LIVED): Record<string, string | true> {
  const values = { ...VALUES, awsAccessKeyId: keyId };
  return Object.fromEntries(fields.map((field) => [field, values[field]]));
}

function headersOf(given: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(given).map(([field, value]) => [HEADER_OF[field as Field], String(value)]),
  );
}

function nameOf(fields: readonly Field[], keyId: string): string {
  return [...fields]
    .sort()
    .map((field) => (field === 'awsAccessKeyId' ? `${field}=${keyId.slice(0, 4)}` : field))
    .join(' ');
}

function expectCarries(choice: CredentialChoice, keyId: string): void {
  if (choice.kind === 'direct') {
    expect(choice.region).toBe('us-east-1');
    expect(choice.accessKey.accessKeyId).toBe(keyId);
    expect(choice.accessKey.secretAccessKey.reveal()).toBe(SECRET);
    expect(choice.accessKey.sessionToken?.reveal()).toBe(keyId === TEMPORARY ? TOKEN : undefined);
  }
  if (choice.kind === 'stored') expect(choice.credentialId).toBe(CREDENTIAL_ID);
  if (choice.kind === 'session') {
    expect(choice.session).toBeInstanceOf(Secret);
    expect(choice.session.reveal()).toBe(SESSION);
  }
}

/** The right code, the name of what is wrong, and not one value that was sent. */
function expectInvalid(read: () => unknown, given: Readonly<Record<string, unknown>>, says = ''): void {
  let caught: unknown;
  try {
    read();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(ServiceError);
  const { code, detail, options } = caught as ServiceError;
  expect(code).toBe('credential.choice_invalid');
  expect(detail).toContain(says);
  const shown = JSON.stringify([detail, options]);
  for (const value of Object.values(given))
    if (typeof value === 'string' && value.length > 8) expect(shown).not.toContain(value);
}
