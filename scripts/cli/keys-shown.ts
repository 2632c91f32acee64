import type { Secrets } from '../../src/config/secrets.ts';
import type { Config } from '../../src/config/settings.ts';
import type { KeyCount, StaleToken } from '../../src/credentials/data-key-store.ts';
import type { Rewrapped } from '../../src/credentials/data-keys.ts';
import { sealingKeyId } from '../../src/ledger/webhook-secrets.ts';
import { shown } from './run.ts';

/** What is under one key. `name`: the setting that holds it; null where no setting does. */
interface KeyLine {
  name: string | null;
  key: string;
  counts: Record<string, number>;
}

/** What `status` prints as JSON. No key is in it, only names of keys. */
export interface KeysReport {
  dataKeys: KeyLine[];
  sealed: KeyLine[];
  tokens: KeyLine[];
  notUsedSince: StaleToken[];
  /** Things that nobody can open or verify with these settings. Answers of versions that did not name their key are not counted. */
  underUnknownKeys: number;
}

interface Known {
  arn: string;
  config: Config;
  secrets: Secrets;
}

export function keysReport(
  found: readonly KeyCount[],
  notUsedSince: StaleToken[],
  { arn, config, secrets }: Known,
): KeysReport {
  const { sessionKey, sessionKeyPrevious, tokenPepperPrevious, tokenPepperNext } = secrets;
  const version = config.tokenPepperVersion;
  const dataKeys = linesOf(found, ['data-key'], [['VAULT_KMS_KEY_ID', arn]]);
  const sealed = linesOf(
    found,
    ['webhook-secret', 'answer'],
    [
      ['SESSION_KEY', sealingKeyId(sessionKey).toString('hex')],
      ...(sessionKeyPrevious
        ? ([['SESSION_KEY_PREVIOUS', sealingKeyId(sessionKeyPrevious).toString('hex')]] as const)
        : []),
    ],
  );
  const tokens = linesOf(
    found,
    ['token', 'operator-token'],
    [
      ['TOKEN_PEPPER', String(version)],
      ...(tokenPepperPrevious ? ([['TOKEN_PEPPER_PREVIOUS', String(version - 1)]] as const) : []),
      ...(tokenPepperNext ? ([['TOKEN_PEPPER_NEXT', String(version + 1)]] as const) : []),
    ],
  );
  const unknown = [...sealed, ...tokens].filter(({ name, key }) => name === null && key !== '');
  const underUnknownKeys = unknown
    .flatMap(({ counts }) => Object.values(counts))
    .reduce((sum, count) => sum + count, 0);
  return { dataKeys, sealed, tokens, notUsedSince, underUnknownKeys };
}

/** The keys of the settings first, also those that nothing is under. */
function linesOf(
  found: readonly KeyCount[],
  kinds: readonly KeyCount['kind'][],
  known: readonly (readonly [name: string, key: string])[],
): KeyLine[] {
  const own = found.filter(({ kind }) => kinds.includes(kind));
  const others = new Set(own.map(({ key }) => key).filter((key) => known.every(([, one]) => one !== key)));
  const line = (name: string | null, key: string): KeyLine => ({
    name,
    key,
    counts: Object.fromEntries(
      kinds.map((kind) => [kind, own.find((one) => one.kind === kind && one.key === key)?.count ?? 0]),
    ),
  });
  return [
    ...known.map(([name, key]) => line(name, key)),
    ...[...others].sort().map((key) => line(null, key)),
  ];
}

export function reportText({ dataKeys, sealed, tokens, notUsedSince }: KeysReport): string {
  const stale = notUsedSince.map(
    ({ merchantId, id, name, pepperVersion, expiresAt }) =>
      `  ${merchantId ?? '(operator)'}  API key ${id}  ${JSON.stringify(shown(name))}  version ${String(pepperVersion)}, expires ${expiresAt}\n`,
  );
  return [
    'Data keys, by the KMS key that wraps them\n',
    ...dataKeys.map((line) => lineText(line, 'another key: npm run keys -- rewrap --apply moves them')),
    'Sealed, by session key (sessions are not kept: those of a key end 15 minutes after the last replica stopped sealing with it)\n',
    ...sealed.map((line) => lineText(line, 'in no setting')),
    'Live tokens, by version of the pepper\n',
    ...tokens.map((line) => lineText(line, 'in no setting: they are refused')),
    ...(stale.length > 0
      ? ['Not used since the pepper of today came: revoke them or make them anew\n', ...stale]
      : []),
  ].join('');
}

const NAMES: Readonly<Record<string, string>> = {
  'data-key': 'data keys',
  'webhook-secret': 'webhook secrets',
  answer: 'kept answers',
  token: 'API keys',
  'operator-token': "operators' keys",
};

function lineText({ name, key, counts }: KeyLine, otherwise: string): string {
  const numbers = Object.entries(counts).map(([kind, count]) => `${String(count)} ${NAMES[kind] ?? kind}`);
  const whose = name ?? (key === '' ? 'kept by a version that did not say' : otherwise);
  return `  ${key === '' ? '?' : key}  ${numbers.join(', ')}  (${whose})\n`;
}

export function failedText({ rewrapped, failed }: Rewrapped, arn: string): string {
  const lines = Object.entries(failed).map(([reason, count]) => `  ${String(count)}: ${shown(reason)}`);
  return `${String(rewrapped)} data keys were moved to ${arn}. These stay where they are:\n${lines.join('\n')}\nRunning it again tries the rest.`;
}
