/** The service's own keys: what is under which, and data keys wrapped by another KMS key. */
import { ConfigError, loadDotEnv, readConfig } from '../src/config/env.ts';
import { SECRET_SETTINGS } from '../src/config/secret-settings.ts';
import type { Secrets } from '../src/config/secrets.ts';
import type { Config } from '../src/config/settings.ts';
import { DataKeyStore } from '../src/credentials/data-key-store.ts';
import { AwsDataKeys } from '../src/credentials/data-keys-aws.ts';
import { reasonOf } from '../src/credentials/aws-failure.ts';
import { rewrapDataKeys } from '../src/credentials/data-keys.ts';
import { ServiceError } from '../src/domain/errors.ts';
import { Secret } from '../src/domain/secret.ts';
import { administrator, withAdminDatabase } from './cli/admin-database.ts';
import { readArguments } from './cli/arguments.ts';
import { failedText, keysReport, reportText } from './cli/keys-shown.ts';
import { Failure, print, run, shown, UsageError } from './cli/run.ts';

const HELP = `Usage: npm run keys -- status [--json]
       npm run keys -- rewrap [--apply] [--json]

The service's own keys: which of them something is still under, and the move of data keys to another KMS key. docs/operations.md (Keys of the
service) has the order of roll-outs for each kind of key.

  status             counts data keys by KMS key, webhook secrets and kept answers by session key, live tokens by pepper; and lists tokens
                     that were not used since the pepper of today came: the older pepper can go when there are none
  rewrap             says how many data keys are under another KMS key than VAULT_KMS_KEY_ID
    --apply            moves them (kms:ReEncrypt, secretsmanager:UpdateSecret; no data key leaves KMS). The service runs on. Safe to
                       stop, to repeat, and to run twice at once
  --json             prints the result as JSON
  --help, -h         prints this

From the environment or .env
  DATABASE_ADMIN_URL   postgres:// URL of a login that owns the tables, as for npm run migrate
  and the settings of the service, with which its keys are recognised. Its AWS identity needs kms:DescribeKey on VAULT_KMS_KEY_ID; to move
  data keys kms:ReEncryptFrom on the old key, kms:ReEncryptTo on the new one, and what UpdateSecret asks (docs/operations.md)

Examples
  npm run keys -- status
  npm run keys -- rewrap --apply

Exit code: 0 done, or nothing to do; 1 refused, not reached, a data key stays, or something is under a key that the settings do not have;
2 bad input, all of it listed.
`;

const STATEMENT_TIMEOUT_MS = 600_000;
/** Tokens that are listed by name; the counts are of all. */
const LISTED_MAX = 200;

interface KeysOrder {
  command: 'status' | 'rewrap';
  apply: boolean;
  json: boolean;
  adminUrl: Secret;
  config: Config;
  secrets: Secrets;
}

async function main(): Promise<void> {
  const order = readOrder(process.argv.slice(2));
  if (order === undefined) return print(HELP, '');
  const { adminUrl, config, secrets } = order;
  const ifFailed = 'Not done to the end; what is done is done, and running it again does the rest.';
  using wrapping = new AwsDataKeys({
    region: config.awsRegion,
    environment: config.deployment,
    kmsKeyId: config.vaultKmsKeyId,
    privateNames: config.privateEndpoints,
    endpoints: {
      ...(config.endpointKms && { kms: config.endpointKms }),
      ...(config.endpointSecretsManager && { secretsManager: config.endpointSecretsManager }),
    },
    ...(secrets.serviceCredential && { serviceCredentials: secrets.serviceCredential }),
  });
  const arn = await wrapping.wanted().catch((error: unknown) => {
    const reason = error instanceof ServiceError ? reasonOf(error) : 'unknown reason';
    throw new Failure(`Not done: the KMS key of VAULT_KMS_KEY_ID was not found (${shown(reason)}).`);
  });
  await withAdminDatabase(adminUrl, { ifFailed, statementTimeoutMs: STATEMENT_TIMEOUT_MS }, (database) => {
    const desk = { store: new DataKeyStore(database), wrapping, arn };
    return order.command === 'status' ? status(desk, order) : rewrap(desk, order);
  });
}

interface Desk {
  store: DataKeyStore;
  wrapping: AwsDataKeys;
  arn: string;
}

async function status({ store, arn }: Desk, { config, secrets, json }: KeysOrder): Promise<void> {
  const stale = await store.belowPepper(config.tokenPepperVersion, LISTED_MAX);
  const report = keysReport(await store.status(), stale, { arn, config, secrets });
  await print(json ? `${JSON.stringify(report)}\n` : reportText(report), '');
  if (report.underUnknownKeys > 0) process.exitCode = 1;
}

async function rewrap({ store, wrapping, arn }: Desk, { apply, json }: KeysOrder): Promise<void> {
  const elsewhere = (await store.status()).filter(({ kind, key }) => kind === 'data-key' && key !== arn);
  const total = elsewhere.reduce((sum, { count }) => sum + count, 0);
  if (!apply) {
    const text = `${String(total)} data keys would be moved to ${arn}.\n${total === 0 ? '' : 'Nothing was done; --apply does it.\n'}`;
    return print(json ? `${JSON.stringify({ kmsKeyArn: arn, toRewrap: total })}\n` : text, '');
  }
  const done = await rewrapDataKeys({
    store,
    wrapping,
    arn,
    actor: administrator(),
    onProgress: ({ rewrapped }) => void process.stderr.write(`${String(rewrapped)} of ${String(total)}\n`),
  });
  if (Object.keys(done.failed).length > 0) throw new Failure(failedText(done, arn));
  const text = `${String(done.rewrapped)} data keys were moved to ${arn}${done.overtaken === 0 ? '' : `, ${String(done.overtaken)} were gone or moved meanwhile`}.\n`;
  await print(json ? `${JSON.stringify({ kmsKeyArn: arn, ...done })}\n` : text, 'It was done all the same.');
}

/** Undefined: help. @throws UsageError with every problem. */
function readOrder([command, ...rest]: readonly string[]): KeysOrder | undefined {
  if (command === '--help' || command === '-h') return undefined;
  const known = command === 'status' || command === 'rewrap';
  const { values: flags, problems } = readArguments(
    { apply: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    known ? rest : [...(command === undefined ? [] : [command]), ...rest],
  );
  if (flags.help === true && problems.length === 0) return undefined;
  if (!known) problems.unshift('the first argument must be one of: status, rewrap');
  if (command === 'status' && flags.apply === true) problems.push('--apply belongs to rewrap');
  loadDotEnv();
  const url = process.env['DATABASE_ADMIN_URL'] ?? '';
  if (!SECRET_SETTINGS.databaseUrl.read.safeParse(url).success)
    problems.push(
      `DATABASE_ADMIN_URL ${url === '' ? 'is missing: a' : 'must be the'} postgres:// URL of an administrator's login`,
    );
  const settings = readSettings(problems);
  if (problems.length > 0 || settings === undefined) throw new UsageError(problems);
  return {
    command: command === 'rewrap' ? 'rewrap' : 'status',
    apply: flags.apply === true,
    json: flags.json === true,
    adminUrl: new Secret(url),
    ...settings,
  };
}

function readSettings(problems: string[]): ReturnType<typeof readConfig> | undefined {
  try {
    return readConfig();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
    return undefined;
  }
}

run('keys', 'Not done', main);
