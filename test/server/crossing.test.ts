import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { OpenedCache } from '../../src/credentials/opened-cache.ts';
import type { Opening } from '../../src/credentials/opened-cache.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Batcher } from '../../src/ledger/batcher.ts';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, directFields, directHeaders, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

/**
 * Every place that remembers something between requests, by file, and what its key begins with. Whoever adds one says here why one
 * merchant's entry can never serve another.
 */
const REMEMBERING: Record<string, string> = {
  'auth/api-keys.ts': 'the id of the key and the keyed hash of its secret: the principal says whose it is',
  'auth/failure-budget.ts': 'an address or the id of a key; counts only',
  'auth/token-rehash.ts':
    'the id of the key, which is one merchant’s or one operator’s; that it is being written, nothing to be answered',
  'bedrock/client-pool.ts':
    'given by runtime-aws.ts: merchant, region, and credential and version or a keyed hash with the merchant in it',
  'bedrock/runtime-aws.ts':
    'as above; the credential of the entry is compared with the call’s before it is used',
  'credentials/opened-cache.ts': 'merchant, credential, version',
  'credentials/resolve.ts': 'a keyed hash of merchant and key; and the service’s own account, which is one',
  'credentials/role-sessions.ts':
    'merchant, credential, and a hash of version, role, ExternalId, region and policies: the same role at two merchants is two sessions',
  'credentials/roles-aws.ts':
    'region: clients of the service’s own identity. The sessions that they fetch are not kept here but in role-sessions.ts',
  'credentials/rotation-worker.ts':
    'merchant, credential, version, state; that it was told already, and only until the next round',
  'credentials/stale-copies.ts':
    'given by opened-cache.ts: merchant, credential, version. The name is sealed with the copy, so that under another it does not open',
  'credentials/vault.ts': 'merchant, credential',
  'gateway/fair-queue.ts': 'merchant; waiting calls, nothing of them',
  'gateway/models-behind.ts': 'merchant, ARN',
  'gateway/watch.ts': 'merchant, source, API key, credential; running calls, which are cut and not answered',
  'http/body-budget.ts': 'merchant; counts only',
  'http/server-pipeline.ts': 'connection; requests that nobody has looked at',
  'http/server-requests.ts': 'connection; not read by routes',
  'http/server-stalls.ts': 'connection or answer; counts only',
  'http/server-tls.ts': 'connection',
  'ledger/batcher.ts': 'not kept: each waiting call has its own promise',
  'ledger/ledger-store.ts': 'batches: the answer of each call stands at its position',
  'ledger/spool.ts': 'batches of lines that are written, not answered',
  'ledger/price-book.ts': 'model: prices are everybody’s',
  'ledger/webhook-deliverer.ts': 'merchant; counts only',
  'memory/per-merchant.ts': 'merchant; counts only',
  'memory/refreshing-cache.ts': 'given by role-sessions.ts',
  'memory/single-flight-cache.ts': 'given by the others of this list',
  'merchants/merchants.ts': 'merchant',
};
/** Made anew for each request or once for the process, from constants or settings. */
const NOT_BETWEEN_REQUESTS: readonly string[] = [
  // For whoever checks one export, of one chain: it refuses leaves of any other.
  'audit/known-checkpoints.ts',
  // For a run of the operator's command, over all chains; the service makes none.
  'audit/verify-checkpoints.ts',
  'auth/token-hash.ts',
  'bedrock/egress.ts',
  'bedrock/event-stream.ts',
  'bedrock/invocation-logs.ts',
  'bedrock/model-request-output.ts',
  // The due dates of one answer, of one merchant, read under its row security.
  'credentials/credential-store.ts',
  'credentials/sessions.ts',
  'gateway/in-flight.ts',
  'gateway/reconciler.ts',
  'http/protocol.ts',
  'http/server.ts',
  'ledger/price-diff.ts',
  'ledger/price-file.ts',
  // What one statement answered, by position in what it asked.
  'ledger/rights-store.ts',
  'ledger/webhook-secrets.ts',
];

