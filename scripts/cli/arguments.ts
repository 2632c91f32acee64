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
const SECRET = 'a secret is never an argument';
const ADVICE =
  'arguments are seen by ps and kept in the shell history and in logs: if one of these was a real secret, replace it';

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
  const types = new Map(Object.entries(options).map(([name, { type }]) => [name, type]));
  const values: Record<string, string | true> = {};
  const problems = new Set<string>();
  let valueOfUnknownAt = -1;
  for (const token of tokens) {
    if (token.kind === 'option') {
      const { name, value } = token;
      const type = types.get(name);
      // The argument that follows an unknown flag is its value, and needs no second complaint.
      if (type === undefined && value === undefined) valueOfUnknownAt = token.index + 1;
      const problem = flagProblem(token, type, Object.hasOwn(values, name));
      if (problem !== undefined) problems.add(problem);
      else values[name] = value ?? true;
    } else if (token.kind === 'positional' && token.index !== valueOfUnknownAt)
      problems.add(`argument ${String(token.index + 1)} belongs to no flag; and ${SECRET}`);
  }
  if ([...problems].some((problem) => problem.endsWith(SECRET))) problems.add(ADVICE);
  return { values: values as Values<O>, problems: [...problems] };
}

interface GivenFlag {
  rawName: string;
  value: string | undefined;
  inlineValue: boolean | undefined;
}

/** @param type of the flag; undefined when this command does not have it. */
function flagProblem(
  flag: GivenFlag,
  type: 'string' | 'boolean' | undefined,
  seen: boolean,
): string | undefined {
  const name = SHOWABLE_FLAG.test(flag.rawName) ? flag.rawName : 'a flag';
  if (type === undefined) {
    return SECRET_FLAG.test(flag.rawName)
      ? `${name} is refused: ${SECRET}`
      : `${name} is not one that this command has`;
  }
  if (seen) return `${name} is given twice`;
  const problem =
    type === 'string' ? valueProblem(flag) : flag.value === undefined ? undefined : 'takes no value';
  return problem === undefined ? undefined : `${name} ${problem}`;
}

function valueProblem({ value, inlineValue }: GivenFlag): string | undefined {
  // Without "=", what looks like the next flag is one.
  if (value === undefined || value === '' || (inlineValue !== true && value.startsWith('-')))
    return 'needs a value';
  return SECRET_SHAPES.some((shape) => shape.test(value))
    ? `holds what looks like a secret, and ${SECRET}`
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
