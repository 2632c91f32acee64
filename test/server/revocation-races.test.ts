import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { findAround, secretsAt } from '../support/canary.ts';
import { withAdmin } from '../support/limits.ts';
import { converseBody, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import { startReplica } from '../support/replicas.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

/**
 * Calls and revocations at the same time, on three services. REVOCATION_ROUNDS says how many rounds; from 500 on the services are processes of
 * their own. REVOCATION_SEED repeats a run's choices, which the failure prints.
 */
const ROUNDS = Number(process.env['REVOCATION_ROUNDS'] ?? 25);
const SEED = Number(process.env['REVOCATION_SEED'] ?? randomInt(2 ** 31));
const PROCESSES = ROUNDS >= 500;
const CALLS_A_ROUND = 6;
const LANES = 4;
const MODEL = 'amazon.nova-micro-v1:0';
const OPS = '/api/ops/merchants';

/** What is taken away, and how it is given back for the next round; what is deleted or closed is made anew. */
const KINDS = ['token', 'freeze', 'delete', 'suspend', 'close'] as const;
type Kind = (typeof KINDS)[number];

/** What a call that comes too late is told. */
const REFUSALS: Record<Kind, readonly string[]> = {
  token: ['auth.invalid_token'],
  freeze: ['credential.not_usable'],
  delete: ['credential.not_found', 'credential.not_usable'],
  suspend: ['merchant.not_active'],
  // Its keys are gone as well: which of the two is noticed first is all the same.
  close: ['merchant.not_active', 'auth.invalid_token'],
};

let service: TestService;
let urls: string[];
/** What the services wrote, but for the test's own. */
let outputs: (() => string)[] = [];
const closers: AsyncDisposable[] = [];

beforeAll(async () => {
  service = await startTestService();
  if (PROCESSES) {
    const three = await Promise.all([1, 2, 3].map(() => startServiceProcess(service.env)));
    closers.push(...three);
    outputs = three.map(({ output }) => output);
    urls = three.map(({ url }) => url);
  } else {
    const two = await Promise.all([1, 2].map(() => startReplica(service)));
    closers.push(...two);
    outputs = two.map(
      ({ logLines }) =>
        () =>
          logLines.join('\n'),
    );
    urls = [service.url, ...two.map(({ url }) => url)];
  }
});
afterAll(async () => {
  for (const closer of closers) await closer[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

/** A small generator of its own, so that a seed is a run. */
function chanceOf(seed: number) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    below: (n: number) => Math.floor(next() * n),
    of: <T>(list: readonly T[]) => list[Math.floor(next() * list.length)] as T,
  };
}

interface Scene {
  merchantId: string;
  token: string;
  /** The key of `token`. */
  apiKeyId: string;
  credentialId: string;
  /** Of a key that stays. */
  admin: MerchantPerson;
}

async function sceneOf(kind: Kind, lane: MerchantPerson, name: string): Promise<Scene> {
  const made = kind === 'close' ? await onboard(service, name) : lane;
  if (kind === 'token') {
    const key = (await made.post('/api-keys', { name, scopes: ['invoke'] })).json;
    return {
      merchantId: made.merchantId,
      token: String(key['token']),
      apiKeyId: String(key['id']),
      credentialId: made.credentialId,
      admin: made,
    };
  }
  let { credentialId } = made;
  if (kind === 'delete') {
    const stored = await made.post('/credentials', {
      kind: 'access-key',
      name,
      region: 'us-east-1',
      awsAccessKeyId: 'AKIAMERCHANTA0000001',
      awsSecretAccessKey: 'x'.repeat(40),
    });
    credentialId = (stored.json['id'] as string | undefined) ?? credentialId;
  }
  return {
    merchantId: made.merchantId,
    token: made.token ?? '',
    apiKeyId: made.apiKeyId,
    credentialId,
    admin: made,
  };
}

function call(url: string, scene: Scene): Promise<Answer> {
  const person = new Person(url, scene.token);
  const path = `/api/merchants/${scene.merchantId}/bedrock/model/${MODEL}/converse`;
  return person.post(path, converseBody('hi', 16), { 'x-bedrock-credential-id': scene.credentialId });
}

async function revoke(kind: Kind, url: string, scene: Scene): Promise<Answer> {
  const { merchantId, credentialId, apiKeyId } = scene;
  const base = `/api/merchants/${merchantId}/bedrock`;
  const merchant = new Person(url, scene.admin.token);
  const operator = new Person(url, service.operatorToken);
  switch (kind) {
    case 'token':
      return merchant.send('DELETE', `${base}/api-keys/${apiKeyId}`);
    case 'freeze':
      return merchant.post(`${base}/credentials/${credentialId}/freeze`, {});
    case 'delete':
      return merchant.send('DELETE', `${base}/credentials/${credentialId}`);
    case 'suspend':
      return operator.send('PATCH', `${OPS}/${merchantId}`, { status: 'suspended' });
    case 'close':
      return operator.post(`${OPS}/${merchantId}/close`, { merchantId });
  }
}

async function giveBack(kind: Kind, { merchantId, credentialId, admin }: Scene): Promise<void> {
  if (kind === 'freeze') await admin.post(`/credentials/${credentialId}/thaw`, {});
  if (kind === 'suspend')
    await operatorOf(service).send('PATCH', `${OPS}/${merchantId}`, { status: 'active' });
}

/** What went wrong, in words; empty when all is well. */
async function round(kind: Kind, scene: Scene, chance: ReturnType<typeof chanceOf>): Promise<string[]> {
  const wrong: string[] = [];
  // Every service remembers token, merchant and credential now.
  const warm = await Promise.all(urls.map((url) => call(url, scene)));
  for (const answer of warm)
    if (answer.status !== 200) wrong.push(`${kind}: a call before it was answered ${answer.text}`);
  const plan = Array.from({ length: CALLS_A_ROUND }, () => ({
    url: chance.of(urls),
    afterMs: chance.below(25),
  }));
  const where = chance.of(urls);
  const afterMs = chance.below(20);
  const calls = plan.map(async ({ url, afterMs: ms }) => {
    await sleep(ms);
    return call(url, scene);
  });
  await sleep(afterMs);
  const acknowledged = await revoke(kind, where, scene);
  if (acknowledged.status >= 300) wrong.push(`${kind}: was itself answered ${acknowledged.text}`);
  const late = await Promise.all(urls.map((url) => call(url, scene)));
  for (const { status, text } of [...(await Promise.all(calls)), ...late]) {
    if (status !== 200 && !REFUSALS[kind].some((refusal) => text.includes(refusal)))
      wrong.push(`${kind}: a call was answered ${String(status)} ${text}`);
  }
  for (const { status } of late)
    if (status === 200) wrong.push(`${kind}: a call that began after the answer was let through`);
  await giveBack(kind, scene);
  return wrong;
}

interface AuditRow {
  merchant_id: string;
  seq: string;
  action: string;
  resource: string;
  body: string;
}

/** Reads each chain in the order of its commits, and names every admission that comes after what should have stopped it. */
function admittedInSpite(rows: readonly AuditRow[]): string[] {
  const stopped = new Map<string, string>();
  const wrong: string[] = [];
  for (const { merchant_id: merchant, seq, action, resource, body } of rows) {
    const facts = JSON.parse(body) as Record<string, unknown>;
    const about = (thing: string) => `${merchant} ${thing}`;
    if (action === 'token.revoked' || action === 'credential.deleted' || action === 'credential.frozen')
      stopped.set(about(resource), seq);
    if (action === 'credential.thawed') stopped.delete(about(resource));
    if (action === 'merchant.closed') stopped.set(about('merchant'), seq);
    if (action === 'merchant.updated' && facts['status'] === 'suspended') stopped.set(about('merchant'), seq);
    if (action === 'merchant.updated' && facts['status'] === 'active') stopped.delete(about('merchant'));
    if (action !== 'call.admitted') continue;
    const uses = [
      'merchant',
      `api-key/${String(facts['apiKeyId'])}`,
      `credential/${String(facts['credentialId'])}`,
    ];
    for (const use of uses) {
      const since = stopped.get(about(use));
      if (since !== undefined)
        wrong.push(`${merchant}: ${resource} was admitted at ${seq}, but ${use} was stopped at ${since}`);
    }
  }
  return wrong;
}

describe(`calls against revocations on three services (REVOCATION_SEED=${String(SEED)})`, () => {
  test(
    'none begins after the revocation was answered, by the order of commits',
    async () => {
      const lanes = await Promise.all(
        Array.from({ length: LANES }, (_, at) => onboard(service, `merchant-lane-${String(at)}`)),
      );
      service.standIn.addAccessKey({
        accessKeyId: 'AKIAMERCHANTA0000001',
        secretAccessKey: 'x'.repeat(40),
        accountId: '111111111111',
      });
      const wrong: string[] = [];
      let next = 0;
      await Promise.all(
        lanes.map(async (lane) => {
          while (next < ROUNDS && wrong.length === 0) {
            const number = next++;
            const kind = KINDS[number % KINDS.length] as Kind;
            const own = chanceOf(SEED + number);
            const scene = await sceneOf(kind, lane, `merchant-${String(number)}`);
            wrong.push(...(await round(kind, scene, own)));
          }
        }),
      );
      expect({ seed: SEED, wrong }).toEqual({ seed: SEED, wrong: [] });

      const rows = await withAdmin(service, async (admin) => {
        const { rows: all } = await admin.query<AuditRow>(
          `SELECT merchant_id, seq, action, resource, body FROM audit_events ORDER BY merchant_id, audit_events.seq`,
        );
        return all;
      });
      expect({ seed: SEED, wrong: admittedInSpite(rows) }).toEqual({ seed: SEED, wrong: [] });
      // What reached AWS was admitted, each time, and so is in that order, too.
      const admitted = new Set(
        rows.filter(({ action }) => action === 'call.admitted').map(({ resource }) => resource),
      );
      const sent = runtimeCalls(service).map(
        ({ requestMetadata }) => `call/${String(requestMetadata?.['merchantBedrockCall'])}`,
      );
      expect(sent.filter((id) => !admitted.has(id))).toEqual([]);
      expect(new Set(sent).size).toBe(sent.length);
      // A run in which nothing met anything proves nothing.
      expect(sent.length).toBeGreaterThan(ROUNDS * urls.length);
      expect(rows.filter(({ action }) => action === 'merchant.closed').length).toBeGreaterThan(0);
      const secrets = secretsAt(
        service,
        lanes.map(({ token = '' }) => token),
      );
      const said = outputs.map((output) => output());
      expect(await findAround(secrets, service, said)).toEqual([]);
    },
    PROCESSES ? 3_600_000 : 180_000,
  );
});
