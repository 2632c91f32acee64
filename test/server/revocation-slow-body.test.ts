import { once } from 'node:events';
import http from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createOperatorKey, revokeOperatorKey } from '../../scripts/cli/operator-keys.ts';
import { Secret } from '../../src/domain/secret.ts';
import { OPERATOR_SCOPES, MERCHANT_SCOPES } from '../../src/domain/principal.ts';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import { AWS } from '../support/aws-keys.ts';
import { JWT_SETTINGS, signJwt } from '../support/jwt.ts';
import { withAdmin } from '../support/limits.ts';
import { converseBody, directFields, onboard, operatorOf, Person } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startReceiver } from '../support/receiver.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

/**
 * Who is let in and sends a body byte by byte does nothing with a right that has ended meanwhile: on every route that takes a body, each with
 * a request that is done when the right still holds.
 */
const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const material = () => {
  const { awsAccessKeyId, awsSecretAccessKey } = directFields(AWS.merchantADirect);
  return { kind: 'access-key', awsAccessKeyId, awsSecretAccessKey };
};
const invoke = {
  anthropic_version: 'bedrock-2023-05-31',
  max_tokens: 20,
  messages: [{ role: 'user', content: 'hi' }],
};
const isOf = (kind: 'merchant' | 'operator') => (route: Route) =>
  route.endpoint.kind === kind && route.endpoint.body !== undefined;

let service: TestService;
let receiver: Awaited<ReturnType<typeof startReceiver>>;
/** Minutes that have passed for the service. */
let later = 0;

