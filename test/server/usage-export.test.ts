import { Buffer } from 'node:buffer';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { csvLine } from '../../src/ledger/csv.ts';
import { exportText } from '../../src/ledger/usage-export.ts';
import type { ExportFormat, ExportPage, UsageRecord } from '../../src/ledger/usage.ts';
import { onboard } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { awayFromMidnight } from '../support/calendar.ts';
import { openUsageHouse } from './usage-house.ts';
import type { Merchant, UsageHouse } from './usage-house.ts';

beforeAll(() => awayFromMidnight(), 180_000);
const date = (daysAgo: number) => new Date(Date.now() - daysAgo * 86_400_000).toISOString().slice(0, 10);
const DAYS = { from: date(3), to: date(-1) };

/** A reader of RFC 4180 that takes nothing but it. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let at = 0;
  while (at < text.length) {
    let field: string;
    if (text[at] === '"') {
      const match = /^"((?:[^"]|"")*)"/.exec(text.slice(at));
      if (match === null) throw new Error('a quote that is not closed');
      field = (match[1] ?? '').replaceAll('""', '"');
      at += match[0].length;
    } else {
      field = /^[^",\r\n]*/.exec(text.slice(at))?.[0] ?? '';
      at += field.length;
    }
    row.push(field);
    if (text[at] === ',') at += 1;
    else if (text.startsWith('\r\n', at)) {
      rows.push(row);
      row = [];
      at += 2;
    } else throw new Error(`a field ends at ${String(at)} in what is no end`);
    if (text[at - 1] === ',' && at === text.length) throw new Error('no line end');
  }
  if (row.length > 0) throw new Error('no line end');
  return rows;
}

const byName = (rows: string[][]): Record<string, string>[] => {
  const [head = [], ...rest] = rows;
  return rest.map((row) => Object.fromEntries(head.map((name, at) => [name, row[at] ?? ''])));
};

describe('CSV', () => {
  test('any text comes back as it was, but for the apostrophe before what a spreadsheet would run', () => {
    const text = fc.string({
      unit: fc.constantFrom('=', '+', '-', '@', '\t', '\r', '\n', '"', ',', "'", 'a', 'é', ' '),
    });
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 5 }), (cells) => {
        const guarded = cells.map((cell) => (/^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell));
        expect(parseCsv(csvLine(cells))).toEqual([guarded]);
      }),
    );
  });

  test('numbers are numbers and null is nothing', () => {
    expect(csvLine([-5, null, { decimal: '-0.000000001' }, 'x'])).toBe('-5,,-0.000000001,x\r\n');
  });
});

