/** The whole system on one machine: embedded Postgres, the AWS stand-in and the real service, and a tour of the main job. */
import { parseArgs } from 'node:util';
import { startHouse } from './demo/house.ts';
import type { House } from './demo/house.ts';
import { tour } from './demo/tour.ts';

const HELP = `Usage: npm run demo -- [--once] [--json]

Starts a Postgres of its own, a stand-in for AWS and the service; onboards merchant-abc with the onboarding script; runs the main job in
each of the three ways and once through an unmodified AWS SDK that streams; prints answers, usage, costs and audit trail; and stays up.

  --once   ends after the tour
  --json   no tour: prints one line of JSON with everything a script needs, and stays up

Nothing here talks to AWS. DATABASE_URL, if set, takes the place of the embedded Postgres (a login that may create databases).
`;

const BANNER = `
  ┌──────────────────────────────────────────────────────────────────────────┐
  │  merchant-bedrock demo. The answers below come from a STAND-IN for AWS:  │
  │  no model runs, nothing is billed, no key is real.                       │
  └──────────────────────────────────────────────────────────────────────────┘
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { once: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help === true) {
    console.log(HELP);
    return 0;
  }
  const stopped = nextSignal();
  const say =
    values.json === true
      ? () => undefined
      : (line: string) => {
          console.log(line);
        };
  say(BANNER);
  await using house = await startHouse(say, stopped.signal);
  if (values.json === true) console.log(JSON.stringify(house.facts));
  else await tour(house.facts);
  if (values.once === true) return 0;
  say(goOn(house));
  await stopped.promise;
  say('\nStopping.');
  return 0;
}

function goOn({ facts }: House): string {
  const prefix = `${facts.baseUrl}/api/merchants/${facts.merchantId}/bedrock`;
  return `
Go on with:

  TOKEN=${facts.token}
  OPS_TOKEN=${facts.opsToken}

  curl -s ${prefix}/chat -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{"modelId":"amazon.nova-micro-v1:0","prompt":"Hello there","credentialId":"${facts.credentialId}"}'

  curl -sN ${prefix}/chat -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{"modelId":"amazon.nova-micro-v1:0","prompt":"Hello there","stream":true}'

  curl -s "${prefix}/usage?timeframe=day&groupBy=source,model" -H "Authorization: Bearer $TOKEN"
  curl -s ${prefix}/audit -H "Authorization: Bearer $TOKEN"
  curl -s ${facts.baseUrl}/api/ops/usage -H "Authorization: Bearer $OPS_TOKEN"

Any Bedrock client works with these three variables:

  AWS_ENDPOINT_URL_BEDROCK_RUNTIME=${prefix} AWS_BEARER_TOKEN_BEDROCK=$TOKEN AWS_REGION=us-east-1

Ctrl-C stops everything.`;
}

/** Ctrl-C at any moment: what has been started is stopped in order. A second one ends at once. */
function nextSignal(): { promise: Promise<void>; signal: AbortSignal } {
  const abort = new AbortController();
  const promise = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (abort.signal.aborted) process.exit(130);
        abort.abort();
        resolve();
      });
    }
  });
  return { promise, signal: abort.signal };
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(`The demo stopped: ${error instanceof Error ? error.message : 'unknown reason'}`);
    process.exitCode = 1;
  },
);
