import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { mintToken } from '../../src/auth/token.ts';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import { converseBody, onboard, operatorOf, Person } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { parametersOf } from '../support/parameters.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, 'merchant-a');
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** Secrets in the wrong place, of each kind that people paste. */
const CANARIES: Record<string, string> = {
  'a secret key of AWS': 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  'a token': mintToken('merchant', 'live').text,
  'a session token': randomBytes(120).toString('base64'),
  'a short password': 'hunter2-Tr0ub4dor&3',
};

/** As a value, in every shape that a value can have, and as a name. */
const SHAPES: Record<string, (canary: string) => unknown> = {
  text: (canary) => canary,
  list: (canary) => [canary],
  object: (canary) => ({ [canary]: canary }),
  deep: (canary) => ({
    cloudWatch: { logGroup: canary },
    byId: { [canary]: { callsInFlight: { max: canary } } },
    spec: { [canary]: 1 },
  }),
};

function pathOf(route: Route, name: string, canary: string): string {
  const set = (parameter: string, otherwise: string) =>
    encodeURIComponent(name === `path ${parameter}` ? canary : otherwise);
  const at = route.path
    .replace(':id', set('id', merchant.merchantId))
    .replace(':cid', set('cid', merchant.credentialId))
    .replace(':kid', set('kid', 'z'.repeat(12)))
    .replace(':wid', set('wid', `wh_${'z'.repeat(22)}`))
    .replace(':did', set('did', '01990000-0000-7000-8000-000000000001'))
    .replace(':callId', set('callId', '01990000-0000-7000-8000-000000000001'))
    .replace('*modelId', set('modelId', MODEL));
  if (name === 'query <name>') return `${at}?${encodeURIComponent(canary)}=x`;
  return name.startsWith('query ') ? `${at}?${name.slice(6)}=${encodeURIComponent(canary)}` : at;
}

function bodyOf(route: Route, name: string, value: unknown): unknown {
  if (route.endpoint.body === undefined) return undefined;
  const base = route.endpoint.body === 'bytes' ? converseBody('x') : { modelId: MODEL };
  if (name === 'body <name>') return { ...base, [String(value)]: 'x' };
  if (name === 'body <bytes>') return String(value);
  return name.startsWith('body ') ? { ...base, [name.slice(5)]: value } : base;
}

/** Every form in which it could come back. */
function formsOf(canary: string): string[] {
  const json = JSON.stringify(canary).slice(1, -1);
  return [
    canary,
    json,
    encodeURIComponent(canary),
    Buffer.from(canary).toString('base64').slice(0, 24),
    canary.slice(3, 17),
  ];
}

const HEADERS = [
  'authorization',
  'x-api-key',
  'content-type',
  'accept',
  'x-bedrock-region',
  'x-bedrock-made-up',
  'x-amzn-bedrock-trace',
  'amz-sdk-invocation-id',
  'expect-ct',
];

describe.each(ROUTES.map((route): [string, Route] => [`${route.method} ${route.path}`, route]))(
  '%s',
  (_title, route) => {
    const names = [
      ...parametersOf(route).map(({ name }) => name),
      ...HEADERS.map((name) => `header ${name}`),
      'query <name>',
      ...(route.endpoint.body === undefined ? [] : ['body <name>', 'body <bytes>']),
    ];

    test('whatever is refused, the refusal and the log hold nothing of what was sent', async () => {
      const person = route.endpoint.kind === 'operator' ? operatorOf(service) : merchant;
      let refusals = 0;
      const kinds = Object.entries(CANARIES);
      await Promise.all(
        names.flatMap((name, index) =>
          (name.startsWith('body ') && !name.includes('<') ? Object.keys(SHAPES) : ['text']).map(
            async (shape, at) => {
              const [, canary = ''] = kinds[(index + at) % kinds.length] ?? [];
              const value = (SHAPES[shape] as (canary: string) => unknown)(canary);
              const headers = name.startsWith('header ') ? { [name.slice(7)]: canary } : {};
              const stranger = name === 'header x-api-key' || name === 'header authorization';
              const answer = await (stranger ? new Person(service.url) : person).send(
                route.method,
                pathOf(route, name, canary),
                bodyOf(route, name, value),
                headers,
              );
              // What was taken may be shown to who gave it: names, urls.
              if (answer.status < 400) return;
              refusals += 1;
              const said = answer.text + JSON.stringify([...answer.headers]);
              expect({ name, shape, found: formsOf(canary).filter((form) => said.includes(form)) }).toEqual({
                name,
                shape,
                found: [],
              });
              expect({ name, status: answer.status === 500 }).toEqual({ name, status: false });
            },
          ),
        ),
      );
      if (route.endpoint.kind !== 'public') expect(refusals).toBeGreaterThan(1);
      const log = service.logLines.join('\n');
      for (const canary of Object.values(CANARIES))
        expect(formsOf(canary).filter((form) => log.includes(form))).toEqual([]);
    });
  },
);