beforeAll(async () => {
  const clock = { now: () => Date.now() + later * 60_000 };
  service = await startTestService({ ...JWT_SETTINGS, ROTATION_MIN_INTERVAL_MS: '0' }, undefined, { clock });
  receiver = await startReceiver();
});
afterAll(async () => {
  await receiver[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

function newOperatorKey(): Promise<{ id: string; token: string }> {
  return createOperatorKey({
    adminUrl: service.database.adminUrl,
    pepper: new Secret(Buffer.from(service.env['TOKEN_PEPPER'] ?? '', 'base64')),
    environment: 'test',
    name: 'leaked',
    scopes: [...OPERATOR_SCOPES],
    expiresInDays: 1,
  });
}

/** A merchant with one of everything that a body can be sent to, and what each route takes. */
interface Town {
  merchant: MerchantPerson;
  pathOf: (route: Route) => string;
  bodyOf: (route: Route) => unknown;
}

async function townOf(merchant: MerchantPerson): Promise<Town> {
  const idOf = async (path: string, body: unknown) => {
    const answer = await merchant.post(path, body);
    expect(answer.status).toBeLessThan(300);
    return answer.json as { id: string; externalId: string };
  };
  const role = await idOf('/credentials', { kind: 'assume-role', name: 'role', region: 'us-east-1' });
  const roleArn = `arn:aws:iam::${AWS.merchantA.accountId}:role/${merchant.merchantId}`;
  service.standIn.addRole({ arn: roleArn, externalId: role.externalId });
  const spare = { ...material(), name: 'spare', region: 'us-east-1' };
  const [warm, frozen] = [await idOf('/credentials', spare), await idOf('/credentials', spare)];
  await idOf(`/credentials/${frozen.id}/freeze`, {});
  const rolled = await idOf('/api-keys', { name: 'to roll' });
  service.standIn.fault({ operation: 'Converse', cutBody: true });
  await merchant.post(`/model/${MODEL}/converse`, converseBody('lost'));
  const lost = await withAdmin(service, (admin) =>
    admin.query<{ id: string }>(`SELECT id FROM calls WHERE merchant_id = $1 AND state = 'unknown'`, [
      merchant.merchantId,
    ]),
  );
  const reason = 'a test';
  const bodies: Record<string, unknown> = {
    converse: converseBody('hi'),
    'converse-stream': converseBody('hi'),
    invoke,
    'invoke-with-response-stream': invoke,
    'count-tokens': { input: { converse: converseBody('hi') } },
    chat: { modelId: MODEL, prompt: 'hi' },
    // Sealed into a session, which is an effect.
    initialize: { ...directFields(AWS.merchantADirect) },
    credentials: { ...material(), name: 'another', region: 'us-east-1', makeDefault: true },
    ':cid': { isDefault: true },
    activate: { roleArn },
    freeze: { reason },
    thaw: {},
    rotate: material(),
    'permissions/test': { models: [MODEL] },
    limits: { endUsers: { each: { callsInFlight: { max: 100 } } } },
    webhooks: { url: `${receiver.url}/in` },
    'api-keys': { name: 'outlives its maker' },
    roll: { overlapHours: 1 },
    merchants: { id: `${merchant.merchantId}-child`, name: 'x', apiKey: { name: 'x' } },
    ':id': { status: 'active' },
    close: { merchantId: merchant.merchantId },
    resolve: { state: 'void', reason },
    'approve-account': { accountId: AWS.merchantA.accountId, reason },
    plans: { id: `of-${merchant.merchantId}`, spec: { callsInFlight: { max: 100 } } },
  };
  return {
    merchant,
    pathOf: ({ path }) =>
      path
        .replace(':id', merchant.merchantId)
        .replace(':cid/activate', `${role.id}/activate`)
        .replace(':cid/freeze', `${warm.id}/freeze`)
        .replace(':cid/thaw', `${frozen.id}/thaw`)
        .replace(':cid', merchant.credentialId)
        .replace(':kid', rolled.id)
        .replace(':callId', lost.rows[0]?.id ?? '')
        .replace('*modelId', MODEL),
    bodyOf: ({ path }) => bodies[/permissions\/test$/.exec(path)?.[0] ?? path.split('/').at(-1) ?? ''],
  };
}

/** Requests of which the service has let the head in and read the first byte. @returns what sends the rest of one and gives its answer. */
async function begin({ pathOf, bodyOf }: Town, routes: readonly Route[], token: string) {
  const before = service.service.services.bodyBudget.inUse;
  const begun = routes.map((route) => {
    const body = JSON.stringify(bodyOf(route));
    const request = http.request(service.url + pathOf(route), {
      method: route.method,
      agent: false,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      },
    });
    request.write(body.slice(0, 1));
    const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
    return { route, answered, rest: () => request.end(body.slice(1)), bytes: Buffer.byteLength(body) };
  });
  const all = begun.reduce((sum, { bytes }) => sum + bytes, before);
  while (service.service.services.bodyBudget.inUse < all) await new Promise((next) => setTimeout(next, 5));
  return begun.map(({ route, answered, rest }) => ({
    route: `${route.method} ${route.path}`,
    finish: async () => {
      rest();
      const [answer] = await answered;
      answer.resume();
      await once(answer, 'close');
      return answer.statusCode;
    },
  }));
}

/** How many things an actor was allowed so far. */
async function allowed(actor: string): Promise<number> {
  const { rowCount } = await withAdmin(service, (admin) =>
    admin.query(`SELECT 1 FROM audit_events WHERE actor = $1 AND outcome = 'allowed'`, [actor]),
  );
  return rowCount ?? 0;
}

/** All the rest is sent after the right has ended: each is refused, and nobody is allowed anything by it. */
async function expectRefused(
  begun: Awaited<ReturnType<typeof begin>>,
  { actor, status }: { actor: string; status: number },
): Promise<void> {
  const before = await allowed(actor);
  const answers: [string, number | undefined][] = [];
  for (const { route, finish } of begun) answers.push([route, await finish()]);
  // AWS's own words for a token that is not taken have 403.
  const expected = ({ route }: { route: string }) => (route.includes('/model/') ? 403 : status);
  expect(answers).toEqual(begun.map((one) => [one.route, expected(one)]));
  expect(await allowed(actor)).toBe(before);
}

/** The same requests do what they are for, so that it is the right that was missing. */
async function expectDone({ pathOf, bodyOf }: Town, routes: readonly Route[], person: Person): Promise<void> {
  for (const route of routes) {
    const { status, text } = await person.send(route.method, pathOf(route), bodyOf(route));
    expect([route.path, status, status < 300 ? '' : text]).toEqual([route.path, status, '']);
  }
}

describe('a body that comes after the right has ended', () => {
  const routes = ROUTES.filter(isOf('merchant'));

  test('of an API key that was revoked', async () => {
    const merchant = await onboard(service, 'merchant-key');
    const town = await townOf(merchant);
    const made = await merchant.post('/api-keys', { name: 'leaked', scopes: [...MERCHANT_SCOPES] });
    const { id, token } = made.json as { id: string; token: string };
    const begun = await begin(town, routes, token);
    expect((await merchant.send('DELETE', `/api-keys/${id}`)).status).toBe(204);
    await expectRefused(begun, { actor: `api-key:${id}`, status: 401 });
    await expectDone(town, routes, merchant);
  }, 60_000);

  test('of a merchant that was suspended', async () => {
    const merchant = await onboard(service, 'merchant-suspended');
    const town = await townOf(merchant);
    const begun = await begin(town, routes, await signJwt(merchant.merchantId, MERCHANT_SCOPES.join(' ')));
    const setStatus = (status: string) =>
      operatorOf(service).send('PATCH', `/api/ops/merchants/${merchant.merchantId}`, { status });
    expect((await setStatus('suspended')).status).toBe(200);
    await expectRefused(begun, { actor: 'jwt:user-1', status: 403 });
  }, 60_000);

  test('of a JWT that ran out', async () => {
    const merchant = await onboard(service, 'merchant-jwt');
    const town = await townOf(merchant);
    const begun = await begin(town, routes, await signJwt(merchant.merchantId, MERCHANT_SCOPES.join(' ')));
    later += 6;
    await expectRefused(begun, { actor: 'jwt:user-1', status: 401 });
    later -= 6;
  }, 60_000);

  test("of an operator's key that was revoked", async () => {
    const town = await townOf(await onboard(service, 'merchant-ops'));
    const ofOperators = ROUTES.filter(isOf('operator'));
    const { id, token } = await newOperatorKey();
    const begun = await begin(town, ofOperators, token);
    await revokeOperatorKey(service.database.adminUrl, id);
    await expectRefused(begun, { actor: `operator:${id}`, status: 401 });
    const closing = (route: Route) => route.path.endsWith('/close');
    await expectDone(
      town,
      // The merchant is closed at the end.
      [...ofOperators.filter((route) => !closing(route)), ...ofOperators.filter(closing)],
      operatorOf(service),
    );
  }, 60_000);
});

describe('a request that meets the revocation in the database', () => {
  /** Sends it while a revocation is under way in another transaction, which is committed once the request waits, or has not waited. */
  async function during(revoke: string, values: unknown[], send: () => Promise<Answer>): Promise<Answer> {
    return withAdmin(service, async (admin) => {
      await admin.query('BEGIN');
      await admin.query(revoke, values);
      const seen = { answered: false };
      const answer = send().finally(() => (seen.answered = true));
      const isWaiting = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ '(audit_append|plan_create)'`;
      while (!seen.answered && (await withAdmin(service, (other) => other.query(isWaiting))).rowCount === 0)
        await new Promise((next) => setTimeout(next, 5));
      await admin.query('COMMIT');
      return answer;
    });
  }

  test('of an API key: nothing is made', async () => {
    const merchant = await onboard(service, 'merchant-meets');
    const revoke = `SELECT api_key_revoke($1, $2, 'test', 'test')`;
    const values = [merchant.merchantId, merchant.apiKeyId];
    const answer = await during(revoke, values, () => merchant.post('/api-keys', { name: 'x' }));
    expect(answer).toMatchObject({ status: 401, json: { code: 'auth.invalid_token' } });
    expect(answer.headers.get('www-authenticate')).toMatch(/error="invalid_token"/);
  });

  test("of an operator's key: nothing is made", async () => {
    const { id, token } = await newOperatorKey();
    const revoke = 'UPDATE operator_keys SET revoked_at = clock_timestamp() WHERE id = $1';
    const plan = { id: 'too-late', spec: { callsInFlight: { max: 1 } } };
    const answer = await during(revoke, [id], () =>
      new Person(service.url, token).post('/api/ops/plans', plan),
    );
    expect(answer).toMatchObject({ status: 401, json: { code: 'auth.invalid_token' } });
  });

  test('a key that revokes itself may', async () => {
    const merchant = await onboard(service, 'merchant-leaves');
    expect((await merchant.send('DELETE', `/api-keys/${merchant.apiKeyId}`)).status).toBe(204);
    expect((await merchant.get('/api-keys')).status).toBe(401);
  });
});