describe('from the ledger', () => {
  let house: UsageHouse;
  let close: () => Promise<void>;
  let merchant: Merchant;
  let records: UsageRecord[];

  beforeAll(async () => {
    ({ house, close } = await openUsageHouse());
    merchant = await house.newMerchant();
    const ids = await house.make(merchant, fc.sample(house.calls(merchant), 120));
    await house.shiftDays(merchant, ids.slice(0, 20), 9);
    records = [];
    let cursor: string | undefined;
    do {
      const page = await house.usage.records(merchant.id, 50, cursor, DAYS);
      records.push(...page.items);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    records.reverse();
    expect(records).toHaveLength(100);
  });
  afterAll(async () => {
    await close();
  });

  async function whole(format: ExportFormat, pages: AsyncIterable<ExportPage>) {
    const text = exportText(format, { id: merchant.id, name: 'Acme, Ltd' }, pages);
    const pieces: string[] = [];
    for (;;) {
      const next = await text.next();
      if (next.done === true) return { text: pieces.join(''), pieces: pieces.length, totals: next.value };
      pieces.push(next.value);
    }
  }

  test('NDJSON: the records, oldest first, and their number', async () => {
    const { text, pieces } = await whole('ndjson', house.usage.pages(merchant.id, DAYS, 7));
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
    expect(lines).toEqual([...records, { end: true, records: 100 }]);
    expect(pieces).toBeGreaterThan(10);
  });

  test('CSV: the same, every line with as many fields', async () => {
    const { text } = await whole('csv', house.usage.pages(merchant.id, DAYS, 33));
    const rows = parseCsv(text);
    expect(new Set(rows.map((row) => row.length)).size).toBe(1);
    expect(rows.at(-1)?.slice(0, 3)).toEqual(['#end', '100', '']);
    const guarded = (value: string | number | null) =>
      typeof value === 'string' && /^[+=@-]/.test(value) ? `'${value}` : String(value ?? '');
    const expected = records.map(({ tokens, ...facts }) => ({
      ...Object.fromEntries(Object.entries(facts).map(([name, value]) => [name, guarded(value)])),
      ...Object.fromEntries(Object.entries(tokens).map(([kind, count]) => [`${kind}Tokens`, String(count)])),
    }));
    expect(byName(rows.slice(0, -1))).toEqual(expected);
    expect(text).toContain(",'+cmd,");
  });

  test('an empty ledger is whole as well', async () => {
    const empty = await house.newMerchant();
    expect((await whole('ndjson', house.usage.pages(empty.id, DAYS))).text).toBe(
      '{"end":true,"records":0}\n',
    );
    expect(parseCsv((await whole('csv', house.usage.pages(empty.id, DAYS))).text)).toHaveLength(2);
    expect(parseCsv((await whole('focus', house.usage.pages(empty.id, DAYS))).text)).toHaveLength(1);
  });

  test('calls that begin while it runs are not in it, so it ends', async () => {
    const busy = await house.newMerchant();
    await house.make(busy, fc.sample(house.calls(busy), 10));
    let seen = 0;
    for await (const page of house.usage.pages(busy.id, DAYS, 2)) {
      seen += page.records.length;
      if (seen > 10) break;
      await house.make(busy, fc.sample(house.calls(busy), 3));
    }
    expect(seen).toBe(10);
  });

  test('FOCUS: a line for each charge and each correction, money to the last nano-USD', async () => {
    const paid = records.filter(({ costNanoUsd }) => costNanoUsd !== null);
    const [first, second] = paid;
    for (const [call, delta, at] of [
      [first, -1_500, 'now()'],
      [second, 250, `now() + interval '32 days'`],
    ] as const)
      await house.admin.query(
        `INSERT INTO corrections (merchant_id, call_id, price_id, delta_nano, reason, created_by, created_at) VALUES ($1, $2, $3, $4, 'price was late', 'x', ${at})`,
        [merchant.id, call?.id, house.priceId, delta],
      );
    const { text, totals } = await whole('focus', house.usage.pages(merchant.id, DAYS, 40));
    const rows = byName(parseCsv(text));
    const unpriced = records.filter(
      ({ state, costNanoUsd }) => state === 'settled' && costNanoUsd === null,
    ).length;
    expect(unpriced).toBeGreaterThan(0);
    expect(totals).toEqual({ lines: paid.length + 2, unpriced });
    const nano = (usd: string | undefined) => BigInt((usd ?? '').replace('.', ''));
    const total = rows.reduce((sum, row) => sum + nano(row['BilledCost']), 0n);
    expect(total).toBe(paid.reduce((sum, { costNanoUsd }) => sum + BigInt(costNanoUsd ?? 0), -1_250n));
    const month = date(0).slice(0, 7);
    for (const row of rows) {
      for (const cost of ['EffectiveCost', 'ListCost', 'ContractedCost'])
        expect(row[cost]).toBe(row['BilledCost']);
      expect([row['PricingQuantity'], row['PricingUnit']]).toEqual([
        row['ConsumedQuantity'],
        row['ConsumedUnit'],
      ]);
      expect(row['BilledCost']).toMatch(/^-?\d+\.\d{9}$/);
      expect(row).toMatchObject({
        BillingAccountId: merchant.id,
        BillingAccountName: 'Acme, Ltd',
        BillingCurrency: 'USD',
        ChargeCategory: 'Usage',
        ChargeFrequency: 'Usage-Based',
        ServiceName: 'Amazon Bedrock',
        ServiceCategory: 'AI and Machine Learning',
        SkuPriceId: String(house.priceId),
      });
      expect(row['ChargePeriodStart']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:00:00Z$/);
      expect(Date.parse(row['ChargePeriodEnd'] ?? '') - Date.parse(row['ChargePeriodStart'] ?? '')).toBe(
        3_600_000,
      );
      expect(row['BillingPeriodStart']).toMatch(/^\d{4}-\d\d-01T00:00:00Z$/);
      const tags = JSON.parse(row['Tags'] ?? '') as Record<string, unknown>;
      expect(Object.values(tags).every((value) => typeof value === 'string' && value !== '')).toBe(true);
    }
    const corrections = rows.filter((row) => row['ChargeDescription']?.startsWith('Correction'));
    expect(
      corrections.map((row) => [
        row['x_CallId'],
        row['BilledCost'],
        row['ChargeClass'],
        row['ConsumedQuantity'],
        row['x_InputTokens'],
      ]),
    ).toEqual([
      [first?.id, '-0.000001500', '', '', ''],
      [second?.id, '0.000000250', 'Correction', '', ''],
    ]);
    expect(corrections[1]?.['BillingPeriodStart']?.slice(0, 7)).not.toBe(month);
    for (const row of rows.filter((row) => row['ConsumedQuantity'] !== '')) {
      const record = records.find(({ id }) => id === row['x_CallId']);
      expect(Number(row['ConsumedQuantity'])).toBe(
        Object.values(record?.tokens ?? {}).reduce((sum, count) => sum + count, 0),
      );
      expect(row['ConsumedUnit']).toBe('Tokens');
      expect(row['ResourceId']).toBe(record?.modelId.startsWith('arn:') === true ? record.modelId : '');
    }
  });
});

describe('filters of records', () => {
  let house: UsageHouse;
  let close: () => Promise<void>;

  beforeAll(async () => {
    ({ house, close } = await openUsageHouse());
  });
  afterAll(async () => {
    await close();
  });

  test('give what they say, page by page, each record once', async () => {
    const merchant = await house.newMerchant();
    const ids = await house.make(merchant, fc.sample(house.calls(merchant), 120));
    await house.shiftDays(merchant, ids.slice(0, 30), 1);
    const { items: all } = await house.usage.records(merchant.id, 200);
    const filter = fc.record(
      {
        state: fc.constantFrom('held', 'settled', 'void', 'unknown'),
        model: fc.constantFrom('m1', 'm2'),
        apiKey: fc.constant(merchant.keyId),
        endUser: fc.constantFrom('ann', '+cmd'),
      },
      { requiredKeys: [] },
    );
    for (const asked of fc.sample(filter, 30) as Parameters<UsageHouse['usage']['records']>[3][]) {
      const expected = all.filter(
        (record) =>
          (asked?.state === undefined || record.state === asked.state) &&
          (asked?.model === undefined || record.modelId === asked.model) &&
          (asked?.apiKey === undefined || record.apiKeyId === asked.apiKey) &&
          (asked?.endUser === undefined || record.endUser === asked.endUser),
      );
      expect(await paged(merchant, 4, asked)).toEqual(expected.map(({ id }) => id));
    }
    // Days are cut by the start of the call, though its id is younger.
    const yesterday = all.filter(({ createdAt }) => createdAt.startsWith(date(1))).map(({ id }) => id);
    expect(yesterday).toHaveLength(30);
    const today = all.filter(({ createdAt }) => createdAt.startsWith(date(0))).map(({ id }) => id);
    expect(await paged(merchant, 50, { from: date(0), to: date(-1) })).toEqual(today);
    expect(await paged(merchant, 50, { from: date(0) })).toEqual(today);
    expect(await paged(merchant, 50, { to: date(3) })).toEqual([]);
  });

  test('around midnight a call is of the day on which it began, not of that of its id', async () => {
    const merchant = await house.newMerchant();
    const { rows } = await house.admin.query<{ id: string }>(
      `INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline, resolved_at)
       SELECT $1, uuid_v7_floor(at + interval '1 second'), 'void', 'converse', 'm', 'us-east-1', 'direct', 'x', 'r', at - interval '1 second', now(), now()
       FROM date_trunc('day', now(), 'UTC') AS at RETURNING id`,
      [merchant.id],
    );
    expect(await paged(merchant, 50, { from: date(1), to: date(0) })).toEqual([rows[0]?.id]);
    expect(await paged(merchant, 50, { from: date(0), to: date(-1) })).toEqual([]);
  });

  test('a page looks at no more than 2,000 rows: short, even empty, with a cursor; and unknown calls are found at once', async () => {
    const merchant = await house.newMerchant();
    await house.admin.query(
      `INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline, resolved_at)
       SELECT $1, uuid_v7_floor(now() - n * interval '1 second'), CASE WHEN n IN (3000, 4500) THEN 'unknown' ELSE 'void' END, 'converse',
         CASE WHEN n IN (10, 4990) THEN 'rare' ELSE 'm' END, 'us-east-1', 'direct', 'x', 'r', now() - n * interval '1 second', now(), now()
       FROM generate_series(1, 5000) n WHERE date_trunc('month', now() - n * interval '1 second', 'UTC') = date_trunc('month', now(), 'UTC')`,
      [merchant.id],
    );
    const { rows } = await house.admin.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM calls WHERE merchant_id = $1`,
      [merchant.id],
    );
    if ((rows[0]?.n ?? 0) < 5_000) return; // The first hours of a month: there is no partition for the rows.
    const first = await house.usage.records(merchant.id, 50, undefined, { model: 'rare' });
    expect(first.items).toHaveLength(1);
    const second = await house.usage.records(merchant.id, 50, first.nextCursor, { model: 'rare' });
    expect(second.items).toHaveLength(0);
    const third = await house.usage.records(merchant.id, 50, second.nextCursor, { model: 'rare' });
    expect(third).toMatchObject({ items: [{ modelId: 'rare' }] });
    expect(third.nextCursor).toBeUndefined();
    const unknown = await house.usage.records(merchant.id, 50, undefined, { state: 'unknown' });
    expect(unknown.items).toHaveLength(2);
    expect(unknown.nextCursor).toBeUndefined();
  });

  async function paged(
    merchant: Merchant,
    limit: number,
    filter: Parameters<UsageHouse['usage']['records']>[3],
  ): Promise<string[]> {
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await house.usage.records(merchant.id, limit, cursor, filter);
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return seen;
  }
});

describe('over HTTP', () => {
  const ROWS = 20_000;
  let service: TestService;
  let merchant: MerchantPerson;

  beforeAll(async () => {
    service = await startTestService({ UPSTREAM_IDLE_TIMEOUT_MS: '2000' });
    merchant = await onboard(service, 'merchant-a');
    // A minute or so of calls: some 15 MB, far more than sockets hold.
    await onServer(service.database.adminUrl, (client) =>
      client.query(
        `INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline, resolved_at)
         SELECT 'merchant-a', uuid_v7(), 'void', 'converse', 'm', 'us-east-1', 'direct', 'x', 'r' || n, now(), now(), now() FROM generate_series(1, $1::int) n`,
        [ROWS],
      ),
    );
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  const path = (format: string) => `/usage/export?format=${format}&from=${DAYS.from}&to=${DAYS.to}`;

  interface Download {
    status: number;
    headers: http.IncomingHttpHeaders;
    trailers: Record<string, string | undefined>;
    text: string;
    complete: boolean;
  }

  /** `pauseMs`: waits so long after each piece; `stallMs`: after the first one. `onPiece` sees each, and the next is read when it is done. */
  function download(
    url: string,
    {
      pauseMs = 0,
      stallMs = 0,
      onPiece,
    }: {
      pauseMs?: number;
      stallMs?: number;
      onPiece?: (got: number, req: http.ClientRequest) => Promise<void> | undefined;
    } = {},
  ): Promise<Download> {
    return new Promise((resolve, reject) => {
      const req = http.get(
        merchant.baseUrl + url,
        { headers: { authorization: `Bearer ${merchant.token ?? ''}` }, agent: false },
        (res) => {
          const pieces: Buffer[] = [];
          let bytes = 0;
          const done = (complete: boolean) => {
            resolve({
              status: res.statusCode ?? 0,
              headers: res.headers,
              trailers: res.trailers,
              text: Buffer.concat(pieces).toString(),
              complete,
            });
          };
          res.on('data', (piece: Buffer) => {
            const waitMs = pieces.length === 0 ? Math.max(stallMs, pauseMs) : pauseMs;
            pieces.push(piece);
            bytes += piece.length;
            const seen = onPiece?.(bytes, req);
            if (seen === undefined && waitMs === 0) return;
            res.pause();
            void Promise.all([seen, waitMs > 0 && sleep(waitMs)]).then(() => res.resume());
          });
          res.on('end', () => {
            done(res.complete);
          });
          res.on('error', () => {
            done(false);
          });
          res.on('aborted', () => {
            done(false);
          });
        },
      );
      req.on('error', reject);
    });
  }

  test('NDJSON, whole: as many lines as the trailer field and the last record say, and as GET /usage/records', async () => {
    const { status, headers, text, trailers, complete } = await download(path('ndjson'));
    const lines = text.trimEnd().split('\n');
    expect({ status, complete, type: headers['content-type'], file: headers['content-disposition'] }).toEqual(
      {
        status: 200,
        complete: true,
        type: 'application/x-ndjson; charset=utf-8',
        file: `attachment; filename="merchant-a-${DAYS.from}-${DAYS.to}.ndjson"`,
      },
    );
    expect(lines).toHaveLength(ROWS + 1);
    expect(JSON.parse(lines.at(-1) ?? '')).toEqual({ end: true, records: ROWS });
    expect(trailers).toMatchObject({
      'x-bedrock-export-lines': String(ROWS),
      'x-bedrock-export-unpriced': '0',
    });
    const newest = (await merchant.get('/usage/records?limit=200')).json['items'] as unknown[];
    expect(
      lines
        .slice(-201, -1)
        .map((line) => JSON.parse(line) as unknown)
        .reverse(),
    ).toEqual(newest);
  });

  test('a slow reader gets all of it, and the service holds next to nothing meanwhile', async () => {
    const before = process.memoryUsage().rss;
    let most = 0;
    const { text, complete } = await download(path('csv'), {
      pauseMs: 5,
      onPiece: () => {
        most = Math.max(most, process.memoryUsage().rss - before);
        return undefined;
      },
    });
    expect(complete).toBe(true);
    expect(text.trimEnd().split('\r\n')).toHaveLength(ROWS + 2);
    expect(most).toBeLessThan(200_000_000);
  });

  test('a reader that goes away stops the reading', async () => {
    await expect(
      download(path('csv'), {
        onPiece: (_bytes, req) => {
          req.destroy();
          return undefined;
        },
      }),
    ).resolves.toMatchObject({ complete: false });
    // Every page reads corrections, so whoever reads on, of forty pages in all, is seen waiting for the table each time that it is held.
    const waitsWhileHeld = () =>
      onServer(service.database.adminUrl, async (holder) => {
        await holder.query('BEGIN; LOCK TABLE corrections IN ACCESS EXCLUSIVE MODE');
        await sleep(300);
        const { rowCount } = await holder.query(
          `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ 'corrections' AND pid <> pg_backend_pid()`,
        );
        await holder.query('ROLLBACK');
        return rowCount !== 0;
      });
    const waited: boolean[] = [];
    // The page that was being read ends first, and the next may begin before the service hears that nobody reads.
    for (let held = 0; held < 5; held += 1) waited.push(await waitsWhileHeld());
    expect(waited.at(-1)).toBe(false);
  });

  test('a reader that takes nothing is cut', async () => {
    const cut = await download(path('ndjson'), { stallMs: 6_000 });
    expect(cut.complete).toBe(false);
    expect(cut.text).not.toContain('"end":true');
  });

  test.each(['csv', 'ndjson'])('an error in the middle cuts the %s: it never looks whole', async (format) => {
    let broken = false;
    const cut = await download(path(format), {
      // Nothing more is read until it is broken.
      onPiece: async () => {
        if (broken) return;
        broken = true;
        await onServer(service.database.adminUrl, (client) =>
          client.query('ALTER TABLE calls RENAME COLUMN reason TO reason_gone'),
        );
      },
    });
    await onServer(service.database.adminUrl, (client) =>
      client.query('ALTER TABLE calls RENAME COLUMN reason_gone TO reason'),
    );
    expect(cut.status).toBe(200);
    expect(cut.complete).toBe(false);
    expect(cut.text).not.toMatch(/#end|"end":true/);
    expect(cut.trailers).toEqual({});
  });

  test('an error before the first byte is an answer as any other', async () => {
    await onServer(service.database.adminUrl, (client) =>
      client.query('ALTER TABLE calls RENAME COLUMN reason TO reason_gone'),
    );
    const answer = await merchant.get(path('csv'));
    await onServer(service.database.adminUrl, (client) =>
      client.query('ALTER TABLE calls RENAME COLUMN reason_gone TO reason'),
    );
    expect(answer.status).toBe(500);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
  });

  test('HTTP/2: trailer fields as well', async () => {
    const session = http2.connect(service.url);
    const stream = session.request({
      ':path': `/api/merchants/merchant-a/bedrock${path('csv')}`,
      authorization: `Bearer ${merchant.token ?? ''}`,
    });
    let text = '';
    let trailers: http2.IncomingHttpHeaders = {};
    stream.on('trailers', (fields) => (trailers = fields));
    for await (const piece of stream as AsyncIterable<Buffer>) text += piece.toString('latin1');
    session.close();
    expect(text.trimEnd().split('\r\n')).toHaveLength(ROWS + 2);
    expect(trailers['x-bedrock-export-lines']).toBe(String(ROWS));
  });

  test('HTTP/1.0, which has neither pieces nor trailer fields: the same bytes, and then the end of the connection', async () => {
    const { hostname, port } = new URL(service.url);
    const socket = net.connect({ host: hostname, port: Number(port) });
    socket.write(
      `GET /api/merchants/merchant-a/bedrock${path('ndjson')} HTTP/1.0\r\nhost: ${hostname}\r\nauthorization: Bearer ${merchant.token ?? ''}\r\n\r\n`,
    );
    const pieces: Buffer[] = [];
    for await (const piece of socket as AsyncIterable<Buffer>) pieces.push(piece);
    const text = Buffer.concat(pieces).toString();
    expect(text).toMatch(/^HTTP\/1\.1 200 /);
    expect(text).toMatch(/\{"end":true,"records":20000\}\n$/);
  });

  test('HEAD answers without a body', async () => {
    const answer = await merchant.send('HEAD', path('csv'));
    expect(answer.status).toBe(200);
    expect(answer.text).toBe('');
  });

  test.each([
    '/usage/export',
    `/usage/export?format=xml&from=${DAYS.from}&to=${DAYS.to}`,
    `/usage/export?format=csv&from=${DAYS.from}`,
    `/usage/export?format=csv&from=${DAYS.to}&to=${DAYS.from}`,
    '/usage/export?format=csv&from=2020-01-01&to=2021-12-31',
    '/usage?from=2026-01-01',
    '/usage?from=2026-01-01&to=2026-01-01',
    '/usage?from=2026-02-30&to=2026-03-05',
    '/usage?from=0001-01-01&to=0001-01-02',
    '/usage?from=2024-01-01&to=2026-01-01',
    '/usage?from=2026-01-01&to=2026-02-01&timeframe=day',
    '/usage/records?state=open',
    '/usage/records?apiKey=x',
    '/usage/records?endUser=%00',
    '/usage/records?model=%00',
    '/usage/records?from=2026-01-02&to=2026-01-01',
  ])('%s', async (wrong) => {
    const answer = await merchant.get(wrong);
    expect({ status: answer.status, code: answer.json['code'] }).toEqual({
      status: 400,
      code: 'request.invalid',
    });
  });

  test('GET /usage tells limits and forecast beside the sums', async () => {
    const answer = await merchant.get('/usage?timeframe=day&groupBy=endUser,instance');
    expect(answer.json).toMatchObject({ timeframe: 'day', limits: [], costNanoUsd: 0, latencyMs: null });
    expect(answer.json).toHaveProperty('forecast');
  });
});
