import { randomBytes, randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { systemClock } from '../../src/domain/clock.ts';
import type { MerchantId, WebhookId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { WebhookDeliverer } from '../../src/ledger/webhook-deliverer.ts';
import type { DelivererParts } from '../../src/ledger/webhook-deliverer.ts';
import type { DeliveryResult, TakenDelivery } from '../../src/ledger/webhook-delivery.ts';
import { WebhookSecrets } from '../../src/ledger/webhook-secrets.ts';
import { WebhookSender } from '../../src/ledger/webhook-sender-out.ts';
import { WebhookStore } from '../../src/ledger/webhook-store.ts';
import { newLogger } from '../../src/observability/logger.ts';
import { Database } from '../../src/persistence/database.ts';
import { startStandIn } from '../aws/stand-in.ts';
import { newTestDatabase } from '../support/database.ts';
import { MerchantPerson, onboard, operatorOf } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import { isSigned, startReceiver } from '../support/receiver.ts';
import type { Received, Receiver } from '../support/receiver.ts';
import { environmentFor, registerServiceAccount } from '../support/service-environment.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let admin: pg.Client;
let receiver: Receiver;
let merchants = 0;

beforeAll(async () => {
  service = await startTestService();
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  receiver = await startReceiver();
});
afterAll(async () => {
  await receiver[Symbol.asyncDispose]();
  await admin.end();
  await service[Symbol.asyncDispose]();
});
afterEach(async () => {
  // What one test left in the outbox must not keep the next one waiting.
  await admin.query('DELETE FROM webhook_deliveries');
});

function newMerchant(): Promise<MerchantPerson> {
  merchants += 1;
  return onboard(service, `merchant-${String(merchants)}`);
}

interface Made {
  id: string;
  secret: string;
  path: string;
}

/** A webhook on a path of its own. */
async function newWebhook(person: MerchantPerson, events?: string[], to = receiver): Promise<Made> {
  const path = `/in/${randomUUID()}`;
  const answer = await person.post('/webhooks', { url: to.url + path, ...(events && { events }) });
  expect(answer.status).toBe(201);
  const { id, secret } = answer.json as { id: string; secret: string };
  return { id, secret, path };
}

/** As if the waiting time were over. Only what nobody sends at this moment. */
async function hurry(): Promise<void> {
  await admin.query(
    `UPDATE webhook_deliveries SET next_at = now() WHERE state = 'pending' AND lease IS NULL`,
  );
}

const arrived = (path: string, count = 1) =>
  until('it arrives', () => receiver.at(path).length >= count && receiver.at(path));

interface Delivery {
  id: string;
  state: string;
  attempts: number;
  nextAt: string | null;
  lastStatus: number | null;
  lastError: string | null;
}

async function deliveries(person: MerchantPerson, webhook: Made, query = ''): Promise<Delivery[]> {
  return ((await person.get(`/webhooks/${webhook.id}/deliveries${query}`)).json as { items: Delivery[] })
    .items;
}

const inState = (person: MerchantPerson, webhook: Made, state: string) =>
  until(`it is ${state}`, async () =>
    (await deliveries(person, webhook)).find((delivery) => delivery.state === state),
  );

/** An alert as the ledger would raise it. */
async function raise(merchantId: string, count = 1, kind = 'threshold'): Promise<void> {
  await admin.query(
    `INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used, maximum)
     SELECT $1, uuid_v7(), $2, 'merchant', '', 'raised-' || gen_random_uuid(), now(), 50, 5, 10 FROM generate_series(1, $3)`,
    [merchantId, kind, count],
  );
}

const idOf = (received: Received | undefined) => received?.headers['webhook-id'];
const logged = (event: string, about: string) =>
  service.logLines
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => line['msg'] === event && JSON.stringify(line).includes(about));

describe('alerts of real calls', () => {
  test('50, 80 and 100 percent and the forecast arrive once a period, signed; the log has each; GET /alerts has them in pages', async () => {
    const merchant = await newMerchant();
    const quiet = await newMerchant();
    const all = await newWebhook(merchant);
    const forecasts = await newWebhook(merchant, ['alert.forecast']);
    const call = (person: MerchantPerson) =>
      person.post('/chat', { modelId: MODEL, prompt: 'the same words each time' });
    const { inputTokens, outputTokens } = (await call(merchant)).json['usage'] as Record<string, number>;
    const tokens = (inputTokens ?? 0) + (outputTokens ?? 0);
    expect(tokens).toBeGreaterThan(0);
    await call(quiet);

    // A forecast needs a tenth of its period; the day has it where the month is too young.
    const now = new Date();
    const days = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate();
    const ofDay = (now.getUTCHours() * 60 + now.getUTCMinutes()) / 1_440;
    const ofMonth = (now.getUTCDate() - 1 + ofDay) / days;
    const [limit, elapsed] =
      ofMonth > 0.11 ? (['tokensPerMonth', ofMonth] as const) : (['tokensPerDay', ofDay] as const);
    for (const person of [merchant, quiet]) {
      const set = await operatorOf(service).send('PATCH', `/api/ops/merchants/${person.merchantId}`, {
        override: { spec: { [limit]: { max: 10 * tokens, mode: 'soft' } } },
      });
      expect(set.status).toBe(200);
    }
    for (let made = 2; made <= 12; made += 1) {
      expect((await call(merchant)).status).toBe(200);
      if (made <= 5) await call(quiet);
    }

    const expected = ['50', '80', '100', ...(elapsed > 0.11 ? ['forecast'] : [])].sort();
    await arrived(all.path, expected.length);
    const told = receiver.at(all.path);
    const nameOf = ({ json }: Received) =>
      json.type === 'alert.forecast' ? 'forecast' : String(json.data['percent']);
    expect(told.map(nameOf).sort()).toEqual(expected);
    for (const received of told) {
      expect(isSigned(received, all.secret)).toBe(true);
      expect(isSigned(received, forecasts.secret)).toBe(false);
      expect(received.headers['content-type']).toBe('application/json');
      expect(received.json).toEqual({
        type: expect.stringMatching(/^alert\.(threshold|forecast)$/),
        timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        data: {
          alertId: expect.stringMatching(/^[0-9a-f-]{36}$/),
          merchantId: merchant.merchantId,
          kind: received.json.type.slice('alert.'.length),
          scope: 'merchant',
          scopeId: null,
          limit,
          periodStartsAt: expect.stringMatching(/T00:00:00\.000Z$/),
          percent: expect.any(Number),
          used: expect.any(Number),
          max: 10 * tokens,
          callId: null,
        },
      });
    }
    expect(new Set(told.map(idOf)).size).toBe(told.length);
    const fifty = told.find((received) => nameOf(received) === '50');
    expect(fifty?.json.data['used']).toBe(5 * tokens);
    if (elapsed > 0.11) expect((await arrived(forecasts.path)).map(nameOf)).toEqual(['forecast']);

    // Page by page, newest first, and what was sent is what is shown.
    const pages: Record<string, unknown>[] = [];
    let cursor = '';
    do {
      const { items, nextCursor = '' } = (await merchant.get(`/alerts?limit=2${cursor}`)).json as {
        items: Record<string, unknown>[];
        nextCursor?: string;
      };
      expect(items.length).toBeGreaterThan(0);
      pages.push(...items);
      cursor = nextCursor && `&cursor=${nextCursor}`;
    } while (cursor !== '');
    const { alertId, merchantId: _merchant, ...shown } = fifty?.json.data ?? {};
    expect(pages.find(({ id }) => id === alertId)).toEqual({
      id: alertId,
      ...shown,
      createdAt: fifty?.json.timestamp,
    });
    expect(
      pages
        .map(({ id }) => id)
        .sort()
        .reverse(),
    ).toEqual(pages.map(({ id }) => id));
    expect(pages.map(({ id }) => id).sort()).toEqual(told.map(({ json }) => json.data['alertId']).sort());
    expect((await quiet.get('/alerts')).text).not.toContain(merchant.merchantId);

    // Each alert is logged once, webhooks or not.
    await until('the alert is logged', () => logged('alert', quiet.merchantId).length > 0);
    expect(
      logged('alert', merchant.merchantId)
        .map((line) => line['alertId'])
        .sort(),
    ).toEqual(pages.map(({ id }) => id).sort());
    expect(logged('alert', quiet.merchantId)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ kind: 'threshold', percent: 50, limit, used: 5 * tokens }),
      ]),
    );
  });

  test('the outbox is filled in the transaction of the alert: no alert, no event', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant, ['alert.overrun']);
    await admin.query('BEGIN');
    await raise(merchant.merchantId, 1, 'overrun');
    await admin.query('ROLLBACK');
    await raise(merchant.merchantId, 1, 'threshold');
    expect(await deliveries(merchant, webhook)).toEqual([]);
    await raise(merchant.merchantId, 1, 'overrun');
    expect((await arrived(webhook.path)).map(({ json }) => json.type)).toEqual(['alert.overrun']);
  });

  test('what is over is forgotten after thirty days; what is not stays', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant, ['alert.overrun']);
    const old = `uuid_v7_floor(now() - interval '31 days')`;
    await admin.query(`INSERT INTO webhook_deliveries (merchant_id, id, webhook_id, event, body, state, next_at)
      VALUES ('${merchant.merchantId}', ${old}, '${webhook.id}', 'x', '{}', 'dead', now()),
        ('${merchant.merchantId}', uuid_v7(), '${webhook.id}', 'x', '{}', 'dead', now()),
        ('${merchant.merchantId}', uuid_v7_floor(now() - interval '32 days'), '${webhook.id}', 'x', '{}', 'pending', now() + interval '1 hour')`);
    await raise(merchant.merchantId);
    expect((await deliveries(merchant, webhook)).map(({ state }) => state)).toEqual(['dead', 'pending']);
  });
});

