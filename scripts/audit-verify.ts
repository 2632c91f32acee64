/** Recomputes audit chains and says the first place where one is not what was written. */
import { parseArgs } from 'node:util';
import { AuditStore } from '../src/audit/audit-store.ts';
import { ChainVerifier } from '../src/audit/verify.ts';
import type { AuditFault } from '../src/audit/verify.ts';
import { SYSTEM_CHAIN } from '../src/domain/audit.ts';
import type { MerchantId } from '../src/domain/ids.ts';
import { Secret } from '../src/domain/secret.ts';
import { MerchantStore } from '../src/merchants/merchant-store.ts';
import { Database } from '../src/persistence/database.ts';
import { wasStarted } from './cli/run.ts';

const HELP = `Usage: npm run audit:verify -- [--merchant ID] [--json]

Checks the audit chain of one merchant, or of all and the operators' own, against the database in DATABASE_URL:
every hash is recomputed, every link followed, and the end compared with the chain's head.

  --merchant ID   only this merchant's chain
  --json          one line of JSON per chain

Exit code: 0 all chains hold, 1 a chain was tampered with (the first bad event is printed), 2 it could not be checked.
`;
const PAGE = 1_000;

export interface ChainResult {
  chain: string;
  events: number;
  fault: AuditFault | undefined;
}

/** Checks one chain from its first event to its head. */
export async function verifyChain(audit: AuditStore, chain: string): Promise<ChainResult> {
  const verifier = new ChainVerifier(chain);
  for (;;) {
    const { events, head } = await audit.page(chain as MerchantId, verifier.length, PAGE);
    for (const event of events) {
      const fault = verifier.check(event);
      if (fault !== undefined) return { chain, events: verifier.length, fault };
    }
    if (events.length < PAGE)
      return {
        chain,
        events: verifier.length,
        fault: verifier.end(head) ?? emptiness(chain, verifier.length),
      };
  }
}

/** A merchant has at least the event of its creation. Only the operators' chain may be empty. */
function emptiness(chain: string, events: number): AuditFault | undefined {
  if (events > 0 || chain === SYSTEM_CHAIN) return undefined;
  return {
    merchantId: chain,
    seq: 0,
    fault: 'head',
    detail: 'the chain is empty: all of its events are gone',
  };
}

async function* chainsOf(merchants: MerchantStore): AsyncGenerator<string> {
  yield SYSTEM_CHAIN;
  let after = '';
  for (;;) {
    const { items, nextCursor } = await merchants.list(PAGE, after);
    for (const merchant of items) yield merchant.id;
    if (nextCursor === undefined) return;
    after = nextCursor;
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      merchant: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help === true) {
    console.log(HELP);
    return 0;
  }
  const url = process.env['DATABASE_URL'];
  if (url === undefined || url === '') {
    console.error(`DATABASE_URL is not set.\n\n${HELP}`);
    return 2;
  }
  await using database = new Database({
    url: new Secret(url),
    connectionsMax: 2,
    statementTimeoutMs: 60_000,
    onPoolError: () => undefined,
  });
  const audit = new AuditStore(database);
  const merchants = new MerchantStore(database);
  if (values.merchant !== undefined && (await merchants.find(values.merchant as MerchantId)) === undefined) {
    console.error('There is no merchant with that id.');
    return 2;
  }
  const chains = values.merchant === undefined ? chainsOf(merchants) : [values.merchant];
  let faults = 0;
  for await (const chain of chains) {
    const result = await verifyChain(audit, chain);
    if (result.fault !== undefined) faults += 1;
    console.log(values.json === true ? JSON.stringify(result) : sentence(result));
  }
  return faults === 0 ? 0 : 1;
}

function sentence({ chain, events, fault }: ChainResult): string {
  if (fault === undefined) return `ok      ${chain}: ${String(events)} events`;
  return `BROKEN  ${chain}: event ${String(fault.seq)}: ${fault.detail} (${fault.fault})`;
}

if (wasStarted(import.meta.url)) {
  main().then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      console.error(`Not checked: ${error instanceof Error ? error.message : 'unknown reason'}`);
      process.exitCode = 2;
    },
  );
}
