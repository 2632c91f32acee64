import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import { Secret } from '../../src/domain/secret.ts';
import { sealingKeyId } from '../../src/ledger/webhook-secrets.ts';
import { newLogger } from '../../src/observability/logger.ts';
import { MerchantPerson, converseBody, directFields, onboard } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const [OLD, NEW] = ['old', 'new'].map(() => ({ pepper: key(), session: key() })) as [Keys, Keys];

interface Keys {
  pepper: string;
  session: string;
}

/** The settings of each roll-out, as docs/operations.md has them. */
const BEFORE = { TOKEN_PEPPER: OLD.pepper, TOKEN_PEPPER_VERSION: '1', SESSION_KEY: OLD.session };
const ACCEPTS = { ...BEFORE, TOKEN_PEPPER_NEXT: NEW.pepper, SESSION_KEY_PREVIOUS: NEW.session };
const AFTER = { TOKEN_PEPPER: NEW.pepper, TOKEN_PEPPER_VERSION: '2', SESSION_KEY: NEW.session };
const WRITES = { ...AFTER, TOKEN_PEPPER_PREVIOUS: OLD.pepper, SESSION_KEY_PREVIOUS: OLD.session };

let base: TestService;
let admin: pg.Client;
let merchant: MerchantPerson;
let number = 0;

beforeAll(async () => {
  base = await startTestService(BEFORE);
  merchant = await onboard(base, 'merchant-a');
  admin = new pg.Client({ connectionString: base.database.adminUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await base[Symbol.asyncDispose]();
});

function key(): string {
  return randomBytes(32).toString('base64');
}

interface Replica extends AsyncDisposable {
  url: string;
}

async function startReplica(keys: Record<string, string>): Promise<Replica> {
  const logger = newLogger('error', { write: () => undefined });
  const { config, secrets } = readConfig({ ...without(base.env), ...keys });
  const service = await build(config, secrets, { logger });
  const { port } = await service.listen();
  return {
    url: `http://127.0.0.1:${String(port)}`,
    [Symbol.asyncDispose]: async () => {
      await service.shutDown();
      await service[Symbol.asyncDispose]();
    },
  };
}

function without(env: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !/^(TOKEN_PEPPER|SESSION_KEY)/.test(name)),
  );
}

const at = (replica: Replica, token: string) =>
  new MerchantPerson(replica.url, {
    merchantId: merchant.merchantId,
    credentialId: merchant.credentialId,
    apiKeyId: merchant.apiKeyId,
    token,
  });

/**
 * What one replica makes, the other takes: a token, a session, and the answer of a call with an Idempotency-Key. The token is used on both,
 * several times: each use may move its hash.
 * @returns what was refused.
 */
async function exchange(maker: Replica, taker: Replica, owner: string): Promise<string[]> {
  number += 1;
  const refused: string[] = [];
  const expectTaken = (what: string, answer: { status: number; text: string }, status = 200) => {
    if (answer.status !== status) refused.push(`${what}: ${String(answer.status)} ${answer.text}`);
  };
  const made = await at(maker, owner).post('/api-keys', { name: 'x' });
  expectTaken('making a token', made, 201);
  const { token } = made.json as { token: string };
  for (const replica of [taker, maker, taker])
    expectTaken('the token', await at(replica, token).get('/api-keys'));
  for (const replica of [maker, taker, maker])
    expectTaken('the owner', await at(replica, owner).get('/usage'));

  const begun = await at(maker, token).post('/initialize', { modelId: MODEL, ...directFields() });
  expectTaken('initialize', begun);
  const chat = { session: (begun.json as { session: string }).session, prompt: 'hi', maxTokens: 10 };
  expectTaken('the session', await at(taker, token).post('/chat', chat));

  const once = { 'idempotency-key': `key-${String(number)}` };
  const converse = (replica: Replica) =>
    at(replica, token).post(`/model/${MODEL}/converse`, converseBody('once', 10), once);
  expectTaken('a call with an Idempotency-Key', await converse(maker));
  expectTaken('its answer', await converse(taker));
  return refused;
}

async function both(one: Replica, other: Replica, owner: string): Promise<string[]> {
  return [...(await exchange(one, other, owner)), ...(await exchange(other, one, owner))];
}

describe('session key and pepper change while two replicas run', () => {
  test('in three roll-outs no request is refused, and afterwards nothing needs the old keys', async () => {
    const refused: string[] = [];
    const owner = merchant.token ?? '';
    let running = await startReplica(BEFORE);
    for (const settings of [ACCEPTS, WRITES]) {
      const next = await startReplica(settings);
      refused.push(...(await both(running, next, owner)));
      await running[Symbol.asyncDispose]();
      running = await startReplica(settings);
      refused.push(...(await both(running, next, owner)));
      await next[Symbol.asyncDispose]();
    }
    expect(refused).toEqual([]);

    // What was used since is under the new pepper; what was not is named, and answers stay under the old key for a day.
    const stale = await eventually(staleTokens, (names) => !names.includes('first'));
    expect(new Set(stale)).toEqual(new Set(['x']));
    expect(await underOldKeys()).toBeGreaterThan(0);
    await admin.query(`UPDATE idempotency_keys SET answer_until = now() WHERE answer_until IS NOT NULL`);
    expect(await underOldKeys()).toBe(0);

    const last = await startReplica(AFTER);
    expect(await both(running, last, owner)).toEqual([]);
    await Promise.all([running, last].map((replica) => replica[Symbol.asyncDispose]()));
  }, 60_000);

  test('with the roll-out that accepts left out, requests are refused: the test above would notice', async () => {
    const [behind, ahead] = await Promise.all([startReplica(AFTER), startReplica(TWO_AHEAD)]);
    const refused = await both(behind, ahead, merchant.token ?? '');
    expect(refused.length).toBeGreaterThan(0);
    await Promise.all([behind, ahead].map((replica) => replica[Symbol.asyncDispose]()));
  }, 60_000);
});

const TWO_AHEAD = {
  TOKEN_PEPPER: key(),
  TOKEN_PEPPER_VERSION: '3',
  TOKEN_PEPPER_PREVIOUS: NEW.pepper,
  SESSION_KEY: key(),
  SESSION_KEY_PREVIOUS: NEW.session,
};

async function staleTokens(): Promise<string[]> {
  const { rows } = await admin.query<{ name: string }>(
    'SELECT name FROM keys_below_pepper(2, 100) WHERE merchant_id IS NOT NULL',
  );
  return rows.map(({ name }) => name);
}

/** Kept answers that the session key before sealed. */
async function underOldKeys(): Promise<number> {
  const old = sealingKeyId(new Secret(Buffer.from(OLD.session, 'base64'))).toString('hex');
  const { rows } = await admin.query<{ count: number }>(
    `SELECT coalesce(sum(count), 0)::int AS count FROM keys_status() WHERE kind = 'answer' AND key = $1`,
    [old],
  );
  return rows[0]?.count ?? -1;
}
