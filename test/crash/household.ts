import { AWS } from '../support/aws-keys.ts';
import { Person } from '../support/people.ts';
import type { Chance } from './chance.ts';
import type { House } from './house.ts';

/** A merchant of the crash test. It outlives the services that serve it. */
export interface Resident {
  id: string;
  token: string;
  /** The AWS account that its credential belongs to. */
  accountId: string;
}

/** One merchant without limits and one that meets its own in every round. */
export interface Household {
  open: Resident;
  tight: Resident;
}

/** What the tight merchant may use in one round, on top of what it had used before. Undefined: not limited. */
export interface Allowance {
  name: string;
  tokens?: number;
  requests?: number;
  nanoUsd?: number;
}

const PLAN = 'crash-test';

/** @returns the ids of both merchants. */
export function idsOf({ open, tight }: Household): string[] {
  return [open.id, tight.id].sort();
}

export async function newPlan(house: House): Promise<void> {
  const spec = { defaultMaxTokens: 200, clampFloor: 8, thresholds: [50, 100] };
  await asked(operator(house).post('/api/ops/plans', { id: PLAN, spec }), 201);
}

export async function newHousehold(house: House, name: string): Promise<Household> {
  const [open, tight] = await Promise.all([
    move(house, `${name}-open`, AWS.merchantA),
    move(house, `${name}-tight`, AWS.merchantB),
  ]);
  return { open, tight };
}

async function move(house: House, id: string, key: (typeof AWS)['merchantA']) {
  const answer = await asked(
    operator(house).post('/api/ops/merchants', {
      id,
      name: id,
      apiKey: { name: 'first' },
      credential: {
        kind: 'access-key',
        name: 'main',
        region: 'us-east-1',
        awsAccessKeyId: key.accessKeyId,
        awsSecretAccessKey: key.secretAccessKey,
        makeDefault: true,
      },
    }),
    201,
  );
  const { apiKey } = answer as { apiKey: { token: string } };
  return { id, token: apiKey.token, accountId: key.accountId };
}

interface Used {
  tokens: number;
  requests: number;
  nanoUsd: number;
}

/** Limits that a round of some twenty calls meets: each kind refuses some, and those on tokens and money clamp some. */
export async function limitTight(house: House, { tight }: Household, chance: Chance): Promise<Allowance> {
  const used = await usedToday(house, tight.id);
  const [allowance, spec] = chance.one(kindsOf(used, chance));
  await asked(operator(house).send('PATCH', `/api/ops/merchants/${tight.id}`, changeOf(spec)), 200);
  return allowance;
}

type Kind = [Allowance, Record<string, unknown>];

/** A call of this test holds about 1,300 tokens of input, and 1.3 million nano-USD, whatever it uses in the end. */
function kindsOf(used: Used, chance: Chance): [Kind, ...Kind[]] {
  const tokens = chance.between(3_000, 9_000);
  const requests = chance.between(3, 8);
  const nanoUsd = chance.between(3, 9) * 1_000_000;
  return [
    [
      { name: 'tokens', tokens },
      { tokensPerDay: { max: used.tokens + tokens }, callsInFlight: { max: 4 } },
    ],
    [
      { name: 'requests', requests },
      { requestsPerDay: { max: used.requests + requests }, maxTokens: 12 },
    ],
    [{ name: 'money', nanoUsd }, { nanoUsdPerDay: { max: used.nanoUsd + nanoUsd } }],
    [{ name: 'in flight' }, { callsInFlight: { max: 2 }, tokensPerMinute: { max: 20_000 } }],
    [
      { name: 'tokens, refusing', tokens },
      { tokensPerDay: { max: used.tokens + tokens }, whenOver: 'refuse' },
    ],
  ];
}

function changeOf(override: Record<string, unknown>) {
  return { plan: PLAN, override: { spec: override } };
}

async function usedToday(house: House, merchant: string): Promise<Used> {
  const { rows } = await house.admin.query<Record<keyof Used, string>>(
    `SELECT coalesce(sum(tokens_held + tokens_unknown + tokens_settled), 0) AS tokens, coalesce(sum(requests), 0) AS requests,
       coalesce(sum(nano_held + nano_unknown + nano_settled), 0) AS "nanoUsd"
     FROM counters WHERE merchant_id = $1 AND scope = 'merchant' AND period = 'day' AND starts_at = date_trunc('day', now(), 'UTC')`,
    [merchant],
  );
  const [row] = rows;
  return {
    tokens: Number(row?.tokens),
    requests: Number(row?.requests),
    nanoUsd: Number(row?.nanoUsd),
  };
}

/** Changes the open merchant under its running calls: those that were checked with the older one are checked again. */
export async function changeOpen(house: House, { open }: Household, chance: Chance): Promise<string> {
  const answer = await operator(house).send(
    'PATCH',
    `/api/ops/merchants/${open.id}`,
    changeOf({ maxTokens: chance.between(40, 400) }),
  );
  if (answer.status !== 200) throw new Error(`a change was answered ${String(answer.status)}`);
  return answer.headers.get('x-request-id') ?? '';
}

function operator(house: House): Person {
  return new Person(house.service.url, house.operatorToken);
}

async function asked(answer: ReturnType<Person['get']>, status: number): Promise<Record<string, unknown>> {
  const { status: given, json, text } = await answer;
  if (given !== status) throw new Error(`expected ${String(status)}, was answered ${String(given)}: ${text}`);
  return json;
}
