/** Recomputes audit chains, in the database or in exports, and says the first place where one is not what was written. */
import { parseArgs } from 'node:util';
import { AuditStore } from '../src/audit/audit-store.ts';
import { CheckpointStore } from '../src/audit/checkpoint-store.ts';
import type { MerchantId } from '../src/domain/ids.ts';
import { Secret } from '../src/domain/secret.ts';
import { MerchantStore } from '../src/merchants/merchant-store.ts';
import { Database } from '../src/persistence/database.ts';
import { Failure, nameOf, wasStarted } from './cli/run.ts';
import { verifyDatabase } from './cli/verify-chains.ts';
import type { ChainResult, CheckpointResult } from './cli/verify-chains.ts';
import { readKeys, readProven, readSigned, verifyExports } from './cli/verify-exports.ts';
import type { ExportResult } from './cli/verify-exports.ts';

const HELP = `Usage: npm run audit:verify -- [--merchant ID] [--public-key FILE] [--checkpoint FILE] [--all-roots] [--json]
       npm run audit:verify -- --export FILE --public-key FILE [--checkpoint FILE] [--from N] [--json]

Checks the audit chain of one merchant, or of all and the operators' own, against the database in DATABASE_URL:
every hash is recomputed, every link followed, the end compared with the chain's head, and all of it with the signed
checkpoints. With --export it checks an export of GET /audit/export, and needs neither database nor network.

  --merchant ID       only this merchant's chain: its hashes, links, head and leaves, and the signatures of checkpoints.
                      Roots are of all chains, so none is recomputed: it does not show a chain that was rewritten
                      together with its leaves
  --export FILE       an export; - is standard input. Several, in order, are checked as one
  --public-key FILE   the public key of the KMS key that signs checkpoints (PEM). Have it from elsewhere than the
                      export: aws kms get-public-key. Several, when the key was changed
  --checkpoint FILE   a checkpoint that was kept earlier: what it covers must be there, unchanged. Several, too. Without
                      one, nothing shows a database, or an export, that went back to an earlier checkpoint
  --from N            the first export begins with event N; what was before is not checked
  --all-roots         recompute the root of every checkpoint. Otherwise the newest, those of --checkpoint and others,
                      evenly spread, as many as a million leaf hashes allow; a rewrite between two of them that was
                      signed anew since is not shown. Costs about ten seconds of a core and one more reading of the
                      leaves for each million (checkpoints x chains)
  --json              one line of JSON for each chain

Exit code: 0 all chains hold, 1 a chain was tampered with (the first bad event is printed), 2 it could not be checked.
`;

type Result = ChainResult | CheckpointResult | ExportResult;

const OPTIONS = {
  merchant: { type: 'string' },
  export: { type: 'string', multiple: true, default: [] as string[] },
  'public-key': { type: 'string', multiple: true, default: [] as string[] },
  checkpoint: { type: 'string', multiple: true, default: [] as string[] },
  from: { type: 'string' },
  'all-roots': { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;
type Flags = ReturnType<typeof readFlags>;

function readFlags() {
  return parseArgs({ options: OPTIONS }).values;
}

async function main(): Promise<number> {
  const flags = readFlags();
  if (flags.help === true) {
    console.log(HELP);
    return 0;
  }
  let faults = 0;
  for await (const result of flags.export.length > 0 ? exportsOf(flags) : databaseOf(flags)) {
    if (result.fault !== undefined) faults += 1;
    console.log(flags.json === true ? JSON.stringify(result) : sentence(result));
  }
  return faults === 0 ? 0 : 1;
}

async function* exportsOf(flags: Flags): AsyncGenerator<Result> {
  if (flags['public-key'].length === 0)
    throw new Failure('--export needs --public-key: without it nothing says who signed');
  if (flags.merchant !== undefined) throw new Failure('--merchant is for the database, not for --export');
  const from = flags.from ?? '1';
  if (!/^[1-9]\d{0,14}$/.test(from)) throw new Failure('--from must be the number of an event, from 1');
  const keys = readKeys(flags['public-key']);
  yield await verifyExports(flags.export, { keys, kept: readProven(flags.checkpoint), from: Number(from) });
}

async function* databaseOf(flags: Flags): AsyncGenerator<Result> {
  const url = process.env['DATABASE_URL'];
  if (url === undefined || url === '') throw new Failure(`DATABASE_URL is not set.\n\n${HELP}`);
  if (flags.from !== undefined) throw new Failure('--from is for --export');
  await using database = new Database({
    url: new Secret(url),
    connectionsMax: 2,
    statementTimeoutMs: 60_000,
    onPoolError: () => undefined,
  });
  const merchants = new MerchantStore(database);
  const { merchant } = flags;
  if (merchant !== undefined && (await merchants.find(merchant as MerchantId)) === undefined)
    throw new Failure('There is no merchant with that id.');
  const stores = { audit: new AuditStore(database), checkpoints: new CheckpointStore(database), merchants };
  const keys = flags['public-key'].length > 0 ? { keys: readKeys(flags['public-key']) } : {};
  const kept = readSigned(flags.checkpoint);
  let told = false;
  for await (const result of verifyDatabase(stores, {
    merchant,
    ...keys,
    kept,
    allRoots: flags['all-roots'] === true,
  })) {
    if ('roots' in result && keys.keys === undefined) told = true;
    yield result;
  }
  if (told)
    console.error(
      'The checkpoints were checked with the keys that the database itself names. Give --public-key to be sure who signed.',
    );
}

function sentence(result: Result): string {
  const { fault } = result;
  const what = 'chain' in result ? result.chain : 'checkpoints';
  if (fault !== undefined)
    return `BROKEN  ${what}: ${what === 'checkpoints' ? 'checkpoint' : 'event'} ${String(fault.seq)}: ${fault.detail} (${fault.fault})`;
  if ('roots' in result)
    return `ok      checkpoints: ${String(result.checkpoints)} signed for ${result.origin ?? ''}, ${String(result.roots)} held against all chains`;
  if ('to' in result)
    return `ok      ${what}: events ${String(result.from)} to ${String(result.to)}, signed by checkpoint ${String(result.checkpoint)} of ${result.origin ?? ''}, ${result.at ?? ''}`;
  return `ok      ${what}: ${String(result.events)} events`;
}

if (wasStarted(import.meta.url)) {
  main().then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      console.error(`Not checked: ${error instanceof Failure ? error.message : reasonOf(error)}`);
      process.exitCode = 2;
    },
  );
}

/** A message of the database or of Node may hold what was given. */
function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string' && code.startsWith('ERR_PARSE_ARGS'))
    return 'an argument is not known, or lacks its value; see --help';
  return error instanceof Error && 'detail' in error ? String(error.detail) : nameOf(error);
}