describe('what merchants do with webhooks', () => {
  test('the secret is shown once and kept only sealed; deleting is final; the trail has it all and no path of the URL', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant, ['alert.forecast', 'alert.overrun']);
    const list = await merchant.get('/webhooks');
    expect(list.json['items']).toEqual([
      {
        id: webhook.id,
        url: receiver.url + webhook.path,
        events: ['alert.forecast', 'alert.overrun'],
        state: 'active',
        createdAt: expect.any(String),
        createdBy: `api-key:${merchant.apiKeyId}`,
      },
    ]);
    const { rows } = await admin.query<{ row: string; sealed: Buffer }>(
      'SELECT w::text AS row, sealed FROM webhooks w WHERE id = $1',
      [webhook.id],
    );
    const raw = Buffer.from(webhook.secret.slice(6), 'base64');
    expect(rows[0]?.sealed.includes(raw)).toBe(false);
    expect(list.text + (rows[0]?.row ?? '')).not.toContain(webhook.secret.slice(6));

    const tested = await merchant.post(`/webhooks/${webhook.id}/test`, undefined);
    expect(tested.status).toBe(202);
    const [received] = await arrived(webhook.path);
    expect(idOf(received)).toBe(tested.json['deliveryId']);
    expect(received?.json).toMatchObject({ type: 'webhook.test', data: { webhookId: webhook.id } });
    expect(isSigned(received as Received, webhook.secret)).toBe(true);
    await inState(merchant, webhook, 'delivered');

    expect((await merchant.send('DELETE', `/webhooks/${webhook.id}`)).status).toBe(204);
    expect((await merchant.send('DELETE', `/webhooks/${webhook.id}`)).json['code']).toBe('webhook.not_found');
    expect((await merchant.get(`/webhooks/${webhook.id}/deliveries`)).json['code']).toBe('webhook.not_found');
    expect((await merchant.post(`/webhooks/${webhook.id}/test`, undefined)).json['code']).toBe(
      'webhook.not_found',
    );
    const trail = (await merchant.get('/audit?limit=3')).json['items'] as Record<string, unknown>[];
    expect(trail.map(({ action, resource }) => [action, resource])).toEqual(
      ['webhook.deleted', 'webhook.tested', 'webhook.created'].map((action) => [
        action,
        `webhook/${webhook.id}`,
      ]),
    );
    expect(JSON.stringify(trail)).not.toContain(webhook.path);
    expect(JSON.stringify(trail)).toContain('127.0.0.1');
  });

  test.each([
    ['http://hooks.example/', /https/],
    ['https://user:pass@hooks.example/', /user or password/],
    ['https://hooks.example:25/', /port/],
    ['https://169.254.169.254/latest/meta-data', /internet/],
    ['https://[fd00::1]/', /internet/],
    ['https://0x7f.1/', /internet/],
  ])('%s is refused', async (url, says) => {
    const answer = await (await newMerchant()).post('/webhooks', { url });
    expect(answer).toMatchObject({
      status: 400,
      json: { code: 'request.invalid', problems: [expect.stringMatching(says)] },
    });
    expect(answer.text).not.toContain('hooks.example');
  });

  test('events must be known, and named once', async () => {
    const merchant = await newMerchant();
    for (const events of [[], ['alert.*'], ['alert.forecast', 'alert.forecast'], ['webhook.test']])
      expect((await merchant.post('/webhooks', { url: 'https://hooks.example/', events })).status).toBe(400);
  });

  test('ten at most, however many are made at one time', async () => {
    const merchant = await newMerchant();
    const made = await Promise.all(
      Array.from({ length: 14 }, () => merchant.post('/webhooks', { url: 'https://hooks.example/' })),
    );
    expect(made.filter(({ status }) => status === 201)).toHaveLength(10);
    expect(made.find(({ status }) => status !== 201)?.json['code']).toBe('webhook.too_many');
  });
});

