import { parseArgs } from 'node:util';
import { UsageError } from '../../scripts/cli/run.ts';
import { POINT_NAMES } from './run.ts';
import type { RunOrder } from './run.ts';

export const HELP = `Usage: npm run test:crash -- [options]

Kills the service, and Postgres, again and again under mixed load, and after each time holds the ledger against what the stand-in for AWS saw:
one row for each request, none run twice, none settled that did not run, sums equal to rows, audit chains whole, no limit passed, and every
unknown call found and resolved. Starts a Postgres of its own. Nothing here talks to AWS.

  --seed N             repeats a run: its rounds, calls and faults (timing remains the machine's)
  --rounds N           rounds in which the service is killed (default 200)
  --postgres N         rounds in which Postgres is killed (default 20)
  --only WORDS         separated by commas: numbers of rounds, and the points
                       ${POINT_NAMES.slice(0, 5).join(', ')},
                       ${POINT_NAMES.slice(5, 9).join(', ')},
                       ${POINT_NAMES.slice(9).join(', ')}
  --help               shows this

A table goes to standard output, a line for each round to standard error. Ends at the first round with a fault, with exit code 1 and the
seed. Ctrl-C stops everything that was started.
`;

const OPTIONS = {
  seed: { type: 'string' },
  rounds: { type: 'string' },
  postgres: { type: 'string' },
  only: { type: 'string', default: '' },
  help: { type: 'boolean', default: false },
} as const;

/** Undefined when help was asked for. @throws UsageError with everything that is wrong */
export function readOrder(args: readonly string[]): Omit<RunOrder, 'stopped'> | undefined {
  const values = readFlags(args);
  if (values.help) return undefined;
  const problems: string[] = [];
  const whole = (flag: string, text: string | undefined, fallback: number): number => {
    const value = text === undefined || text === '' ? fallback : Number(text);
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
      problems.push(`${flag} must be a whole number`);
    return value;
  };
  const order = {
    seed: whole('--seed', values.seed, Math.floor(Math.random() * 1_000_000)),
    rounds: whole('--rounds', values.rounds, 200),
    postgresRounds: whole('--postgres', values.postgres, 20),
    only: values.only.split(',').filter((word) => word !== ''),
  };
  for (const word of order.only)
    if (!POINT_NAMES.includes(word) && !/^[1-9]\d*$/.test(word))
      problems.push(`--only does not know "${word}"`);
  if (problems.length > 0) throw new UsageError(problems);
  return order;
}

function readFlags(args: readonly string[]) {
  try {
    return parseArgs({ options: OPTIONS, args: [...args] }).values;
  } catch {
    throw new UsageError(['an argument is not known, or lacks its value']);
  }
}
