import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { egressProblem, endpointFor, fingerprint } from '../../src/bedrock/egress.ts';
import type { ExpectedRequest, SignedRequest } from '../../src/bedrock/egress.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { BEDROCK_REGIONS } from '../../src/domain/region.ts';

const KEY_ID = 'AKIAMERCHANTA0000001';
const TOKEN = 'IQoJb3JpZ2luX2VjECANARY';
const AUTHORIZATION = `AWS4-HMAC-SHA256 Credential=${KEY_ID}/20261121/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=aa`;
const BEARER = 'Bearer ABSKcanarycanary';

function expected(changes: Partial<ExpectedRequest> = {}): ExpectedRequest {
  return {
    method: 'POST',
    endpoint: endpointFor('bedrock-runtime', 'us-east-1'),
    path: /^\/model\/[^/]+\/[a-z-]+$/,
    signer: { scheme: 'sigv4', accessKeyId: KEY_ID, region: 'us-east-1', sessionToken: fingerprint(TOKEN) },
    ...changes,
  };
}

function signed(changes: Partial<SignedRequest> = {}, headers: Record<string, string> = {}): SignedRequest {
  const host = 'bedrock-runtime.us-east-1.amazonaws.com';
  return {
    protocol: 'https:',
    hostname: host,
    method: 'POST',
    path: '/model/amazon.nova-micro-v1%3A0/invoke',
    query: {},
    headers: { host, authorization: AUTHORIZATION, 'x-amz-security-token': TOKEN, ...headers },
    ...changes,
  };
}

const bearerExpected = expected({ signer: { scheme: 'bearer', authorization: fingerprint(BEARER) } });
const host = { host: 'bedrock-runtime.us-east-1.amazonaws.com' };

describe('endpointFor', () => {
  test('every region of the list has its own host, for both services', () => {
    for (const region of BEDROCK_REGIONS) {
      expect(endpointFor('bedrock-runtime', region).href).toBe(
        `https://bedrock-runtime.${region}.amazonaws.com/`,
      );
      expect(endpointFor('bedrock', region).href).toBe(`https://bedrock.${region}.amazonaws.com/`);
    }
  });

  test('no text that is not a region of the list ever becomes part of a host', () => {
    const nearMiss = fc
      .tuple(
        fc.constantFrom(...BEDROCK_REGIONS),
        fc.constantFrom('.evil.example', '/', '#', '@evil', ' ', '%00', '\n', '.'),
      )
      .map(([region, tail]) => region + tail);
    const elsewhere = fc.constantFrom(
      'cn-north-1',
      'us-gov-west-1',
      'us-iso-east-1',
      'US-EAST-1',
      '',
      'localhost',
      '169.254.169.254',
    );
    fc.assert(
      fc.property(fc.oneof(fc.string(), nearMiss, elsewhere, fc.webUrl()), (region) => {
        fc.pre(!(BEDROCK_REGIONS as readonly string[]).includes(region));
        expect(() => endpointFor('bedrock-runtime', region)).toThrow(
          expect.objectContaining({ code: 'region.not_allowed' }),
        );
        expect(() => endpointFor('bedrock-runtime', region, 'http://127.0.0.1:1')).toThrow(ServiceError);
      }),
      { numRuns: 2_000 },
    );
  });

  test('an endpoint that is set goes before the list, if it is a plain URL', () => {
    expect(endpointFor('bedrock', 'eu-west-1', 'http://127.0.0.1:4566/base/').href).toBe(
      'http://127.0.0.1:4566/base/',
    );
    for (const bad of [
      'ftp://x',
      'https://u:p@x',
      'https://x/?a=1',
      'https://x/#a',
      'x',
      'file:///etc/passwd',
    ]) {
      expect(() => endpointFor('bedrock', 'eu-west-1', bad)).toThrow(
        expect.objectContaining({ code: 'internal' }),
      );
    }
  });
});

