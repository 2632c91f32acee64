import type pg from 'pg';
import { AuditStore } from '../../src/audit/audit-store.ts';
import { CredentialKeeper } from '../../src/credentials/credential-keeper.ts';
import { CredentialStore } from '../../src/credentials/credential-store.ts';
import { LeftoverStore } from '../../src/credentials/leftover-store.ts';
import { Leftovers } from '../../src/credentials/leftovers.ts';
import { FreezeStore } from '../../src/credentials/freeze-store.ts';
import { AwsIdentityCheck } from '../../src/credentials/identity-aws.ts';
import { OpenedCache } from '../../src/credentials/opened-cache.ts';
import { AwsSecretVault } from '../../src/credentials/vault-aws.ts';
import type { AwsSecretVaultOptions } from '../../src/credentials/vault-aws.ts';
import { Vault } from '../../src/credentials/vault.ts';
import type { AccessKey, BedrockApiKey } from '../../src/domain/credential.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ErrorCode } from '../../src/domain/error-catalogue.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { newTestDatabase } from '../support/database.ts';
import { onServer } from '../support/postgres.ts';

export const OPERATOR_ACCOUNT = '999988887777';
export const A_ACCOUNT = '111122223333';
export const KMS_KEY = { keyId: '0b1f4a52-1111-4222-8333-444455556666', alias: 'alias/vault' };

/** Recognisable on sight, so that a leak can be searched for. */
export const SERVICE_KEY = accessKey('AKIASERVICE000000000', 'CANARYservice0000000000000000000000000AA');
export const LONG_LIVED = accessKey('AKIAMERCHANTA0000000', 'CANARYlonglived00000000000000000000000AA');
export const TEMPORARY = accessKey(
  'ASIAMERCHANTA0000000',
  'CANARYtemporary0000000000000000000000/AA',
  'CANARYsessiontoken/0000000000000000000000000000==',
);
export const API_KEY: BedrockApiKey = {
  kind: 'bedrock-api-key',
  apiKey: new Secret('ABSKCANARYapikey00000000000000000000000000000000'),
};

export const CANARIES = [SERVICE_KEY, LONG_LIVED, TEMPORARY, API_KEY].flatMap((key) =>
  key.kind === 'bedrock-api-key'
    ? [key.apiKey.reveal()]
    : [key.secretAccessKey.reveal(), ...(key.sessionToken === undefined ? [] : [key.sessionToken.reveal()])],
);

export const ACTOR = { subject: 'api-key:AAAAAAAAAAAA', requestId: 'req-1' };
export const MERCHANT_A = 'merchant-a' as MerchantId;
export const MERCHANT_B = 'merchant-b' as MerchantId;

/** A stand-in that knows all keys above, and the KMS key. */
export async function startAws(): Promise<StandIn> {
  const aws = await startStandIn();
  aws.addAccessKey(known(SERVICE_KEY, OPERATOR_ACCOUNT));
  for (const key of [LONG_LIVED, TEMPORARY]) aws.addAccessKey(known(key, A_ACCOUNT));
  aws.addBedrockApiKey({ apiKey: API_KEY.apiKey.reveal(), accountId: A_ACCOUNT });
  aws.addKmsKey({ ...KMS_KEY, accountId: OPERATOR_ACCOUNT, region: 'us-east-1' });
  return aws;
}

export function known(key: AccessKey, accountId: string) {
  return {
    accessKeyId: key.accessKeyId,
    secretAccessKey: key.secretAccessKey.reveal(),
    accountId,
    ...(key.sessionToken !== undefined && { sessionToken: key.sessionToken.reveal() }),
  };
}

export function secretVault(aws: StandIn, change: Partial<AwsSecretVaultOptions> = {}): AwsSecretVault {
  return new AwsSecretVault({
    region: 'us-east-1',
    environment: 'test',
    kmsKeyId: KMS_KEY.alias,
    endpoints: { kms: aws.url, secretsManager: aws.url },
    serviceCredentials: SERVICE_KEY,
    ...change,
  });
}

