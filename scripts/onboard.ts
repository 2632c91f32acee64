/** Creates a merchant, its first API key and its first credential; all of it or nothing. */
import { ConfigError, loadDotEnv, readConfig } from '../src/config/env.ts';
import type { Secrets } from '../src/config/secrets.ts';
import type { Config } from '../src/config/settings.ts';
import { readArguments } from './cli/arguments.ts';
import { activatedText, activateOrder, activateOverHttp } from './cli/activate-role.ts';
import type { Activated, ActivateOrder } from './cli/activate-role.ts';
import { activateInDatabase, buildService, onboardInDatabase } from './cli/onboard-database.ts';
import { flagProblems, ONBOARD_OPTIONS, orderOf, secretProblems } from './cli/onboard-order.ts';
import type { GivenSecrets, OnboardFlags } from './cli/onboard-order.ts';
import { howToFindOut, humanText, jsonLine } from './cli/onboard-result.ts';
import type { Onboarded } from './cli/onboard-result.ts';
import { askForSecrets, readGiven, sourceOf } from './cli/onboard-secrets.ts';
import { onboardOverHttp, urlProblems } from './cli/onboard-service.ts';
import { holdSignals, print, run, UsageError } from './cli/run.ts';

const HELP = `Usage: npm run onboard -- --merchant ID --name TEXT --region REGION [options]
       npm run onboard -- --merchant ID --credential ID --activate ROLE_ARN [--url URL]

Creates a merchant, its first API key and its first AWS credential: all of it or nothing. Prints the ids, and the API key's token this
one time. AWS is asked whether the credential works before anything is written.

The merchant
  --merchant ID              2 to 63 characters of a-z, 0-9 and -; it stands in every URL of the merchant
  --name TEXT                what people call it
  --allow-direct             lets it send AWS keys with a request
  --allow-service-defaults   lets it use the service's own AWS account
  --regions A,B              regions it may use (default: all that the service has)

Its credential, which becomes its default
  --region REGION            where it is used, such as us-east-1
  --kind KIND                access-key (default), bedrock-api-key or assume-role: the best of the three, because nothing secret is stored.
                             It prints the trust policy that your role needs; make the role, then:
  --activate ROLE_ARN        proves the role of --credential ID and makes it the merchant's default
  --models A,B               with assume-role: models that the printed policy is to allow (default: all of the region)
  --credential-name TEXT     (default: main)
  --no-credential            creates none

Its API key
  --key-name TEXT            (default: first key)
  --scopes A,B               what it may do (default: everything of this merchant)
  --expires-in-days N        1 to 365 (default: 90)

Where
  --url https://HOST[:PORT]  a running service; needs an operator's token (npm run operator-key makes one)
                             Without it: the database, with the same configuration as the service (environment, .env, CONFIG_FILE).

Secrets are never arguments. They are asked for without echo, or read as one JSON document:
  --secrets-stdin            from stdin
  --secrets-fd N             from file descriptor N (npm passes on stdin only: use node --import tsx scripts/onboard.ts)
  {"operatorToken": "mbo_...", "awsAccessKeyId": "AKIA...", "awsSecretAccessKey": "...", "awsSessionToken": "..."}
  or, with --kind bedrock-api-key, {"operatorToken": "mbo_...", "bedrockApiKey": "..."}; operatorToken with --url only;
  with --activate and --url {"merchantToken": "mbk_..."}

Output
  --json                     one line: {"merchantId", "apiKeyId", "token", "expiresAt", "credentialId"}, and "role" with assume-role
  --help, -h                 prints this

Examples
  # asks for token and keys
  npm run onboard -- --url https://bedrock.example.com --merchant acme-corp --name "Acme Corp" --region us-east-1

  # from a password manager, for a program
  op read op://vault/acme | npm run --silent onboard -- --url https://bedrock.example.com --merchant acme-corp --name "Acme Corp" \\
    --region eu-central-1 --secrets-stdin --json

  # on the service's own machine, from a file that only its owner may read
  node --import tsx scripts/onboard.ts --merchant acme-corp --name "Acme Corp" --region us-east-1 --kind bedrock-api-key \\
    --secrets-fd 3 3< acme.json

Exit code: 0 onboarded; 1 refused, or the outcome is not known (stderr says which, and how to find out); 2 bad input, all of it listed;
130 interrupted. On 2 and 130 nothing was written.
`;

