/** Makes, lists and revokes operators' keys. Needs an administrator's login: the service itself cannot. */
import { readArguments } from './cli/arguments.ts';
import { ORDER_OPTIONS, orderFrom, readSettings } from './cli/operator-key-order.ts';
import { createOperatorKey, listOperatorKeys, revokeOperatorKey } from './cli/operator-keys.ts';
import type { ListedKey } from './cli/operator-keys.ts';
import { print, run, shown, UsageError, wasStarted } from './cli/run.ts';

export { createOperatorKey } from './cli/operator-keys.ts';

const HELP = `Usage: npm run operator-key -- --name TEXT [options]
       npm run operator-key -- --list [--json]
       npm run operator-key -- --revoke ID

Makes a key for an operator: someone who onboards merchants and sees usage and audit across them. Prints its token this one time.

  --name TEXT           whose key it is
  --scopes A,B          what it may do (default: ops:merchants:read,ops:merchants:write,ops:usage:read,ops:audit:read)
  --expires-in-days N   1 to 365 (default: 90)
  --environment ENV     live, or test for a service whose NODE_ENV is not production (default: as NODE_ENV says here)
  --list                shows all keys, revoked and expired ones too; never a token
  --revoke ID           no request is accepted with this key from now on; the id is the third part of its token
  --json                one line: {"id", "token", "expiresAt"}; with --list one line per key
  --help, -h            prints this

From the environment or .env
  DATABASE_ADMIN_URL    postgres:// URL of a login that owns the tables, as for npm run migrate
  TOKEN_PEPPER          as the service has it; or TOKEN_PEPPER_FILE. Not needed with --list and --revoke
  TOKEN_PEPPER_VERSION  as the service has it (default: 1)

Examples
  npm run operator-key -- --name "Jo from support" --scopes ops:merchants:read,ops:usage:read --expires-in-days 30
  npm run --silent operator-key -- --name ci --json | jq -r .token
  npm run operator-key -- --revoke 0Ab1Cd2Ef3Gh

Exit code: 0 done; 1 refused by the database, nothing was written; 2 bad input, all of it listed.
`;

/** read arguments and settings -> make, list or revoke -> print */
async function main(): Promise<void> {
  const { values: flags, problems } = readArguments(ORDER_OPTIONS, process.argv.slice(2));
  if (flags.help === true && problems.length === 0) {
    await print(HELP, '');
    return;
  }
  const settings = readSettings(flags, problems);
  const order = orderFrom(flags, settings, problems);
  if (problems.length > 0 || settings.adminUrl === undefined) throw new UsageError(problems);
  const json = flags.json === true;
  if (flags.list === true) {
    const keys = await listOperatorKeys(settings.adminUrl);
    await print(json ? keys.map((key) => `${JSON.stringify(key)}\n`).join('') : table(keys), '');
  } else if (flags.revoke !== undefined) {
    await revokeOperatorKey(settings.adminUrl, flags.revoke);
    await print(json ? `${JSON.stringify({ id: flags.revoke })}\n` : `${flags.revoke} is revoked.\n`, '');
  } else if (order !== undefined) {
    const made = await createOperatorKey(order);
    const text = `operator key  ${made.id}, until ${made.expiresAt}
token         ${made.token}

Keep the token: it is not shown again.
`;
    const ifLost = `The key ${made.id} was made, but its token is lost: revoke it with --revoke ${made.id}.`;
    await print(json ? `${JSON.stringify(made)}\n` : text, ifLost);
  }
}

function table(keys: readonly ListedKey[]): string {
  if (keys.length === 0) return 'There are no operator keys.\n';
  return keys
    .map(({ id, state, environment, expiresAt, name, scopes }) => {
      const words = [id, state.padEnd(7), environment, `until ${expiresAt}`, scopes.join(','), shown(name)];
      return `${words.join('  ')}\n`;
    })
    .join('');
}

// Tests and the demo import createOperatorKey.
if (wasStarted(import.meta.url)) run('operator-key', 'No key was made or changed', main);