/** Sealed outside of the service: nobody looks for what stays behind. */
export const unannounced = () => Promise.resolve();

/** What asks AWS alone, outside of any route. */
export const unrecorded = () => Promise.resolve();

/** The whole vault on a real database and the stand-in, with two merchants. */
export async function setUpVault() {
  const testDatabase = await newTestDatabase();
  const aws = await startAws();
  const database = new Database({
    url: new Secret(testDatabase.url),
    connectionsMax: 8,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  const leftovers: string[] = [];
  const onLeftover = (secretName: string) => void leftovers.push(secretName);
  const secrets = secretVault(aws);
  const store = new CredentialStore(database);
  const identity = new AwsIdentityCheck({
    regions: ['us-east-1', 'us-west-2'],
    endpoints: { sts: aws.url, bedrock: aws.url },
  });
  const clock = { now: () => Date.now() };
  const opened = new OpenedCache({ clock });
  const parts = {
    store,
    leftovers: new Leftovers({ store: new LeftoverStore(database), secrets, onLeftover, afterMs: 3_600_000 }),
    freezer: new FreezeStore(database),
    secrets,
    identity,
    audit: new AuditStore(database),
    opened,
    // No roles here: test/server/roles.test.ts has them.
    roleSessions: { evict: () => undefined },
    roleProof: { prove: () => Promise.reject(new Error('no role was stored')) },
    clock,
    onLeftover,
  };
  const vault = new Vault(parts);
  const credentials = new CredentialKeeper({ ...parts, vault });
  for (const id of [MERCHANT_A, MERCHANT_B])
    await database.asTenant(id, (tx) => tx.merchant.create({ data: { id, name: id } }));
  const asAdmin = <T>(work: (client: pg.Client) => Promise<T>) => onServer(testDatabase.adminUrl, work);
  const close = async (): Promise<void> => {
    opened[Symbol.dispose]();
    secrets[Symbol.dispose]();
    await database[Symbol.asyncDispose]();
    await aws.close();
    await testDatabase[Symbol.asyncDispose]();
  };
  return { vault, credentials, parts, database, aws, leftovers, asAdmin, close };
}

export type VaultHouse = Awaited<ReturnType<typeof setUpVault>>;

export function input(material: AccessKey | BedrockApiKey = LONG_LIVED, makeDefault = false) {
  return { name: 'main', region: 'us-east-1', material, makeDefault };
}

/** The ServiceError that the work fails with. */
export async function failure(work: Promise<unknown>): Promise<ServiceError> {
  const error: unknown = await work.then(
    () => new Error('it did not fail'),
    (caught: unknown) => caught,
  );
  if (error instanceof ServiceError) return error;
  throw error;
}

export async function codeOf(work: Promise<unknown>): Promise<ErrorCode> {
  return (await failure(work)).code;
}

function accessKey(accessKeyId: string, secret: string, token?: string): AccessKey {
  return {
    kind: 'access-key',
    accessKeyId,
    secretAccessKey: new Secret(secret),
    ...(token !== undefined && { sessionToken: new Secret(token) }),
  };
}

/** Every way in which a text may have got into bytes: as it is, base64 at each alignment, hex, URL- and JSON-escaped. */
export function spellings(text: string): string[] {
  const base64 = [0, 1, 2].map((shift) =>
    Buffer.from('x'.repeat(shift) + text)
      .toString('base64')
      .slice(4, -4),
  );
  const hex = Buffer.from(text).toString('hex');
  return [
    text,
    ...base64,
    hex,
    hex.toUpperCase(),
    encodeURIComponent(text),
    JSON.stringify(text).slice(1, -1),
  ];
}

/** Runs with these variables set as well, and puts the environment back. */
export async function withEnvironment(
  values: Readonly<Record<string, string>>,
  work: () => Promise<void>,
): Promise<void> {
  const before = { ...process.env };
  Object.assign(process.env, values);
  try {
    await work();
  } finally {
    for (const name of Object.keys(values)) Reflect.deleteProperty(process.env, name);
    Object.assign(process.env, before);
  }
}