test('every cache, pool, map and batch of the code says what it is keyed by', () => {
  const folder = new URL('../../src', import.meta.url).pathname;
  const remembers =
    /new (Map|WeakMap|LRUCache|SingleFlightCache|RefreshingCache|Batcher|ClientPool|OpenedCache|StaleCopies)\b|#\w+(: [^=]+)? = new Set\b/;
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.startsWith('generated') && !file.startsWith('container'))
    // A constant table is no memory.
    .filter((file) =>
      remembers.test(readFileSync(path.join(folder, file), 'utf8').replaceAll(/^const [A-Z_]+.*$/gm, '')),
    );
  const known = [...Object.keys(REMEMBERING), ...NOT_BETWEEN_REQUESTS];
  expect(files.filter((file) => !known.includes(file))).toEqual([]);
  // And what is said is said of something that is there.
  expect(known.filter((file) => !files.includes(file))).toEqual([]);
});

let service: TestService;
let a: MerchantPerson;
let b: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  a = await onboard(service, 'merchant-a');
  b = await onboard(service, 'merchant-b', { awsKey: AWS.merchantB });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

const accountOf = (person: MerchantPerson): string =>
  person === a ? AWS.merchantA.accountId : AWS.merchantB.accountId;

test('two merchants with the same names, Idempotency-Keys, end users, models and profiles, at once: nothing crosses', async () => {
  const credentials = new Map<MerchantPerson, string>();
  for (const person of [a, b]) {
    const key = person === a ? AWS.merchantA : AWS.merchantB;
    const made = await person.post('/credentials', {
      kind: 'access-key',
      name: 'same',
      region: 'us-east-1',
      awsAccessKeyId: key.accessKeyId,
      awsSecretAccessKey: key.secretAccessKey,
    });
    credentials.set(person, made.json['id'] as string);
  }
  const headersOf = (person: MerchantPerson, index: number): Record<string, string> => ({
    'idempotency-key': `key-${String(index)}`,
    'x-bedrock-end-user': 'the-end-user',
    ...(index % 3 === 1 && { 'x-bedrock-credential-id': credentials.get(person) ?? '' }),
    ...(index % 3 === 2 && directHeaders(person === a ? AWS.merchantADirect : AWS.merchantB)),
  });
  service.standIn.forget();
  const answers: {
    person: MerchantPerson;
    prompt: string;
    text: string;
    account: string | undefined;
    id: string;
  }[] = [];
  const call = async (person: MerchantPerson, index: number): Promise<void> => {
    const prompt = `prompt of ${person.merchantId} ${String(index)}`;
    const answer = await person.post(
      `/model/${MODEL}/converse`,
      converseBody(prompt),
      headersOf(person, index),
    );
    expect(answer.status).toBe(200);
    answers.push({
      person,
      prompt,
      text: answer.text,
      account: answer.headers.get('x-bedrock-credential-account') ?? undefined,
      id: answer.headers.get('x-bedrock-call-id') ?? '',
    });
  };
  await Promise.all(Array.from({ length: 60 }, (_, index) => [call(a, index), call(b, index)]).flat());
  expect(answers.filter(({ person, account }) => account !== accountOf(person))).toEqual([]);
  expect(new Set(answers.map(({ id }) => id)).size).toBe(120);
  // What AWS saw: each prompt signed by the keys of whose prompt it is.
  for (const { accountId, bodyBase64 } of runtimeCalls(service)) {
    const body = Buffer.from(bodyBase64, 'base64').toString();
    expect({ accountId, a: body.includes('prompt of merchant-a') }).toEqual({
      accountId,
      a: accountId === AWS.merchantA.accountId,
    });
  }
  expect(runtimeCalls(service)).toHaveLength(120);
  // And once more: each gets back its own answers, and nothing is called.
  for (const index of [0, 1, 2, 30])
    for (const person of [a, b]) {
      const first = answers.find((one) => one.person === person && one.prompt.endsWith(` ${String(index)}`));
      const again = await person.post(
        `/model/${MODEL}/converse`,
        converseBody(first?.prompt ?? ''),
        headersOf(person, index),
      );
      expect({ text: again.text, id: again.headers.get('x-bedrock-call-id') }).toEqual({
        text: first?.text,
        id: first?.id,
      });
    }
  expect(runtimeCalls(service)).toHaveLength(120);
  for (const person of [a, b]) {
    const usage = (await person.get('/usage?groupBy=endUser')).json as {
      calls: { settled: number };
      groups: unknown[];
    };
    expect(usage.calls.settled).toBe(60);
    expect(usage.groups).toHaveLength(1);
  }
});

