import { parseArgs } from 'node:util';
import { startStandIn } from './stand-in.ts';
import type { StandIn } from './stand-in.ts';

const HELP = `A stand-in for AWS (Bedrock, KMS, Secrets Manager, STS, IAM) on one loopback port. For tests and demonstrations only.

  tsx test/aws/main.ts [options]

  --port N                                   default 0: any free port
  --journal FILE                             JSON lines, one on receipt and one at the end of every request
  --access-key ID:SECRET:ACCOUNT             repeatable
  --bedrock-api-key KEY:ACCOUNT[:REGION]     repeatable
  --kms-key UUID:ACCOUNT:REGION[:ALIAS]      repeatable; ciphertexts stay readable over restarts
  --role ARN[,EXTERNAL_ID]                   repeatable
  --help

Control surface: GET /_stand-in/health, GET|DELETE /_stand-in/journal, POST|DELETE /_stand-in/faults.
`;

const OPTIONS = {
  port: { type: 'string', default: '0' },
  journal: { type: 'string' },
  'access-key': { type: 'string', multiple: true, default: [] as string[] },
  'bedrock-api-key': { type: 'string', multiple: true, default: [] as string[] },
  'kms-key': { type: 'string', multiple: true, default: [] as string[] },
  role: { type: 'string', multiple: true, default: [] as string[] },
  help: { type: 'boolean', default: false },
} as const;

const BANNER = 'THIS IS NOT AWS: a stand-in answers here, for tests and demonstrations.';

async function main(): Promise<void> {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return void process.stdout.write(HELP);
  const port = Number(values.port);
  if (!Number.isInteger(port)) throw new Error('--port must be a number');
  const standIn = await startStandIn({
    port,
    ...(values.journal !== undefined && { journalFile: values.journal }),
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void standIn.close());
  try {
    for (const text of values['access-key']) addAccessKey(standIn, text);
    for (const text of values['bedrock-api-key']) addApiKey(standIn, text);
    for (const text of values['kms-key']) addKmsKey(standIn, text);
    for (const text of values.role) addRole(standIn, text);
  } catch (error) {
    await standIn.close();
    throw error;
  }
  process.stdout.write(`${BANNER}\nlistening on ${standIn.url}\n`);
}

function addAccessKey(standIn: StandIn, text: string): void {
  const [accessKeyId, secretAccessKey, accountId] = parts('--access-key ID:SECRET:ACCOUNT', text, 3);
  standIn.addAccessKey({ accessKeyId, secretAccessKey, accountId });
}

function addApiKey(standIn: StandIn, text: string): void {
  const [apiKey, accountId, region] = parts('--bedrock-api-key KEY:ACCOUNT[:REGION]', text, 2);
  standIn.addBedrockApiKey({ apiKey, accountId, ...(region && { region }) });
}

function addKmsKey(standIn: StandIn, text: string): void {
  const [keyId, accountId, region, alias] = parts('--kms-key UUID:ACCOUNT:REGION[:ALIAS]', text, 3);
  standIn.addKmsKey({ keyId, accountId, region, ...(alias && { alias }) });
}

function addRole(standIn: StandIn, text: string): void {
  const [arn = '', externalId] = text.split(',');
  standIn.addRole({ arn, ...(externalId && { externalId }) });
}

/** @throws Error that shows the form, and not the value: it may hold a secret */
function parts(form: string, text: string, least: number): [string, string, string, string] {
  const found = text.split(':');
  if (found.length < least || found.slice(0, least).includes('')) throw new Error(`expected ${form}`);
  const [a = '', b = '', c = '', d = ''] = found;
  return [a, b, c, d];
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
