import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { Secret } from '../../src/domain/secret.ts';
import { PriceAdminStore } from '../../src/ledger/price-admin-store.ts';
import type { Price } from '../../src/ledger/price.ts';
import { Database } from '../../src/persistence/database.ts';
import { converseBody, onboard, operatorOf, Person } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const ACTOR = { subject: 'cli:jo', requestId: 'cli' };

let service: TestService;
let owner: Database;
let administrator: PriceAdminStore;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, 'merchant-a');
  owner = new Database({
    url: new Secret(service.database.adminUrl),
    connectionsMax: 1,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  administrator = new PriceAdminStore(owner);
});
afterAll(async () => {
  await owner[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

function price(more: Partial<Price> = {}): Price {
  return {
    modelId: MODEL,
    region: '*',
    profile: 'in-region',
    tier: 'standard',
    validFromMs: Date.UTC(2026, 0, 1),
    nanoUsdPerMillion: { input: 35_000_000n, output: 140_000_000n, request: 0n },
    source: 'a page',
    sourceDate: '2026-01-31',
    ...more,
  };
}

async function importBook(book: readonly Price[]): Promise<void> {
  const version = await administrator.bookVersion();
  expect(await administrator.import(ACTOR, book, { version, digest: 'x' })).toBeDefined();
}

interface Page {
  items: Record<string, unknown>[];
  nextCursor?: string;
}
async function list(query = ''): Promise<Page> {
  const answer = await operatorOf(service).get(`/api/ops/prices${query}`);
  expect(answer).toMatchObject({ status: 200 });
  return answer.json as unknown as Page;
}

describe('GET /api/ops/prices', () => {
  test('an empty book is an empty page', async () => {
    expect(await list()).toEqual({ items: [] });
  });

  test('shows each price as it is now, in dollars, with where it is from and who imported it', async () => {
    await importBook([price({ nanoUsdPerMillion: { input: 1n } }), price({ modelId: 'maker.gone' })]);
    await importBook([price({ contextTokens: 128_000 })]);
    expect(await list()).toEqual({
      items: [
        {
          id: expect.stringMatching(/^\d+$/),
          modelId: MODEL,
          region: '*',
          profile: 'in-region',
          tier: 'standard',
          validFrom: '2026-01-01T00:00:00.000Z',
          revision: 2,
          // Free of charge is a price; a kind without one is absent.
          usdPerMillion: { input: '0.035', output: '0.14', request: '0.00' },
          contextTokens: 128_000,
          maxOutputTokens: null,
          source: 'a page',
          sourceDate: '2026-01-31',
          importedBy: 'cli:jo',
          importedAt: expect.stringMatching(/^20\d\d-.*Z$/),
        },
      ],
    });
  });

  test('goes through the book page by page, in the order of keys, each price once; of one model on request', async () => {
    const book = ['maker.b', 'maker.a', MODEL].flatMap((modelId) =>
      ['*', 'eu-west-1'].flatMap((region) =>
        [2026, 2099].map((year) => price({ modelId, region, validFromMs: Date.UTC(year, 0, 1) })),
      ),
    );
    await importBook(book);
    const keyOf = (item: Record<string, unknown>) =>
      [item['modelId'], item['region'], String(item['validFrom']).slice(0, 4)].join(' ');
    const expected = book
      .map(({ validFromMs, ...one }) => keyOf({ ...one, validFrom: new Date(validFromMs).toISOString() }))
      .sort();
    const seen: string[][] = [];
    for (let cursor = ''; ;) {
      const page = await list(`?limit=5${cursor}`);
      seen.push(page.items.map(keyOf));
      if (page.nextCursor === undefined) break;
      cursor = `&cursor=${page.nextCursor}`;
    }
    expect(seen.map((keys) => keys.length)).toEqual([5, 5, 2]);
    expect(seen.flat()).toEqual(expected);

    const one = await list(`?modelId=maker.a&limit=3`);
    const rest = await list(`?modelId=maker.a&limit=3&cursor=${one.nextCursor ?? ''}`);
    expect([one.items.length, rest.items.length, rest.nextCursor]).toEqual([3, 1, undefined]);
    expect([...one.items, ...rest.items].map(keyOf)).toEqual(
      expected.filter((key) => key.startsWith('maker.a')),
    );
    expect(await list('?modelId=maker.none')).toEqual({ items: [] });
  });

  test('goes on where it was when the price of the cursor was corrected meanwhile', async () => {
    const models = ['maker.a', 'maker.b', 'maker.c'];
    await importBook(models.map((modelId) => price({ modelId })));
    const first = await list('?limit=2');
    await importBook(models.map((modelId) => price({ modelId, contextTokens: 1 })));
    const next = await list(`?limit=2&cursor=${first.nextCursor ?? ''}`);
    expect(next.items.map((item) => item['modelId'])).toEqual(['maker.c']);
    // One that no book ever had is followed by nothing.
    expect(await list('?cursor=999999999999')).toEqual({ items: [] });
  });

  test.each(['cursor=x', 'cursor=-1', `cursor=${'9'.repeat(19)}`, 'limit=0', 'modelId=a%20b', 'other=1'])(
    'refuses what it does not know: %s',
    async (query) => {
      const answer = await operatorOf(service).get(`/api/ops/prices?${query}`);
      expect(answer).toMatchObject({ status: 400, json: { code: 'request.invalid' } });
    },
  );

  test("is for operators who may see usage, and not for a merchant's token", async () => {
    const { token } = await createOperatorKey({
      adminUrl: service.database.adminUrl,
      pepper: new Secret(Buffer.from(service.env['TOKEN_PEPPER'] ?? '', 'base64')),
      environment: 'test',
      name: 'without usage',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:audit:read'],
      expiresInDays: 1,
    });
    expect(await new Person(service.url, token).get('/api/ops/prices')).toMatchObject({
      status: 403,
      json: { code: 'auth.insufficient_scope', scope: 'ops:usage:read' },
    });
    expect((await merchant.get('/api/ops/prices')).status).not.toBe(200);
    expect((await new Person(service.url).get('/api/ops/prices')).status).toBe(401);
  });
});

test('a running service charges by an imported book within seconds', async () => {
  const costOfACall = async (): Promise<unknown> => {
    expect((await merchant.post(`/model/${MODEL}/converse`, converseBody('Say hello'))).status).toBe(200);
    const page = (await merchant.get('/usage/records?limit=1')).json as unknown as Page;
    return page.items[0]?.['costNanoUsd'];
  };
  await importBook([price({ nanoUsdPerMillion: { input: 0n, output: 0n, request: 7_000_000n } })]);
  expect(await eventually(costOfACall, (cost) => cost === 7, { everyMs: 500 })).toBe(7);
}, 60_000);
