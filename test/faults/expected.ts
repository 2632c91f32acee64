/*
 * What a caller is answered, and what the ledger says, while something is down. docs/operations.md has the same table; a test holds the two
 * equal, and another breaks each thing in each way and compares.
 *
 *   `<status> <code of the error> (<Retry-After> s), <state of the call in the ledger>, stale`
 *
 * Without a state there is no row that counts, and nothing was sent to Bedrock.
 */

export const HOWS = ['refused', 'black hole', 'slow', 'throttled', '5xx'] as const;
export type How = (typeof HOWS)[number];

export const CASES = [
  'stored, never opened',
  'stored, open',
  'stored, opened before',
  'direct, new',
  'direct, known',
  'store',
  'test',
] as const;
export type Case = (typeof CASES)[number];

export const DEPENDENCIES = ['Postgres', 'KMS', 'Secrets Manager', 'STS', 'Bedrock'] as const;
export type Dependency = (typeof DEPENDENCIES)[number];

interface Row {
  what: Dependency;
  how: readonly How[];
  answers: Record<Case, string>;
}

const NO_LEDGER = '503 ledger.unavailable (5 s)';
const NO_VAULT = '503 vault.unavailable (5 s)';
const NO_IDENTITY = '502 upstream.unreachable (5 s)';
const DONE = '200 settled';

function row(what: Dependency, how: readonly How[], ...answers: string[]): Row {
  return {
    what,
    how,
    answers: Object.fromEntries(CASES.map((name, i) => [name, answers[i] ?? ''])) as Row['answers'],
  };
}

// prettier-ignore
export const EXPECTED: readonly Row[] = [
  //                                never opened  open       opened before          direct, new  direct, known  store        test
  row('Postgres', HOWS,             NO_LEDGER,    NO_LEDGER, NO_LEDGER,             NO_LEDGER,   NO_LEDGER,     NO_LEDGER,   NO_LEDGER),
  row('KMS', HOWS,                  NO_VAULT,     DONE,      `${DONE}, stale`,      DONE,        DONE,          NO_VAULT,    NO_VAULT),
  row('Secrets Manager', HOWS,      NO_VAULT,     DONE,      `${DONE}, stale`,      DONE,        DONE,          NO_VAULT,    NO_VAULT),
  row('STS', HOWS,                  DONE,         DONE,      DONE,                  NO_IDENTITY, DONE,          NO_IDENTITY, NO_IDENTITY),
  row('Bedrock', ['refused'],       ...paid('502 upstream.unreachable, void'),                                  '201',       '200'),
  row('Bedrock', ['black hole'],    ...paid('504 upstream.timeout, unknown'),                                   '201',       '200'),
  row('Bedrock', ['slow'],          ...paid(DONE),                                                              '201',       '200'),
  row('Bedrock', ['throttled'],     ...paid('429 upstream.throttled (1 s), void'),                              '201',       '200'),
  row('Bedrock', ['5xx'],           ...paid('502 upstream.error, unknown'),                                     '201',       '200'),
];

function paid(answer: string): string[] {
  return Array<string>(5).fill(answer);
}

/** The same as a table of Markdown. */
export function asMarkdown(): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(['What', 'How', ...CASES]),
    line(Array<string>(CASES.length + 2).fill('---')),
    ...EXPECTED.map(({ what, how, answers }) =>
      line([
        what,
        how.length === HOWS.length ? 'all' : how.join(', '),
        ...CASES.map((name) => answers[name]),
      ]),
    ),
  ];
}
