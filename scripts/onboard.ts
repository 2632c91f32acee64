/** Creates a merchant, its first API key and its credential: all of it or nothing. Secrets never come from arguments. */
import { ConfigError } from '../src/config/env.ts';
import { readFlags } from './cli/flags.ts';
import { onboardInDatabase, onboardOverRest, Refused } from './cli/onboard-targets.ts';
import type { Onboarded } from './cli/onboard-targets.ts';
import { ONBOARD_OPTIONS, planOf, requestOf, secretsFor } from './cli/plan.ts';
import type { OnboardPlan } from './cli/plan.ts';
import { Interrupted } from './cli/prompt.ts';
import { readSecrets } from './cli/secrets.ts';
import { UsageError } from './cli/usage-error.ts';

const HELP = `Usage: npm run onboard -- --merchant ID --name TEXT --region REGION [options]

Creates a merchant, its first API key and its first AWS credential: all of it, or nothing.
AWS is asked whose credential it is before anything is written. The token is shown once.

Where:
  --url URL                  a running service; needs an operator's token (ops:merchants:write)
  (no --url)                 the database of this machine's configuration (.env), without a service

What:
  --merchant ID              2 to 63 characters of a-z, 0-9 and -
  --name TEXT                what people call it
  --region REGION            region of the credential, e.g. us-east-1
  --credential-name TEXT     default: first credential
  --kind KIND                access-key (default) or bedrock-api-key
  --no-credential            the merchant stores its credential later
  --allow-direct             may send AWS keys in its requests
  --allow-service-defaults   may use the service's own AWS account
  --regions A,B              may use these regions only; default: all that are enabled
  --key-name TEXT            default: first key
  --scopes A,B               of the API key; default: all
  --expires-in-days N        of the API key, 1 to 365; default: 90

Secrets, never as arguments:
  (a terminal)               asked one by one, not shown while typed
  --secrets-stdin            JSON on standard input: {"operatorToken", "awsAccessKeyId", "awsSecretAccessKey",
                             "awsSessionToken", "bedrockApiKey"}, as far as they are needed
  --secrets-fd N             the same from file descriptor N

Output:
  --json                     one line: {"merchantId","apiKeyId","token","expiresAt","credentialId"}

Examples:
  npm run onboard -- --merchant acme --name "Acme Ltd" --region eu-central-1
  npm run --silent onboard -- --url https://bedrock.example --merchant acme --name Acme --region us-east-1 \\
    --secrets-fd 3 --json 3< <(vault read -format=json ...)

Exit codes: 0 done, 1 refused, 2 wrong use, 130 interrupted. With 1, 2 and 130 nothing was written, unless it says otherwise.
`;

async function main(): Promise<number> {
  const flags = readFlags(process.argv.slice(2), ONBOARD_OPTIONS);
  if (flags['help'] === true) {
    process.stdout.write(HELP);
    return 0;
  }
  const plan = planOf(flags);
  const secrets = await readSecrets(secretsFor(plan), {
    stdin: plan.secretsStdin,
    fd: plan.secretsFd,
    terminal: { input: process.stdin, output: process.stderr },
    standardInput: process.stdin,
  });
  const request = requestOf(plan, secrets);
  const onboarded =
    plan.url === undefined
      ? await onboardInDatabase(request)
      : await onboardOverRest(plan.url, secrets.operatorToken ?? '', request);
  process.stdout.write(plan.json ? `${JSON.stringify(jsonOf(onboarded))}\n` : textOf(onboarded, plan));
  return 0;
}

function jsonOf({ merchantId, apiKey, credentialId }: Onboarded) {
  return { merchantId, apiKeyId: apiKey.id, token: apiKey.token, expiresAt: apiKey.expiresAt, credentialId };
}

function textOf({ merchantId, apiKey, credentialId }: Onboarded, plan: OnboardPlan): string {
  const base = `${plan.url ?? 'http://127.0.0.1:8080'}/api/merchants/${merchantId}/bedrock`;
  return `Merchant     ${merchantId}
Credential   ${credentialId ?? 'none yet: POST …/credentials stores one'}
API key      ${apiKey.id}, until ${apiKey.expiresAt}
Token        ${apiKey.token}

Keep the token: it is not shown again. Any Bedrock client works with it:
  AWS_ENDPOINT_URL_BEDROCK_RUNTIME=${base.replace(/\/$/, '')}
  AWS_BEARER_TOKEN_BEDROCK=<the token>
  AWS_REGION=${plan.credential?.region ?? 'us-east-1'}
`;
}

/** What went wrong, on standard error; nothing on standard output. */
function explain(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.problems.join('\n')}\n`);
    return 2;
  }
  if (error instanceof Interrupted) {
    process.stderr.write('Interrupted. Nothing was written.\n');
    return 130;
  }
  if (error instanceof Refused) process.stderr.write(`${error.lines.join('\n')}\n`);
  else if (error instanceof ConfigError) process.stderr.write(`${error.message}\nNothing was written.\n`);
  else
    process.stderr.write(
      `Not onboarded: ${error instanceof Error ? error.message : 'unknown reason'}\nNothing was written.\n`,
    );
  return 1;
}

try {
  process.loadEnvFile();
} catch {
  // There is no .env: the environment is all there is.
}
try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = explain(error);
}
