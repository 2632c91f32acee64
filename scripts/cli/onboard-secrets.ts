import { Terminal } from './terminal.ts';
import type { TerminalInput, TerminalOutput } from './terminal.ts';
import { SECRET_NAMES, secretProblem, secretsWanted } from './onboard-order.ts';
import type { GivenSecrets, OnboardFlags, SecretName } from './onboard-order.ts';
import { readSecrets } from './secrets-document.ts';

const LABELS: Readonly<Record<SecretName, string>> = {
  operatorToken: "Operator's token (not shown)",
  awsAccessKeyId: 'AWS access key id',
  awsSecretAccessKey: 'AWS secret access key (not shown)',
  awsSessionToken: 'AWS session token (not shown)',
  bedrockApiKey: 'Bedrock API key (not shown)',
  merchantToken: "Merchant's token (not shown)",
};

/** Where the secrets come from: a file descriptor (0 is stdin), a person at a terminal, or nowhere because none is needed. */
export type SecretsSource = { fd: number } | 'terminal' | 'none';

/** Reads the flags about secrets. A source that cannot work is a problem, with the remedy. */
export function sourceOf(
  flags: OnboardFlags,
  stdinIsTerminal: boolean,
): { source: SecretsSource; problems: string[] } {
  const { 'secrets-stdin': stdin, 'secrets-fd': fd } = flags;
  if (stdin === true && fd !== undefined)
    return { source: 'none', problems: ['--secrets-stdin and --secrets-fd are two sources: give one'] };
  if (stdin === true) return { source: { fd: 0 }, problems: [] };
  if (fd !== undefined) {
    if (/^(0|[3-9]|[1-9]\d{1,3})$/.test(fd)) return { source: { fd: Number(fd) }, problems: [] };
    return {
      source: 'none',
      problems: ['--secrets-fd must be the number of an open file descriptor: 0, or 3 and above'],
    };
  }
  if (secretsWanted(flags).required.length === 0) return { source: 'none', problems: [] };
  if (stdinIsTerminal) return { source: 'terminal', problems: [] };
  return {
    source: 'none',
    problems: [
      'no secrets: stdin is not a terminal, so nobody can be asked. Give --secrets-stdin or --secrets-fd N, and a JSON document there',
    ],
  };
}

/** Reads the document of secrets, if there is one. */
export function readGiven(source: SecretsSource): Promise<{ secrets: GivenSecrets; problems: string[] }> {
  return typeof source === 'object'
    ? readSecrets<SecretName>(source.fd, SECRET_NAMES)
    : Promise.resolve({ secrets: {}, problems: [] });
}

/** Asks a person for what the flags call for; each answer is checked by its form at once. @throws Interrupted */
export async function askForSecrets(
  flags: OnboardFlags,
  input: TerminalInput,
  output: TerminalOutput,
): Promise<GivenSecrets> {
  using terminal = new Terminal(input, output);
  const given: GivenSecrets = {};
  const ask = async (name: SecretName) => {
    given[name] = await terminal.ask({
      label: LABELS[name],
      echo: name === 'awsAccessKeyId',
      check: (answer) => secretProblem(name, answer),
    });
  };
  for (const name of secretsWanted(flags).required) await ask(name);
  if (given.awsAccessKeyId?.startsWith('ASIA') === true) await ask('awsSessionToken');
  return given;
}