/** read arguments -> read or ask for secrets -> onboard -> print */
async function main(): Promise<void> {
  const { values: flags, problems } = readArguments(ONBOARD_OPTIONS, process.argv.slice(2));
  if (flags.help === true && problems.length === 0) {
    await print(HELP, '');
    return;
  }
  // A flag that was refused is not missing as well.
  const refused = new Set(problems.map((problem) => problem.split(' ')[0]));
  if (flags.activate !== undefined && refused.size === 0) {
    await activate(flags, flags.activate);
    return;
  }
  const target = refused.has('--url') ? { problems: [] } : readTarget(flags);
  const { source, problems: sourceProblems } = sourceOf(flags, process.stdin.isTTY);
  const given = await readGiven(source);
  problems.push(...flagProblems(flags).filter((problem) => !refused.has(problem.split(' ')[0])));
  problems.push(...target.problems, ...sourceProblems, ...given.problems);
  if (typeof source === 'object' && given.problems.length === 0)
    problems.push(...secretProblems(flags, given.secrets));
  if (problems.length > 0) throw new UsageError(problems);

  const secrets =
    source === 'terminal' ? await askForSecrets(flags, process.stdin, process.stderr) : given.secrets;
  const { onboarded, baseUrl } = await onboard(flags, target, secrets);
  const { merchantId, apiKey } = onboarded;
  await print(
    flags.json === true ? jsonLine(onboarded) : humanText(onboarded, baseUrl, whereOf(flags)),
    `${merchantId} is onboarded, but the token of its API key ${apiKey.id} is lost.`,
  );
}

/** How the same service is reached by the next command. */
function whereOf({ url }: OnboardFlags): string {
  return url === undefined ? '' : ` --url ${new URL(url).origin}`;
}

/** read or ask for the token -> prove the role -> print */
async function activate(flags: OnboardFlags, roleArn: string): Promise<void> {
  const target = readTarget(flags);
  const { source, problems: sourceProblems } = sourceOf(flags, process.stdin.isTTY);
  const given = await readGiven(source);
  const { order, problems } = activateOrder(flags, roleArn);
  problems.push(...target.problems, ...sourceProblems, ...given.problems);
  if (typeof source === 'object' && given.problems.length === 0)
    problems.push(...secretProblems(flags, given.secrets));
  if (order === undefined || problems.length > 0) throw new UsageError(problems);
  const secrets =
    source === 'terminal' ? await askForSecrets(flags, process.stdin, process.stderr) : given.secrets;
  const activated = await proveRole(flags, target, order, secrets);
  await print(activatedText(order, activated, flags.json === true), 'The role is active all the same.');
}

async function proveRole(
  flags: OnboardFlags,
  { configuration }: Target,
  order: ActivateOrder,
  { merchantToken = '' }: GivenSecrets,
): Promise<Activated> {
  if (configuration === undefined)
    return activateOverHttp(order, { origin: new URL(flags.url ?? '').origin, merchantToken });
  await using service = await buildService(configuration.config, configuration.secrets);
  return await activateInDatabase(service, order);
}

interface Target {
  problems: string[];
  configuration?: { config: Config; secrets: Secrets };
}

/** A running service, or the database of the service's own configuration. */
function readTarget(flags: OnboardFlags): Target {
  if (flags.url !== undefined) return { problems: urlProblems(flags.url, process.env) };
  loadDotEnv();
  try {
    return { problems: [], configuration: readConfig() };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { problems: error.problems.map((problem) => `without --url: ${problem}`) };
  }
}

async function onboard(
  flags: OnboardFlags,
  { configuration }: Target,
  secrets: GivenSecrets,
): Promise<{ onboarded: Onboarded; baseUrl: string }> {
  const order = orderOf(flags, secrets);
  const cut = `Cut off: it is not known whether ${order.id} was onboarded.\n${howToFindOut(order.id)}`;
  if (configuration === undefined) {
    const { origin } = new URL(flags.url ?? '');
    using _held = holdSignals(cut);
    const onboarded = await onboardOverHttp(order, { origin, operatorToken: secrets.operatorToken ?? '' });
    return { onboarded, baseUrl: origin };
  }
  const { config } = configuration;
  await using service = await buildService(config, configuration.secrets);
  using _held = holdSignals(cut);
  const onboarded = await onboardInDatabase(service, order);
  const scheme = config.tlsCertFile === undefined ? 'http' : 'https';
  return { onboarded, baseUrl: `${scheme}://${config.host}:${String(config.port)}` };
}

run('onboard', 'Not onboarded', main);
