import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { ROUTES } from '../../src/http/routes.ts';
import type { FaultRule } from '../aws/faults.ts';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, directFields, directHeaders, onboard, operatorOf, Person } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
/** Found nowhere else: what a person wrote must not be kept either. */
const PROMPT = 'canaryprompt7f3a91';
const SESSION_TOKEN = `canarySessionToken${randomBytes(24).toString('hex')}`;
const BEDROCK_KEY = `ABSKcanary${randomBytes(24).toString('hex')}`;
const TEMPORARY = {
  accessKeyId: 'ASIACANARYCANARY0000',
  secretAccessKey: 'canarySecretOfTemporaryKey0000000000000x',
  sessionToken: SESSION_TOKEN,
  accountId: AWS.merchantA.accountId,
};

let service: TestService;
let merchant: MerchantPerson;
const answers: { from: string; text: string }[] = [];

beforeAll(async () => {
  service = await startTestService({
    UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '300',
    UPSTREAM_IDLE_TIMEOUT_MS: '200',
    LOG_LEVEL: 'debug',
  });
  merchant = await onboard(service, 'merchant-a');
  service.standIn.addAccessKey(TEMPORARY);
  service.standIn.addBedrockApiKey({ apiKey: BEDROCK_KEY, accountId: AWS.merchantA.accountId });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** A secret in the forms in which it could travel. */
function formsOf(secret: string | Buffer): string[] {
  const bytes = Buffer.from(secret);
  const text = bytes.toString('utf8');
  return [
    text,
    bytes.toString('base64'),
    bytes.toString('base64url'),
    bytes.toString('hex'),
    encodeURIComponent(text),
    JSON.stringify(text).slice(1, -1),
  ];
}

function find(secrets: ReadonlyMap<string, string | Buffer>, where: string, text: string): string[] {
  return [...secrets]
    .filter(([, secret]) => formsOf(secret).some((form) => text.includes(form)))
    .map(([name]) => `${name} in ${where}`);
}

async function keep(from: string, ask: Promise<Answer>): Promise<Answer> {
  const answer = await ask;
  answers.push({ from, text: `${answer.text}\n${JSON.stringify([...answer.headers])}` });
  return answer;
}

/** Every way to hand a secret in, right and wrong. */
async function useEverySecret(): Promise<void> {
  const wire = `/model/${MODEL}/converse`;
  await keep('chat direct', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, ...directFields() }));
  await keep(
    'chat temporary',
    merchant.post('/chat', {
      modelId: MODEL,
      prompt: PROMPT,
      ...directFields(TEMPORARY),
      awsSessionToken: SESSION_TOKEN,
    }),
  );
  await keep('chat stored', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, stream: true }));
  await keep(
    'chat default',
    merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, useServiceDefaults: true }),
  );
  await keep('wire direct', merchant.post(wire, converseBody(PROMPT), directHeaders()));
  await keep('wire stream', merchant.post(`${wire}-stream`, converseBody(PROMPT)));
  const { session } = (
    await keep(
      'initialize',
      merchant.post('/initialize', {
        modelId: MODEL,
        ...directFields(TEMPORARY),
        awsSessionToken: SESSION_TOKEN,
      }),
    )
  ).json as { session?: string };
  if (session !== undefined)
    await keep('session', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, session }));
  const { awsAccessKeyId, awsSecretAccessKey } = directFields();
  await keep(
    'store',
    merchant.post('/credentials', {
      kind: 'access-key',
      name: 'x',
      region: 'us-east-1',
      awsAccessKeyId,
      awsSecretAccessKey,
    }),
  );
  await keep(
    'store key',
    merchant.post('/credentials', {
      kind: 'bedrock-api-key',
      name: 'x',
      region: 'us-east-1',
      bedrockApiKey: BEDROCK_KEY,
    }),
  );
  await keep('test', merchant.post(`/credentials/${merchant.credentialId}/test`, {}));
}

async function misplaceEverySecret(): Promise<void> {
  const secret = AWS.merchantADirect.secretAccessKey;
  const quoted = encodeURIComponent(secret);
  await keep('malformed', merchant.post('/chat', `{"awsSecretAccessKey": "${secret}", `));
  await keep('unknown member', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, mySecret: secret }));
  await keep(
    'half a pair',
    merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, awsSecretAccessKey: secret }),
  );
  await keep('wrong type', merchant.post('/chat', { modelId: { secret }, prompt: PROMPT }));
  await keep('as an id', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, credentialId: secret }));
  await keep('as a session', merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, session: secret }));
  await keep('as a model', merchant.post(`/model/${quoted}/converse`, converseBody(PROMPT)));
  await keep('in a query', merchant.get(`/usage?secret=${quoted}`));
  await keep('token in a query', merchant.get(`/usage?access_token=${merchant.token ?? ''}`));
  await keep('in a path', merchant.get(`/credentials/${quoted}`));
  await keep('as a merchant', merchant.get(`/api/merchants/${quoted}/bedrock/usage`));
  await keep('as a token', new Person(service.url, secret).get('/api/merchants/merchant-a/bedrock/usage'));
  await keep('in a header of ours', merchant.get('/usage', { 'x-bedrock-aws-secret': secret }));
  await keep(
    'in a header of AWS',
    merchant.post(`/model/${MODEL}/converse`, converseBody(PROMPT), { 'x-amzn-bedrock-trace': secret }),
  );
  await keep(
    'as a signature',
    new Person(service.url).post(`/api/merchants/merchant-a/bedrock/model/${MODEL}/converse`, '{}', {
      authorization: `AWS4-HMAC-SHA256 Credential=${secret}`,
      'x-amz-security-token': SESSION_TOKEN,
    }),
  );
}