describe('egressProblem', () => {
  test('lets the expected request pass, with SigV4 and with a bearer token', () => {
    expect(egressProblem(signed(), expected())).toBeUndefined();
    const bearer = signed({ headers: { ...host, Authorization: BEARER } });
    expect(egressProblem(bearer, bearerExpected)).toBeUndefined();
  });

  test('an endpoint with port and path of its own', () => {
    const endpoint = new URL('http://127.0.0.1:4566/aws/');
    const there = { protocol: 'http:', hostname: '127.0.0.1', port: 4566 };
    const path = '/aws/model/amazon.nova-micro-v1%3A0/invoke';
    expect(
      egressProblem(signed({ ...there, path }, { host: '127.0.0.1:4566' }), expected({ endpoint })),
    ).toBeUndefined();
    expect(egressProblem(signed({ ...there }, { host: '127.0.0.1:4566' }), expected({ endpoint }))).toBe(
      'path',
    );
  });

  const elsewhere: [string, Partial<SignedRequest>, string][] = [
    ['plain http', { protocol: 'http:' }, 'protocol'],
    ['another host', { hostname: 'evil.example' }, 'hostname'],
    [
      'a host that only begins alike',
      { hostname: 'bedrock-runtime.us-east-1.amazonaws.com.evil.example' },
      'hostname',
    ],
    ['another region', { hostname: 'bedrock-runtime.eu-west-1.amazonaws.com' }, 'hostname'],
    ['a port', { port: 8443 }, 'port'],
    ['another method', { method: 'PUT' }, 'method'],
    ['a query', { query: { a: 'b' } }, 'query'],
    ['a user', { username: '' }, 'user or fragment'],
    ['a fragment', { fragment: 'x' }, 'user or fragment'],
    ['another operation', { path: '/guardrail/x/apply' }, 'path'],
    ['more segments', { path: '/model/a/b/invoke' }, 'path'],
    ['dot segments', { path: '/model/../invoke' }, 'path'],
    ['encoded dot segments', { path: '/model/%2e%2E/invoke' }, 'path'],
    ['a query in the path', { path: '/model/a?b/invoke' }, 'path'],
    ['a backslash', { path: '/model/a\\b/invoke' }, 'path'],
    ['a line break', { path: '/model/a/invoke\n' }, 'path'],
  ];
  test.each(elsewhere)('stops %s', (_, change, problem) => {
    expect(egressProblem(signed(change), expected())).toBe(problem);
  });

  const otherSigners: [string, Record<string, string>, string][] = [
    [
      'the key of another merchant',
      { authorization: AUTHORIZATION.replace(KEY_ID, 'AKIAMERCHANTB0000001') },
      'authorization',
    ],
    ['a longer key id', { authorization: AUTHORIZATION.replace(KEY_ID, `${KEY_ID}X`) }, 'authorization'],
    ['another region', { authorization: AUTHORIZATION.replace('us-east-1', 'eu-west-1') }, 'authorization'],
    ['another service', { authorization: AUTHORIZATION.replace('/bedrock/', '/s3/') }, 'authorization'],
    [
      'something that is no date',
      { authorization: AUTHORIZATION.replace('20261121', '2026112x') },
      'authorization',
    ],
    ['a bearer token instead', { authorization: BEARER }, 'authorization'],
    ['no signature', { authorization: '' }, 'authorization'],
    ['another session', { 'x-amz-security-token': `${TOKEN}x` }, 'session token'],
    ['a second authorization', { Authorization: AUTHORIZATION }, 'header given twice'],
    ['another host header', { host: 'evil.example' }, 'host header'],
    ['chunked framing', { 'Transfer-Encoding': 'chunked' }, 'forbidden header'],
    ['proxy headers', { 'proxy-authorization': 'x' }, 'forbidden header'],
  ];
  test.each(otherSigners)('stops a request signed with %s', (_, headers, problem) => {
    expect(egressProblem(signed({}, headers), expected())).toBe(problem);
  });

  test('a session token must be there exactly when the credential has one', () => {
    const without = signed({ headers: { ...host, authorization: AUTHORIZATION } });
    expect(egressProblem(without, expected())).toBe('session token');
    const signer = {
      scheme: 'sigv4',
      accessKeyId: KEY_ID,
      region: 'us-east-1',
      sessionToken: undefined,
    } as const;
    expect(egressProblem(without, expected({ signer }))).toBeUndefined();
    expect(egressProblem(signed(), expected({ signer }))).toBe('session token');
  });

  test('a bearer call must carry this token and nothing of SigV4', () => {
    for (const authorization of ['Bearer ABSKother', BEARER.toLowerCase(), AUTHORIZATION, '']) {
      expect(egressProblem(signed({ headers: { ...host, authorization } }), bearerExpected)).toBe(
        'authorization',
      );
    }
    const withSession = signed({
      headers: { ...host, authorization: BEARER, 'x-amz-security-token': TOKEN },
    });
    expect(egressProblem(withSession, bearerExpected)).toBe('session token');
  });

  test('any other host, path or authorization is stopped, and what is said holds no value', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('hostname', 'path', 'authorization'),
        fc.string({ maxLength: 80 }),
        (part, text) => {
          const good = signed();
          fc.pre(text !== good.hostname && text !== AUTHORIZATION);
          const request =
            part === 'authorization' ? signed({}, { authorization: text }) : signed({ [part]: text });
          const problem = egressProblem(request, expected());
          if (problem === undefined)
            expect(part === 'path' && /^\/model\/[^/]+\/[a-z-]+$/.test(text)).toBe(true);
          else expect(['hostname', 'path', 'authorization']).toContain(problem);
        },
      ),
      { numRuns: 5_000 },
    );
  });
});
