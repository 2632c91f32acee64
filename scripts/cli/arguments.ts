import { parseArgs } from 'node:util';

/** The flags of a command, as `parseArgs` takes them. */
export type Options = Readonly<Record<string, { type: 'string' | 'boolean'; short?: string }>>;

/** What was given: text for a flag that takes a value, true for one that does not. */
export type Values<O extends Options> = {
  -readonly [Name in keyof O]?: O[Name]['type'] extends 'boolean' ? true : string;
};

/** Flags that people try for a secret. None exists: `ps`, the shell's history and CI logs show every argument. */
const SECRET_FLAG = /secret|token|pass|key|credential|auth|pepper/;
/** A flag's name may be shown when it cannot be a secret by itself. */
const SHOWABLE_FLAG = /^--[a-z][a-z-]{0,38}$/;
const SECRET_SHAPES = [
  /mb[ko]_(live|test)_[0-9A-Za-z]/,
  /\bABSK[A-Za-z0-9+/=]{16}/,
  /\bbedrock-api-key-[A-Za-z0-9]/,
  /:\/\/[^/]*:[^/]*@/,
  // A secret access key: 40 characters of base64 that no word has.
  /^(?=.*[A-Z])(?=.*[a-z])(?=.*\d)[A-Za-z0-9/+=]{40}$/,
];
const LEAKED =
  'every argument is seen by ps, kept in the shell history and in logs. If it was a real one, replace it';

/**
 * Reads the arguments of a command. Like `parseArgs`, but it finds every problem and not only the first, and no problem ever repeats a
 * value: what was typed in the wrong place may be a secret.
 */
export function readArguments<O extends Options>(
  options: O,
  argv: readonly string[],
): { values: Values<O>; problems: string[] } {
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values: Record<string, string | true> = {};
  const problems = new Set<string>();
  let valueOfUnknownAt = -1;
  for (const token of tokens) {
    if (token.kind === 'positional' && token.index !== valueOfUnknownAt)
      problems.add(`argument ${String(token.index + 1)} belongs to no flag; if it is a secret: ${LEAKED}`);
    if (token.kind !== 'option') continue;
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined;
    if (option === undefined) {
      problems.add(unknownFlag(token.rawName));
      if (token.value === undefined) valueOfUnknownAt = token.index + 1;
      continue;
    }
    const problem = valueProblem(option.type, token.value, token.inlineValue === true);
    if (problem !== undefined) problems.add(`--${token.name} ${problem}`);
    else if (token.name in values) problems.add(`--${token.name} is given twice`);
    else values[token.name] = token.value ?? true;
  }
  return { values: values as Values<O>, problems: [...problems] };
}

function unknownFlag(rawName: string): string {
  if (!SHOWABLE_FLAG.test(rawName)) return 'a flag is given that this command does not have';
  if (SECRET_FLAG.test(rawName)) return `${rawName} is refused, as is any secret in an argument: ${LEAKED}`;
  return `${rawName} is not a flag of this command`;
}

function valueProblem(
  type: 'string' | 'boolean',
  value: string | undefined,
  inline: boolean,
): string | undefined {
  if (type === 'boolean') return value === undefined ? undefined : 'takes no value';
  // Without "=", what looks like the next flag is one.
  if (value === undefined || value === '' || (!inline && value.startsWith('-'))) return 'needs a value';
  return SECRET_SHAPES.some((shape) => shape.test(value))
    ? `holds what looks like a secret: ${LEAKED}`
    : undefined;
}

/** `a, b` as a list. */
export function listOf(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** Text as a whole number; NaN for what is none, which every schema refuses. */
export function wholeNumber(text: string): number {
  return /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
}