/** Each dependency, failing in each way. */
const FAULTS: FaultRule[] = (['bedrock-runtime', 'kms', 'secretsmanager', 'sts', 'bedrock'] as const).flatMap(
  (name) => [
    { service: name, status: 403, type: 'AccessDeniedException', message: 'no' },
    { service: name, status: 500, type: 'InternalServerException', message: 'no' },
    { service: name, reset: true },
  ],
);

test('no secret and no prompt in any answer, log line, table or file, through every route and every failure', async () => {
  const startedAtMs = Date.now();
  await useEverySecret();
  await misplaceEverySecret();
  // Every route, with a body that holds secrets in places where none belongs.
  for (const route of ROUTES) {
    const at = route.path
      .replace(':id', 'merchant-a')
      .replace(':cid', merchant.credentialId)
      .replace(':kid', 'z'.repeat(12))
      .replace('*modelId', MODEL);
    if (route.method === 'DELETE') continue;
    const body =
      route.method === 'GET'
        ? undefined
        : { ...directFields(), name: 'x', note: AWS.merchantA.secretAccessKey, prompt: PROMPT };
    await keep(`${route.method} ${route.path}`, merchant.send(route.method, at, body));
    await keep(`operator ${route.method} ${route.path}`, operatorOf(service).send(route.method, at, body));
  }
  for (const fault of FAULTS) {
    service.standIn.forget();
    service.standIn.fault({ ...fault, times: 'always' });
    await useEverySecret();
  }
  service.standIn.forget();
  for (const fault of [{ cutAtEvent: 1 }, { hangHeaders: true }, { stallAtEvent: 1 }] satisfies FaultRule[]) {
    service.standIn.fault({ service: 'bedrock-runtime', operation: 'ConverseStream', ...fault });
    await keep('stream fault', merchant.post(`/model/${MODEL}/converse-stream`, converseBody(PROMPT)));
  }
  // A key that AWS knows with another secret: signatures that fail.
  service.standIn.addAccessKey({ ...AWS.merchantADirect, secretAccessKey: 'z'.repeat(40) });
  await useEverySecret();
  service.standIn.addAccessKey(AWS.merchantADirect);
  // Postgres gone in the middle.
  const admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  await admin.query('ALTER TABLE calls RENAME TO calls_away');
  await useEverySecret();
  await admin.query('ALTER TABLE calls_away RENAME TO calls');

  const env = service.env;
  const secrets = new Map<string, string | Buffer>([
    ['stored secret', AWS.merchantA.secretAccessKey],
    ['direct secret', AWS.merchantADirect.secretAccessKey],
    ['temporary secret', TEMPORARY.secretAccessKey],
    ['session token', SESSION_TOKEN],
    ['Bedrock API key', BEDROCK_KEY],
    ["service's own secret", AWS.service.secretAccessKey],
    ["service default's secret", AWS.serviceDefault.secretAccessKey],
    ['API token', (merchant.token ?? '').slice(-49)],
    ['operator token', service.operatorToken.slice(-49)],
    ['pepper', Buffer.from(env['TOKEN_PEPPER'] ?? '', 'base64')],
    ['session key', Buffer.from(env['SESSION_KEY'] ?? '', 'base64')],
  ]);
  const everywhere = new Map(secrets).set('prompt', PROMPT);

  // The scanner finds what is planted, in each form.
  for (const form of formsOf(AWS.merchantA.secretAccessKey))
    expect(find(secrets, 'plant', `x${form}y`)).toEqual(['stored secret in plant']);

  expect(answers.length).toBeGreaterThan(200);
  // The stand-in's answers repeat the prompt: that is what a model does. Everything else must not.
  expect(answers.flatMap(({ from, text }) => find(secrets, from, text))).toEqual([]);
  expect(service.logLines.length).toBeGreaterThan(answers.length - 5);
  expect(service.logLines.flatMap((line) => find(everywhere, line.slice(0, 300), line))).toEqual([]);
  expect(await findInTables(admin, everywhere)).toEqual([]);
  await admin.end();
  expect(findInFiles(everywhere, startedAtMs)).toEqual([]);
  // What Secrets Manager was given is ciphertext.
  const stored = service.standIn.journal
    .filter((entry) => entry.service === 'secretsmanager')
    .map((entry) => Buffer.from(entry.bodyBase64, 'base64').toString());
  expect(stored.flatMap((body) => find(secrets, 'Secrets Manager', body))).toEqual([]);
}, 60_000);

async function findInTables(
  admin: pg.Client,
  secrets: ReadonlyMap<string, string | Buffer>,
): Promise<string[]> {
  const { rows: tables } = await admin.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`,
  );
  const found: string[] = [];
  for (const { name } of tables) {
    const { rows } = await admin.query<{ row: string }>(`SELECT t::text AS row FROM "${name}" t`);
    found.push(...rows.flatMap(({ row }) => find(secrets, `table ${name}`, row)));
  }
  return found;
}

/** What this process may have left in the temporary folder since the test began. The database's own folder was read as tables. */
function findInFiles(secrets: ReadonlyMap<string, string | Buffer>, sinceMs: number): string[] {
  const found: string[] = [];
  for (const name of readdirSync(tmpdir())) {
    const file = path.join(tmpdir(), name);
    try {
      const { mtimeMs, size } = statSync(file);
      if (mtimeMs >= sinceMs && size < 10_000_000)
        found.push(...find(secrets, file, readFileSync(file, 'latin1')));
    } catch {
      // A folder, or gone meanwhile.
    }
  }
  return found;
}