test('direct keys of one merchant in the hands of another are another client, another cache entry and another owner', async () => {
  service.standIn.forget();
  // The same key pair, used by both at once: legal, and no reason to share anything.
  const calls = await Promise.all(
    [a, b, a, b].map((person) =>
      person.post('/chat', { modelId: MODEL, prompt: 'x', ...directFields(AWS.merchantADirect) }),
    ),
  );
  expect(calls.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  const records = async (person: MerchantPerson) =>
    ((await person.get('/usage/records?limit=2')).json['items'] as { id: string }[])
      .map(({ id }) => id)
      .sort();
  const ids = (indexes: number[]) => indexes.map((index) => calls[index]?.json['callId'] as string).sort();
  expect(await records(a)).toEqual(ids([0, 2]));
  expect(await records(b)).toEqual(ids([1, 3]));
});

test('a call that breaks its batch fails alone: its neighbours, of other merchants, get their own answers', async () => {
  const sizes: number[] = [];
  const batcher = new Batcher<{ merchantId: string; value: number }, string>({
    sizeMax: 8,
    turns: { ownerOf: ({ merchantId }) => merchantId, partMax: 8 },
    run: async (items) => {
      sizes.push(items.length);
      await Promise.resolve();
      if (items.some(({ value }) => value === 13)) throw new RangeError('poisoned by 13');
      return items.map(({ merchantId, value }) => `${merchantId}:${String(value)}`);
    },
  });
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, (_, value) => batcher.add({ merchantId: `m${String(value % 3)}`, value })),
  );
  results.forEach((result, value) => {
    if (value === 13)
      expect(result).toMatchObject({ status: 'rejected', reason: { message: 'poisoned by 13' } });
    else expect(result).toEqual({ status: 'fulfilled', value: `m${String(value % 3)}:${String(value)}` });
  });
});

test('the same with Postgres: one call whose row cannot be written, among forty of two merchants', async () => {
  // A trigger that refuses one model stands for any row that Postgres will not take.
  await onServer(service.database.adminUrl, (client) =>
    client.query(`
      CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.model_id LIKE '%poison%' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER refuse_poison BEFORE INSERT ON calls FOR EACH ROW EXECUTE FUNCTION refuse_poison()`),
  );
  const call = (person: MerchantPerson, model: string) =>
    person.post(`/model/${model}/converse`, converseBody('x'));
  const good = Array.from({ length: 40 }, (_, index) => call(index % 2 === 0 ? a : b, MODEL));
  const bad = call(a, 'amazon.poison-v1:0');
  const answers = await Promise.all(good);
  expect((await bad).status).toBe(500);
  answers.forEach((answer, index) => {
    expect({ status: answer.status, account: answer.headers.get('x-bedrock-credential-account') }).toEqual({
      status: 200,
      account: accountOf(index % 2 === 0 ? a : b),
    });
  });
});

test('credentials that had the same id at two merchants, as they never do, would be kept apart', async () => {
  using cache = new OpenedCache({ clock: { now: () => 0 } });
  const credentialId = `cred_${'0'.repeat(22)}` as CredentialId;
  const opening = (apiKey: string): Opening => ({
    open: () => Promise.resolve({ kind: 'bedrock-api-key', apiKey: new Secret(apiKey) }),
    recordStaleUse: () => Promise.reject(new Error('nothing is stale here')),
  });
  const get = async (merchantId: string) => {
    const place = { merchantId: merchantId as MerchantId, credentialId, version: 1 };
    const opened = await cache.get(place, opening(merchantId));
    return opened.kind === 'bedrock-api-key' && opened.apiKey.reveal();
  };
  expect(await Promise.all(['a', 'b', 'a', 'a-b'].map(get))).toEqual(['a', 'b', 'a', 'a-b']);
  cache.evict('a' as MerchantId, credentialId);
  expect(await get('b')).toBe('b');
});
