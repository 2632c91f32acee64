import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { UsageError } from './usage-error.ts';

type Options = NonNullable<ParseArgsConfig['options']>;
export type Flags = Readonly<Record<string, string | boolean | undefined>>;

/** What people try although an argument is visible to everyone on the machine. */
const SECRET_LIKE = /secret|token|password|access-?key|api-?key$/i;

/**
 * Reads flags strictly. What is unknown is named without its value, and what looks like a secret is told where secrets go.
 * @throws UsageError with every problem.
 */
export function readFlags(args: readonly string[], options: Options): Flags {
  const { tokens, values } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const problems = new Set<string>();
  for (const token of tokens) {
    if (token.kind === 'positional')
      problems.add('An argument without a flag was given. Everything here has a name; see --help.');
    if (token.kind !== 'option') continue;
    const option = options[token.name];
    if (option === undefined) problems.add(unknown(token.rawName));
    else if (option.type === 'string' && token.value === undefined)
      problems.add(`${token.rawName} needs a value.`);
    else if (option.type === 'boolean' && token.value !== undefined)
      problems.add(`${token.rawName} takes no value.`);
  }
  if (problems.size > 0) throw new UsageError([...problems]);
  return values as Flags;
}

function unknown(flag: string): string {
  const name = /^--?[A-Za-z-]{1,40}$/.test(flag) ? flag : 'A flag';
  if (!SECRET_LIKE.test(flag)) return `${name} is not known; see --help.`;
  return `${name} is not taken: arguments are visible to everyone on this machine and stay in the shell's history. Secrets come from the prompt, --secrets-stdin or --secrets-fd N.`;
}