describe('receivers that do not take it', () => {
  test('errors, redirects, broken connections and silence are tried again later, under the same id, until it is taken', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant);
    const elsewhere = `/in/${randomUUID()}`;
    const ways: [number | ((response: ServerResponse) => void), number | null, string][] = [
      [500, 500, 'the receiver answered with an error'],
      [
        (response) => response.writeHead(302, { location: receiver.url + elsewhere }).end(),
        302,
        'redirects are not followed',
      ],
      [
        (response) => response.writeHead(307, { location: receiver.url + elsewhere }).end(),
        307,
        'redirects are not followed',
      ],
      [(response) => response.destroy(), null, 'connection lost'],
      [404, 404, 'the receiver answered with an error'],
      [304, 304, 'redirects are not followed'],
    ];
    receiver.will(webhook.path, ...ways.map(([way]) => way), 204);
    let before = Date.now();
    await raise(merchant.merchantId);
    for (const [index, [, status, error]] of ways.entries()) {
      await arrived(webhook.path, index + 1);
      const failed = await until('the try is recorded', async () =>
        (await deliveries(merchant, webhook)).find(
          ({ attempts, lastError }) => attempts === index + 1 && lastError !== null,
        ),
      );
      expect(failed).toMatchObject({ state: 'pending', lastStatus: status, lastError: error });
      // It was tried between `before` and now; a fifth more or less is chance.
      const nextAt = Date.parse(failed.nextAt ?? '');
      const usual = Math.min(5 * 4 ** index, 21_600) * 1_000;
      expect(nextAt).toBeGreaterThanOrEqual(before + usual * 0.8 - 1);
      expect(nextAt).toBeLessThanOrEqual(Date.now() + usual * 1.2 + 1);
      await admin.query(`UPDATE webhook_deliveries SET last_error = NULL WHERE webhook_id = $1`, [
        webhook.id,
      ]);
      before = Date.now();
      await hurry();
    }
    expect(await inState(merchant, webhook, 'delivered')).toMatchObject({
      attempts: ways.length + 1,
      lastStatus: 204,
      lastError: null,
      nextAt: null,
    });
    const seen = receiver.at(webhook.path);
    expect(seen).toHaveLength(ways.length + 1);
    expect(new Set(seen.map(idOf)).size).toBe(1);
    expect(new Set(seen.map(({ body }) => body)).size).toBe(1);
    expect(seen.every((received) => isSigned(received, webhook.secret))).toBe(true);
    expect(receiver.at(elsewhere)).toEqual([]);
  });

  test('slow answers, answers without end and answers that break off: the status counts', async () => {
    const merchant = await newMerchant();
    for (const way of [
      (response: ServerResponse) => setTimeout(() => response.end(), 1_500),
      (response: ServerResponse) => {
        const more = () => {
          while (!response.destroyed && response.write('x'.repeat(16_384)));
        };
        response.on('drain', more);
        more();
      },
      (response: ServerResponse) =>
        response.writeHead(200, { 'content-length': '9' }).write('x', () => response.destroy()),
    ]) {
      const webhook = await newWebhook(merchant, ['alert.overrun']);
      receiver.will(webhook.path, way);
      await merchant.post(`/webhooks/${webhook.id}/test`, undefined);
      expect(await inState(merchant, webhook, 'delivered')).toMatchObject({ attempts: 1, lastStatus: 200 });
    }
  });

  test('after the last attempt it is dead; a replay sends it again under its id, with all attempts', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant);
    receiver.will(webhook.path, 503);
    await raise(merchant.merchantId);
    const [first] = await arrived(webhook.path);
    const pending = await until('the try is recorded', async () =>
      (await deliveries(merchant, webhook)).find(({ lastStatus }) => lastStatus === 503),
    );
    const replay = (id: string) =>
      merchant.post(`/webhooks/${webhook.id}/deliveries/${id}/replay`, undefined);
    expect((await replay(pending.id)).json['code']).toBe('webhook.delivery_pending');
    await admin.query('UPDATE webhook_deliveries SET attempts = 9 WHERE webhook_id = $1', [webhook.id]);
    await hurry();
    await until('the try is recorded', async () =>
      (await deliveries(merchant, webhook)).find(
        ({ attempts, lastStatus, nextAt }) =>
          attempts === 10 && lastStatus === 503 && Date.parse(nextAt ?? '') > Date.now() + 3_600_000,
      ),
    );
    await hurry();
    expect(await inState(merchant, webhook, 'dead')).toMatchObject({
      attempts: 11,
      lastStatus: 503,
      nextAt: null,
    });
    expect(logged('webhook given up', webhook.id)).toEqual([
      expect.objectContaining({ level: 40, attempt: 11, status: 503 }),
    ]);
    expect((await deliveries(merchant, webhook, '?state=dead')).map(({ id }) => id)).toEqual([pending.id]);
    expect(await deliveries(merchant, webhook, '?state=delivered')).toEqual([]);
    await hurry();
    expect(receiver.at(webhook.path)).toHaveLength(3);

    receiver.will(webhook.path, 500, 200);
    expect((await replay(pending.id)).status).toBe(202);
    await arrived(webhook.path, 4);
    await until('the try is recorded', async () =>
      (await deliveries(merchant, webhook)).find(
        ({ attempts, lastStatus }) => attempts === 1 && lastStatus === 500,
      ),
    );
    await hurry();
    expect(await inState(merchant, webhook, 'delivered')).toMatchObject({ id: pending.id, attempts: 2 });
    expect(new Set(receiver.at(webhook.path).map(idOf))).toEqual(new Set([idOf(first)]));
    // What was taken can be sent again too; what is not there, or another webhook's, cannot.
    expect((await replay(pending.id)).status).toBe(202);
    await arrived(webhook.path, 6);
    for (const id of [randomUUID(), 'x', '%00'])
      expect((await replay(id)).json['code']).toBe('webhook.delivery_not_found');
    const other = await newWebhook(merchant);
    expect(
      (await merchant.post(`/webhooks/${other.id}/deliveries/${pending.id}/replay`, undefined)).json['code'],
    ).toBe('webhook.delivery_not_found');
  });

  test('410 disables the webhook, for all that waits for it too, and is in the trail', async () => {
    const merchant = await newMerchant();
    const webhook = await newWebhook(merchant);
    const other = await newWebhook(merchant);
    receiver.will(webhook.path, 500, 410);
    await raise(merchant.merchantId);
    await until('the try is recorded', async () =>
      (await deliveries(merchant, webhook)).find(({ lastStatus }) => lastStatus === 500),
    );
    await merchant.post(`/webhooks/${webhook.id}/test`, undefined);
    await inState(merchant, webhook, 'dead');
    expect((await deliveries(merchant, webhook)).map(({ state, lastError }) => [state, lastError])).toEqual([
      ['dead', 'the receiver wants no more'],
      ['dead', 'the webhook was disabled'],
    ]);
    const items = (await merchant.get('/webhooks')).json['items'] as { id: string; state: string }[];
    expect(new Map(items.map(({ id, state }) => [id, state]))).toEqual(
      new Map([
        [webhook.id, 'disabled'],
        [other.id, 'active'],
      ]),
    );
    const [event] = (await merchant.get('/audit?limit=1')).json['items'] as Record<string, unknown>[];
    expect(event).toMatchObject({
      action: 'webhook.disabled',
      resource: `webhook/${webhook.id}`,
      actor: 'system',
    });
    await raise(merchant.merchantId);
    await arrived(other.path, 2);
    await hurry();
    expect(receiver.at(webhook.path)).toHaveLength(2);
    const [{ id: dead }] = (await deliveries(merchant, webhook)) as [Delivery];
    for (const path of ['test', `deliveries/${dead}/replay`])
      expect(await merchant.post(`/webhooks/${webhook.id}/${path}`, undefined)).toMatchObject({
        status: 409,
        json: { code: 'webhook.disabled' },
      });
  });

  test('a slow receiver of one merchant does not hold up another merchant', async () => {
    const [slow, quick] = [await newMerchant(), await newMerchant()];
    const [held, prompt] = [await newWebhook(slow), await newWebhook(quick)];
    const waiting: ServerResponse[] = [];
    receiver.will(held.path, (response) => void waiting.push(response));
    await raise(slow.merchantId, 60);
    await until('the slow one is sent something', () => waiting.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    await raise(quick.merchantId);
    await arrived(prompt.path);
    // All that the slow one was sent is still held there.
    expect(waiting.filter(({ destroyed }) => destroyed)).toHaveLength(0);
    // Of sixteen at one time, one merchant has seven at most.
    expect(waiting.length).toBeLessThanOrEqual(7);
    for (const response of waiting) response.destroy();
  });
});

