import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { AWS } from '../support/aws-keys.ts';
import { differencesOf, setPlan, setPrice, withAdmin } from '../support/limits.ts';
import { converseBody, MerchantPerson, onboard, operatorOf, runtimeCalls } from '../support/people.ts';
import type { Answer } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { awayFromMidnight, withinOne } from '../support/calendar.ts';
import { eventually } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
/** USD per million tokens. Two, so that money and tokens are not the same limit twice. */
const PRICE = { input: 2, output: 10 };

let service: TestService;
let others: ServiceProcess[];
let merchants = 0;

beforeAll(() => awayFromMidnight(), 180_000);
beforeAll(async () => {
  service = await startTestService();
  // Before they start: they read the price book then, and anew every ten seconds.
  await setPrice(service, MODEL, PRICE);
  others = await Promise.all(Array.from({ length: 3 }, () => startServiceProcess(service.env)));
  await watchEveryCommit(service);
}, 60_000);
beforeEach(() => {
  service.standIn.forget();
});
afterAll(async () => {
  for (const other of others) await other[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

/**
 * The oracle: at every commit that moved a counter with a hard limit, what the ledger's rows say is added up again, by no code of the
 * ledger, and compared with the limit. What passed it is kept.
 */
async function watchEveryCommit(of: TestService): Promise<void> {
  await withAdmin(of, async (admin) => {
    await admin.query(`
      CREATE TABLE passed (merchant_id text, period text, held numeric, maximum bigint);
      CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
      DECLARE
        k counters%ROWTYPE;
        tokens numeric;
        nano numeric;
        requests bigint;
        running bigint;
      BEGIN
        SELECT * INTO k FROM counters WHERE merchant_id = NEW.merchant_id AND scope = NEW.scope AND scope_id = NEW.scope_id AND period = NEW.period AND starts_at = NEW.starts_at;
        SELECT sum(CASE c.state WHEN 'held' THEN c.hold_tokens WHEN 'unknown' THEN c.hold_tokens WHEN 'settled' THEN c.input_tokens + c.output_tokens ELSE 0 END),
               sum(CASE c.state WHEN 'held' THEN c.hold_nano WHEN 'unknown' THEN c.hold_nano WHEN 'settled' THEN c.cost_nano ELSE 0 END),
               count(*), count(*) FILTER (WHERE c.state = 'held')
          INTO tokens, nano, requests, running
          FROM calls c WHERE c.merchant_id = k.merchant_id AND (k.scope = 'merchant' OR (k.scope = 'api-key' AND c.api_key_id = k.scope_id) OR (k.scope = 'end-user' AND c.end_user = k.scope_id))
            AND (k.period = 'total' OR date_trunc(k.period, c.created_at, 'UTC') = k.starts_at);
        INSERT INTO passed SELECT k.merchant_id, k.period || ' ' || v.kind, v.used, v.maximum
          FROM (VALUES ('tokens', tokens, k.tokens_max), ('money', nano, k.nano_max), ('requests', requests, k.requests_max), ('in flight', running, k.in_flight_max)) v (kind, used, maximum)
          WHERE v.used > v.maximum;
        RETURN NULL;
      END $$;
      CREATE CONSTRAINT TRIGGER looks AFTER INSERT OR UPDATE ON counters DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look();`);
  });
}

async function newMerchant(spec: Record<string, unknown>): Promise<MerchantPerson> {
  merchants += 1;
  const merchant = await onboard(service, `limited-${String(merchants)}`);
  await setPlan(service, merchant.merchantId, spec);
  return everywhere(merchant)[0] as MerchantPerson;
}

/** The same backend at each process of the service. */
function everywhere(merchant: MerchantPerson): MerchantPerson[] {
  const { merchantId, token = '', credentialId, apiKeyId } = merchant;
  return others.map(({ url }) => new MerchantPerson(url, { merchantId, token, credentialId, apiKeyId }));
}

interface Row {
  state: string;
  day: string;
  minute: string;
  hold_tokens: number;
  used: number;
  cost: number;
}

function rowsOf(merchantId: string): Promise<Row[]> {
  return withAdmin(service, async (admin) => {
    const { rows } = await admin.query<Row>(
      `SELECT state, date_trunc('day', created_at, 'UTC')::text AS day, date_trunc('minute', created_at, 'UTC')::text AS minute, hold_tokens::int, (input_tokens + output_tokens)::int AS used, coalesce(cost_nano, 0)::int AS cost FROM calls WHERE merchant_id = $1`,
      [merchantId],
    );
    return rows;
  });
}

/** How many there are in each minute, or day, that has any: a crowd may come at the turn of one. */
function countBy(rows: readonly Row[], period: 'day' | 'minute'): number[] {
  const counts = new Map<string, number>();
  for (const row of rows) counts.set(row[period], (counts.get(row[period]) ?? 0) + 1);
  return [...counts.values()];
}

async function passed(): Promise<unknown[]> {
  return withAdmin(service, async (admin) => (await admin.query('SELECT * FROM passed')).rows);
}

/** Many at once, over every process; some leave before their answer, some meet a failing AWS. */
async function crowd(merchant: MerchantPerson, callers: number, headers: Record<string, string> = {}) {
  const people = everywhere(merchant);
  for (let fault = 0; fault < callers / 10; fault += 1) {
    service.standIn.fault({ operation: 'Converse', status: 429, type: 'ThrottlingException', times: 1 });
    service.standIn.fault({ operation: 'Converse', delayMs: 5, times: 4 });
    service.standIn.fault({ operation: 'Converse', cutBody: true, times: 1 });
    service.standIn.fault({ operation: 'Converse', delayMs: 3, times: 3 });
    service.standIn.fault({ operation: 'Converse', reset: true, times: 1 });
  }
  return Promise.all(
    Array.from({ length: callers }, async (_, index) => {
      const person = people[index % people.length] as MerchantPerson;
      const words = 1 + (index % 40);
      const path = `/model/${MODEL}/converse`;
      const body = converseBody(`caller ${String(index)} STAND_IN_WORDS=${String(words)}`, 20 + (index % 50));
      if (index % 9 !== 4) return person.post(path, body, headers);
      const leave = AbortSignal.timeout(1 + (index % 15));
      await fetch(person.baseUrl + path, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${person.token ?? ''}`,
          'content-type': 'application/json',
          ...headers,
        },
        body: JSON.stringify(body),
        signal: leave,
      }).catch(() => undefined);
      return undefined;
    }),
  );
}

/** Waits until nothing of the merchant is held any more. */
async function settled(merchantId: string): Promise<Row[]> {
  return eventually(
    () => rowsOf(merchantId),
    (rows) => rows.every(({ state }) => state !== 'held'),
  );
}

/** Those that a limit refused. What else failed must have failed at AWS, which does on purpose here. */
function refusals(answers: readonly (Answer | undefined)[]): Answer[] {
  const failed = answers.filter((answer) => answer !== undefined && answer.status >= 400) as Answer[];
  const ours = failed.filter(({ json }) =>
    /\[limit\.(rate|budget)_exceeded\]$/.test(String(json['message'])),
  );
  for (const answer of failed.filter((one) => !ours.includes(one)))
    expect(answer.headers.get('x-amzn-errortype')).toMatch(
      /^(ModelStreamError|Throttling|ServiceUnavailable)Exception/,
    );
  return ours;
}

describe('at the edge of a limit, with 240 callers over three processes, callers that leave and an AWS that fails', () => {
  const LIMITS: [name: string, spec: Record<string, unknown>, refusal: string][] = [
    ['requests per minute', { requestsPerMinute: { max: 60, mode: 'hard' } }, 'ThrottlingException'],
    ['requests per day', { requestsPerDay: { max: 60, mode: 'hard' } }, 'ServiceQuotaExceededException'],
    ['tokens per minute', { tokensPerMinute: { max: 60_000, mode: 'hard' } }, 'ThrottlingException'],
    ['tokens per day', { tokensPerDay: { max: 60_000, mode: 'hard' } }, 'ServiceQuotaExceededException'],
    ['tokens per month', { tokensPerMonth: { max: 60_000, mode: 'hard' } }, 'ServiceQuotaExceededException'],
    ['money per day', { nanoUsdPerDay: { max: 100_000_000, mode: 'hard' } }, 'ServiceQuotaExceededException'],
    [
      'money per month',
      { nanoUsdPerMonth: { max: 100_000_000, mode: 'hard' } },
      'ServiceQuotaExceededException',
    ],
    ['credit', { nanoUsdCredit: { max: 100_000_000, mode: 'hard' } }, 'ServiceQuotaExceededException'],
    ['calls in flight', { callsInFlight: { max: 5, mode: 'hard' } }, 'ThrottlingException'],
    [
      'everything at once',
      {
        requestsPerDay: { max: 90, mode: 'hard' },
        tokensPerDay: { max: 80_000, mode: 'hard' },
        nanoUsdPerMonth: { max: 130_000_000, mode: 'hard' },
        callsInFlight: { max: 40, mode: 'hard' },
      },
      '',
    ],
  ];

  test.each(LIMITS)(
    '%s: never passed at any commit, and what fits is served',
    async (name, spec, refusal) => {
      const { merchant, answers, rows } = await withinOne(
        name.includes('minute') ? 'minute' : 'day',
        async () => {
          service.standIn.forget();
          const person = await newMerchant({ ...spec, clampFloor: 1 });
          const given = await crowd(person, 240);
          return { merchant: person, answers: given, rows: await settled(person.merchantId) };
        },
      );

      expect(await passed()).toEqual([]);
      expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
      const refused = refusals(answers);
      expect(refused.length).toBeGreaterThan(0);
      expect(rows.length).toBeGreaterThan(0);
      // Every refusal was one of this limit, and tells so.
      for (const answer of refused) {
        expect(answer.json['message']).toMatch(/\[limit\.(rate|budget)_exceeded\]$/);
        if (refusal !== '') expect(answer.headers.get('x-amzn-errortype')).toBe(refusal);
      }
      // What fits is served: where a request was refused, that minute or day has its requests to the last one.
      const requests = (spec['requestsPerMinute'] ?? spec['requestsPerDay']) as { max: number } | undefined;
      if (requests !== undefined && Object.keys(spec).length === 1)
        expect(Math.max(...countBy(rows, spec['requestsPerDay'] ? 'day' : 'minute'))).toBe(requests.max);
      service.standIn.forget();
    },
    180_000,
  );

  test('a budget is used to its last token: small calls go on until not one more fits', async () => {
    const merchant = await newMerchant({ tokensPerDay: { max: 20_000, mode: 'hard' }, clampFloor: 1 });
    await crowd(merchant, 60);
    service.standIn.forget();
    let last: Answer | undefined;
    for (let call = 0; call < 400; call += 1) {
      last = await merchant.post(`/model/${MODEL}/converse`, converseBody('STAND_IN_WORDS=300', 300));
      if (last.status !== 200) break;
    }
    const rows = await settled(merchant.merchantId);
    const used = rows.reduce(
      (sum, row) =>
        sum + (row.state === 'settled' ? row.used : row.state === 'unknown' ? row.hold_tokens : 0),
      0,
    );
    const smallest = Math.min(...rows.map((row) => row.hold_tokens));
    expect(last?.headers.get('x-amzn-errortype')).toBe('ServiceQuotaExceededException');
    expect(used).toBeLessThanOrEqual(20_000);
    expect(20_000 - used).toBeLessThan(smallest);
    expect(await passed()).toEqual([]);
  }, 120_000);
});

describe('limits of API keys and end users', () => {
  test('hold for each of them, beside the merchant’s, and a limit for one is not one for another', async () => {
    const merchant = await onboard(service, 'limits-reader', { scopes: ['invoke', 'usage:read'] });
    const body = {
      endUsers: {
        each: { requestsPerDay: { max: 7 } },
        byId: { 'user-vip': { requestsPerDay: { max: 20 } } },
      },
      apiKeys: { byId: { [merchant.apiKeyId]: { requestsPerDay: { max: 40 } } } },
    };
    expect((await merchant.send('PUT', '/limits', body)).status).toBe(403);
    const admin = await onboard(service, 'limits-admin', {
      scopes: ['invoke', 'limits:write', 'usage:read'],
    });
    const apiKeys = { byId: { [admin.apiKeyId]: { requestsPerDay: { max: 40 } } } };
    const allowed = await admin.send('PUT', '/limits', { ...body, apiKeys });
    expect(allowed.status).toBe(200);
    for (const user of ['user-1', 'user-2', 'user-vip'])
      await crowd(admin, 30, { 'x-bedrock-end-user': user });
    await settled(admin.merchantId);
    const counted = await withAdmin(service, (sql) =>
      sql.query(
        `SELECT end_user, count(*)::int AS n FROM calls WHERE merchant_id = $1 GROUP BY 1 ORDER BY 1`,
        [admin.merchantId],
      ),
    );
    expect(counted.rows).toEqual([
      { end_user: 'user-1', n: 7 },
      { end_user: 'user-2', n: 7 },
      { end_user: 'user-vip', n: 20 },
    ]);
    // Six more are left of the key's forty, whoever they are for.
    await crowd(admin, 30);
    expect(await rowsOf(admin.merchantId)).toHaveLength(40);
    expect(await differencesOf(service, admin.merchantId)).toEqual([]);
    expect(await passed()).toEqual([]);
  });

  test.each(['x'.repeat(129), 'AKIAIOSFODNN7EXAMPLEAKIAIOSFODNN7EXAMPLE', 'two words', 'ünï'])(
    'an end user that cannot be one is refused: %j',
    async (user) => {
      const merchant = await newMerchant({});
      const answer = await merchant.post(`/model/${MODEL}/converse`, converseBody('x', 1), {
        'x-bedrock-end-user': encodeURI(user),
      });
      expect([answer.status, await rowsOf(merchant.merchantId)]).toEqual([
        user === 'two words' || user === 'ünï' ? 400 : 400,
        [],
      ]);
    },
  );
});

describe('the output is held to what fits', () => {
  test('a body that asks for more is clamped in the outgoing request, and the caller is told', async () => {
    const merchant = await newMerchant({ maxTokens: 30 });
    const answer = await merchant.post(`/model/${MODEL}/converse`, converseBody('STAND_IN_WORDS=200', 500));
    expect(answer.status).toBe(200);
    expect(answer.headers.get('x-bedrock-max-tokens')).toBe('30');
    const sent = JSON.parse(
      Buffer.from(runtimeCalls(service).at(-1)?.bodyBase64 ?? '', 'base64').toString(),
    ) as { inferenceConfig: unknown };
    expect(sent.inferenceConfig).toEqual({ maxTokens: 30 });
    expect((answer.json as { usage: { outputTokens: number } }).usage.outputTokens).toBe(30);
  });

  test('a body that says nothing is told, where a hard limit counts on it', async () => {
    const merchant = await newMerchant({ tokensPerDay: { max: 100_000, mode: 'hard' } });
    const answer = await merchant.post(`/model/${MODEL}/converse`, converseBody('STAND_IN_WORDS=3'));
    expect(answer.headers.get('x-bedrock-max-tokens')).toBe('8192');
    const free = await newMerchant({});
    const untouched = await free.post(`/model/${MODEL}/converse`, converseBody('STAND_IN_WORDS=3'));
    expect(untouched.headers.get('x-bedrock-max-tokens')).toBeNull();
  });

  test('near the end of a budget only a part of the output fits; a plan may refuse instead', async () => {
    const spec = { tokensPerDay: { max: 3_000, mode: 'hard' } };
    const [clamps, refuses] = [await newMerchant(spec), await newMerchant({ ...spec, whenOver: 'refuse' })];
    const body = converseBody('STAND_IN_WORDS=5000', 5_000);
    const clamped = await clamps.post(`/model/${MODEL}/converse`, body);
    expect(clamped.status).toBe(200);
    expect(Number(clamped.headers.get('x-bedrock-max-tokens'))).toBeLessThan(3_000);
    const refused = await refuses.post(`/model/${MODEL}/converse`, body);
    expect(refused.headers.get('x-amzn-errortype')).toBe('ServiceQuotaExceededException');
    expect(refused.json['message']).toMatch(
      /tokensPerDay .*: 3000 of 3000 left, and this call can need \d+\. It resets at .*It would never fit/,
    );
    for (const merchant of [clamps, refuses])
      expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });

  test('more than the plan allows at once is refused where the plan says so', async () => {
    const merchant = await newMerchant({ maxTokens: 30, whenOver: 'refuse' });
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', maxTokens: 31 });
    expect(answer.json).toMatchObject({ status: 400, code: 'limit.max_tokens' });
  });
});

describe('an AWS that reports more than the bound', () => {
  test('is believed: the truth is stored, the overrun counted and told, and the merchant stopped until an operator says otherwise', async () => {
    const merchant = await newMerchant({ tokensPerDay: { max: 100_000, mode: 'hard' } });
    await withAdmin(service, (admin) =>
      admin.query(`CREATE FUNCTION too_low() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.hold_tokens := 2; RETURN NEW; END $$;
        CREATE TRIGGER too_low BEFORE INSERT ON calls FOR EACH ROW WHEN (NEW.merchant_id = '${merchant.merchantId}') EXECUTE FUNCTION too_low()`),
    );
    const answer = await merchant.post(
      `/model/${MODEL}/converse`,
      converseBody('one two STAND_IN_WORDS=9', 20),
    );
    expect(answer.status).toBe(200);
    expect(await rowsOf(merchant.merchantId)).toMatchObject([{ state: 'settled', used: 12 }]);
    const after = await merchant.post(`/model/${MODEL}/converse`, converseBody('x', 20));
    expect(after.json['message']).toMatch(/\[merchant\.not_active\]$/);
    const alerts = await withAdmin(service, (admin) =>
      admin.query('SELECT kind, used::int FROM alerts WHERE merchant_id = $1 AND kind = $2', [
        merchant.merchantId,
        'overrun',
      ]),
    );
    expect(alerts.rows).toEqual([{ kind: 'overrun', used: 12 }]);
    const operator = operatorOf(service);
    await operator.send('PATCH', `/api/ops/merchants/${merchant.merchantId}`, { status: 'active' });
    expect((await merchant.post(`/model/${MODEL}/converse`, converseBody('x', 20))).status).toBe(200);
  });
});

describe('what a plan allows', () => {
  test.each<[string, Record<string, unknown>, Record<string, unknown>, string]>([
    ['a model', { models: ['anthropic.*'] }, {}, 'limit.model_not_allowed'],
    ['a region', { regions: ['eu-west-1'] }, {}, 'region.not_allowed'],
    ['a source', { sources: ['direct'] }, {}, 'auth.source_not_allowed'],
    [
      'money with an unpriced model',
      { nanoUsdPerDay: { max: 1_000_000_000, mode: 'hard' } },
      { modelId: 'amazon.titan-text-lite-v1' },
      'limit.unpriced',
    ],
  ])('%s that is not in it is refused without a call', async (_name, spec, change, code) => {
    const merchant = await newMerchant(spec);
    service.standIn.forget();
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', ...change });
    expect(answer.json['code']).toBe(code);
    expect(runtimeCalls(service)).toEqual([]);
  });

  test('shadow refuses nothing and counts what it would have refused; soft only counts', async () => {
    const merchant = await newMerchant({
      requestsPerDay: { max: 2, mode: 'shadow' },
      tokensPerDay: { max: 10, mode: 'soft' },
    });
    for (let call = 0; call < 5; call += 1)
      expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'x', maxTokens: 20 })).status).toBe(200);
    const { json } = await merchant.get('/limits');
    expect(json['hitsToday']).toEqual([
      { limit: 'requestsPerDay', scope: 'merchant', mode: 'shadow', hits: 3 },
    ]);
  });

  test('an override changes single limits until it ends, and every process knows at once', async () => {
    const merchant = await newMerchant({ requestsPerDay: { max: 1, mode: 'hard' } });
    const call = (person: MerchantPerson) =>
      person.post('/chat', { modelId: MODEL, prompt: 'x', maxTokens: 20 });
    expect((await call(merchant)).status).toBe(200);
    expect((await call(merchant)).status).toBe(429);
    const patch = (override: unknown) =>
      operatorOf(service).send('PATCH', `/api/ops/merchants/${merchant.merchantId}`, { override });
    await patch({
      spec: { requestsPerDay: { max: 3 } },
      endsAt: new Date(Date.now() + 3_600_000).toISOString(),
    });
    for (const person of everywhere(merchant).slice(1)) expect((await call(person)).status).toBe(200);
    await patch({ spec: { requestsPerDay: { max: 99 } }, endsAt: '2026-01-01T00:00:00Z' });
    expect((await call(merchant)).status).toBe(429);
    await patch(null);
    const { json } = await merchant.get('/limits');
    expect(json).toMatchObject({
      override: null,
      limits: [{ name: 'requestsPerDay', mode: 'hard', max: 1, used: 3, scope: 'merchant', scopeId: null }],
    });
  });

  test('another default credential is used by every process at once, whatever it remembers', async () => {
    const merchant = await newMerchant({});
    const [first, second] = everywhere(merchant);
    const account = async () =>
      (await second?.post('/chat', { modelId: MODEL, prompt: 'x' }))?.json['accountId'];
    expect(await account()).toBe(AWS.merchantA.accountId);
    const { accessKeyId: awsAccessKeyId, secretAccessKey: awsSecretAccessKey } = AWS.merchantB;
    const made = await first?.post('/credentials', {
      kind: 'access-key',
      name: 'other',
      region: 'us-east-1',
      awsAccessKeyId,
      awsSecretAccessKey,
      makeDefault: true,
    });
    expect(made?.status).toBe(201);
    expect(await account()).toBe(AWS.merchantB.accountId);
  });

  test('what is left is told with every answer, and with a refusal', async () => {
    const merchant = await newMerchant({ requestsPerDay: { max: 9, mode: 'hard' } });
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', maxTokens: 20 });
    expect(answer.headers.get('ratelimit-policy')).toBe('"requestsPerDay";q=9');
    expect(answer.headers.get('ratelimit')).toMatch(/^"requestsPerDay";r=8;t=\d+$/);
    await setPlan(service, merchant.merchantId, { requestsPerDay: { max: 1, mode: 'hard' } });
    const refusals = [
      await merchant.post('/chat', { modelId: MODEL, prompt: 'x', maxTokens: 20 }),
      await merchant.post(`/model/${MODEL}/converse`, converseBody('x')),
    ];
    for (const refusal of refusals) {
      expect(refusal.status).toBeGreaterThanOrEqual(400);
      expect(refusal.headers.get('ratelimit-policy')).toBe('"requestsPerDay";q=1');
      expect(refusal.headers.get('ratelimit')).toMatch(/^"requestsPerDay";r=0;t=\d+$/);
    }
  });
});

test('a statement that would pass a limit is refused by the database, whoever wrote it', async () => {
  const merchant = await newMerchant({ tokensPerDay: { max: 100_000 } });
  expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'hello' })).status).toBe(200);
  await withAdmin(service, async (admin) => {
    for (const change of [
      'in_flight = 2, in_flight_max = 1',
      'requests = 2, requests_max = 1',
      ...['held', 'unknown', 'settled'].flatMap((part) =>
        ['tokens', 'nano'].map((kind) => {
          const parts = ['held', 'unknown', 'settled'].map(
            (each) => `${kind}_${each} = ${each === part ? '2' : '0'}`,
          );
          return [...parts, `${kind}_max = 1`].join(', ');
        }),
      ),
    ])
      await expect(admin.query(`UPDATE counters SET ${change}`)).rejects.toMatchObject({ code: '23514' });
  });
});