describe('several deliverers, and ends', () => {
  /** A deliverer of its own, beside the service's. */
  function newDeliverer(change: Partial<DelivererParts> = {}, url = service.database.url) {
    const database = new Database({
      url: new Secret(url),
      connectionsMax: 4,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
    const lines: string[] = [];
    const store = new WebhookStore(database);
    const deliverer = new WebhookDeliverer({
      store,
      secrets: new WebhookSecrets([new Secret(Buffer.from(service.env['SESSION_KEY'] ?? '', 'base64'))]),
      sender: new WebhookSender({ rules: { plainLoopback: true } }),
      clock: systemClock,
      logger: newLogger('info', { write: (line: string) => void lines.push(line) }),
      ...change,
    });
    return { deliverer, store, lines, database };
  }

  /** One event for one webhook, in a database in which no service runs that could take it first. */
  async function newOutbox() {
    const empty = await newTestDatabase();
    const owner = new pg.Client({ connectionString: empty.adminUrl });
    await owner.connect();
    const secrets = new WebhookSecrets([new Secret(randomBytes(32))]);
    const merchantId = 'merchant-x' as MerchantId;
    const webhookId = `wh_${'0'.repeat(22)}` as WebhookId;
    const path = `/in/${randomUUID()}`;
    await owner.query(`INSERT INTO merchants (id, name) VALUES ($1, 'x')`, [merchantId]);
    await owner.query(
      `INSERT INTO webhooks (merchant_id, id, url, sealed, events, created_by) VALUES ($1, $2, $3, $4, '{alert.overrun}', 'x')`,
      [merchantId, webhookId, receiver.url + path, secrets.make({ merchantId, webhookId }).sealed],
    );
    await owner.query(
      `INSERT INTO webhook_deliveries (merchant_id, webhook_id, event, body) VALUES ($1, $2, 'x', '{}')`,
      [merchantId, webhookId],
    );
    return {
      url: empty.url,
      path,
      secrets,
      row: async () =>
        (
          await owner.query<{ state: string }>(
            'SELECT state, attempts, lease, last_error, next_at <= now() AS due FROM webhook_deliveries',
          )
        ).rows[0],
      endLease: () => owner.query('UPDATE webhook_deliveries SET next_at = now()'),
      [Symbol.asyncDispose]: async () => {
        await owner.end();
        await empty[Symbol.asyncDispose]();
      },
    };
  }

  test('three at work on one outbox: each event is sent once, and at one time by one only', async () => {
    const merchant = await newMerchant();
    const others = await Promise.all([newMerchant(), newMerchant(), newMerchant()]);
    const people = [merchant, ...others];
    const webhooks = await Promise.all(people.map((person) => newWebhook(person)));
    for (const { path } of webhooks)
      receiver.will(path, (response) => setTimeout(() => response.end(), 20 + Math.random() * 60));
    const two = [newDeliverer(), newDeliverer()];
    await Promise.all(people.map(({ merchantId }) => raise(merchantId, 25)));
    const polling = setInterval(() => {
      for (const { deliverer } of two) void deliverer.poll();
    }, 20);
    await until('all are delivered', async () => {
      const { rows } = await admin.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM webhook_deliveries WHERE state <> 'delivered'`,
      );
      return rows[0]?.n === 0;
    });
    clearInterval(polling);
    for (const { deliverer, database } of two) {
      await deliverer[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    }
    const ids = webhooks.flatMap(({ path }) => receiver.at(path).map(idOf));
    expect(ids).toHaveLength(100);
    expect(new Set(ids).size).toBe(100);
    // They shared the work, and each alert is in one log.
    const own = two.map(({ lines }) => lines.filter((line) => line.includes('webhook delivered')).length);
    expect(own.every((count) => count > 0)).toBe(true);
    const alerts = [...service.logLines, ...two.flatMap(({ lines }) => lines)].filter(
      (line) =>
        line.includes('"msg":"alert"') && people.some(({ merchantId }) => line.includes(`"${merchantId}"`)),
    );
    expect(alerts).toHaveLength(100);
  });

  test('who comes back after its lease writes nothing: the result of the later attempt stands', async () => {
    await using outbox = await newOutbox();
    const { store, database } = newDeliverer({}, outbox.url);
    const take = async () => (await store.take(10, 60, []))[0];
    const late = (await take()) as TakenDelivery;
    expect(late.attempt).toBe(1);
    expect(await take()).toBeUndefined();
    await outbox.endLease();
    const second = (await take()) as TakenDelivery;
    expect(second).toMatchObject({ id: late.id, attempt: 2 });
    expect(await store.done(late, { state: 'dead', error: 'late' })).toBe(false);
    expect(await store.done(second, { state: 'delivered', status: 200 })).toBe(true);
    expect(await store.done(second, { state: 'dead', error: 'twice' })).toBe(false);
    expect(await outbox.row()).toMatchObject({ state: 'delivered', attempts: 2, last_error: null });
    await database[Symbol.asyncDispose]();
  });

  test('one that stops gives back what it was sending: the next one has it at once', async () => {
    await using outbox = await newOutbox();
    const { path, secrets, url, row } = outbox;
    receiver.will(path, () => undefined);
    const stopping = newDeliverer({ secrets }, url);
    await stopping.deliverer.poll();
    await arrived(path);
    expect(await row()).toMatchObject({
      state: 'pending',
      attempts: 1,
      lease: expect.any(String),
      due: false,
    });
    await stopping.deliverer[Symbol.asyncDispose]();
    expect(await row()).toMatchObject({ state: 'pending', attempts: 1, lease: null, due: true });

    receiver.will(path, 200);
    const next = newDeliverer({ secrets }, url);
    await next.deliverer.poll();
    await until('it is delivered', async () => (await row())?.state === 'delivered');
    expect(receiver.at(path)).toHaveLength(2);
    expect(new Set(receiver.at(path).map(idOf)).size).toBe(1);
    await next.deliverer[Symbol.asyncDispose]();
    for (const { database } of [stopping, next]) await database[Symbol.asyncDispose]();
  });

  test('one that stops while it takes something gives that back before it is gone', async () => {
    let answer: (taken: TakenDelivery[]) => void = () => undefined;
    const taking = new Promise<TakenDelivery[]>((resolve) => (answer = resolve));
    const results: DeliveryResult[] = [];
    const secrets = new WebhookSecrets([new Secret(randomBytes(32))]);
    const merchantId = 'merchant-x' as MerchantId;
    const webhookId = `wh_${'0'.repeat(22)}` as WebhookId;
    const { deliverer, database } = newDeliverer({
      secrets,
      store: {
        take: () => taking,
        done: (_delivery, result) => {
          results.push(result);
          return Promise.resolve(true);
        },
        sealedOtherwise: () => Promise.resolve([]),
        reseal: () => Promise.resolve(),
      },
    });
    const round = deliverer.poll();
    const gone = deliverer[Symbol.asyncDispose]();
    const { sealed } = secrets.make({ merchantId, webhookId });
    const names = { merchantId, id: randomUUID(), lease: randomUUID(), attempt: 1, event: 'x', body: '{}' };
    answer([{ ...names, receiver: { webhookId, url: receiver.url, sealed } }]);
    await gone;
    expect(results).toEqual([{ state: 'pending', error: 'stopped', retrySeconds: 0 }]);
    await round;
    await database[Symbol.asyncDispose]();
  });

  test('kill -9 between sending and writing the result: it arrives again, with the same webhook-id', async () => {
    await using database = await newTestDatabase();
    await using standIn = await startStandIn();
    await using doomed = await startReceiver();
    const { arn } = registerServiceAccount(standIn);
    const env = environmentFor(database.url, standIn.url, arn);
    const operator = await createOperatorKey({
      adminUrl: database.adminUrl,
      pepper: new Secret(Buffer.from(env.TOKEN_PEPPER, 'base64')),
      environment: 'test',
      name: 'x',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
      expiresInDays: 1,
    });
    await using victim = await startServiceProcess(env);
    const stage = { ...service, url: victim.url, standIn, operatorToken: operator.token };
    const merchant = await onboard(stage, 'merchant-killed');
    const webhook = await newWebhook(merchant, undefined, doomed);
    // The receiver has it and says nothing: the victim waits for an answer when it dies.
    doomed.will(webhook.path, () => undefined);
    await merchant.post(`/webhooks/${webhook.id}/test`, undefined);
    await until('the doomed one is sent', () => doomed.at(webhook.path).length === 1);
    await victim.end('SIGKILL');

    doomed.will(webhook.path, 200);
    await using heir = await startServiceProcess(env);
    const person = new MerchantPerson(heir.url, {
      merchantId: merchant.merchantId,
      credentialId: merchant.credentialId,
      apiKeyId: merchant.apiKeyId,
      token: merchant.token ?? '',
    });
    const [before] = await deliveries(person, webhook);
    expect(before).toMatchObject({ state: 'pending', attempts: 1 });
    // Nobody else has it until the lease ends; then, as a minute later:
    const end = new pg.Client({ connectionString: database.adminUrl });
    await end.connect();
    await end.query('UPDATE webhook_deliveries SET next_at = now()');
    await end.end();
    expect(await inState(person, webhook, 'delivered')).toMatchObject({ attempts: 2 });
    const seen = doomed.at(webhook.path);
    expect(seen).toHaveLength(2);
    expect(idOf(seen[0])).toBe(idOf(seen[1]));
    expect(seen.every((received) => isSigned(received, webhook.secret))).toBe(true);
  });
});

describe('secrets at rest', () => {
  const key = () => new Secret(randomBytes(32));
  const name = { merchantId: 'merchant-x' as MerchantId, webhookId: `wh_${'0'.repeat(22)}` as WebhookId };
  const message = { id: 'x', timestamp: 1, body: '{}' };

  test('open for their merchant and webhook only, under their key only, and not with one bit changed', () => {
    const [today, before] = [key(), key()];
    const secrets = new WebhookSecrets([today]);
    const { sealed } = secrets.make(name);
    expect(secrets.sign(name, sealed, message)).toMatch(/^v1,[A-Za-z0-9+/]{43}=$/);
    expect(
      secrets.sign({ ...name, merchantId: 'merchant-y' as MerchantId }, sealed, message),
    ).toBeUndefined();
    expect(
      secrets.sign({ ...name, webhookId: `wh_${'1'.repeat(22)}` as WebhookId }, sealed, message),
    ).toBeUndefined();
    expect(new WebhookSecrets([before]).sign(name, sealed, message)).toBeUndefined();
    for (let at = 0; at < sealed.length; at += 1) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(secrets.sign(name, changed, message)).toBeUndefined();
    }
    for (const cut of [
      sealed.subarray(0, -1),
      sealed.subarray(1),
      Buffer.concat([sealed, Buffer.alloc(1)]),
      Buffer.alloc(0),
    ])
      expect(secrets.sign(name, cut, message)).toBeUndefined();
    expect(() => new WebhookSecrets([new Secret(randomBytes(16))])).toThrow(TypeError);
  });

  test('when the key changes they are sealed anew, and sign as before', async () => {
    const merchant = await newMerchant();
    const made = [await newWebhook(merchant), await newWebhook(merchant)];
    // By id, as the database goes through them. What nobody can open is no wall for what comes after it.
    const [lost, webhook] = made.sort((a, b) => (a.id < b.id ? -1 : 1)) as [Made, Made];
    await admin.query(`UPDATE webhooks SET sealed = decode(repeat('ff', 8), 'hex') || sealed WHERE id = $1`, [
      lost.id,
    ]);
    const old = new Secret(Buffer.from(service.env['SESSION_KEY'] ?? '', 'base64'));
    const fresh = key();
    await using database = new Database({
      url: new Secret(service.database.url),
      connectionsMax: 2,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
    const sealedNow = async () =>
      (await admin.query<{ sealed: Buffer }>('SELECT sealed FROM webhooks WHERE id = $1', [webhook.id]))
        .rows[0]?.sealed as Buffer;
    const named = { merchantId: merchant.merchantId as MerchantId, webhookId: webhook.id as WebhookId };
    const signature = new WebhookSecrets([old]).sign(named, await sealedNow(), message);
    const lines: string[] = [];
    const reseal = async (secrets: WebhookSecrets) => {
      await using deliverer = new WebhookDeliverer({
        store: new WebhookStore(database),
        secrets,
        sender: new WebhookSender({ rules: { plainLoopback: true } }),
        clock: systemClock,
        logger: newLogger('info', { write: (line: string) => void lines.push(line) }),
        resealAtOnce: 1,
      });
      await deliverer.resealAll();
    };
    // Without the key before, they stay as they are, and somebody is told.
    const before = await sealedNow();
    await reseal(new WebhookSecrets([fresh]));
    expect((await sealedNow()).equals(before)).toBe(true);
    expect(lines.join()).toContain('sealed with a key that is not here');
    await reseal(new WebhookSecrets([fresh, old]));
    expect(lines.filter((line) => line.includes(lost.id))).toHaveLength(2);
    expect(new WebhookSecrets([old]).sign(named, await sealedNow(), message)).toBeUndefined();
    expect(new WebhookSecrets([fresh]).sign(named, await sealedNow(), message)).toBe(signature);
    // And back, for the service that runs here.
    await reseal(new WebhookSecrets([old, fresh]));
    await merchant.post(`/webhooks/${webhook.id}/test`, undefined);
    expect(isSigned((await arrived(webhook.path))[0] as Received, webhook.secret)).toBe(true);
  });
});
