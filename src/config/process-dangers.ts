import { readFileSync } from 'node:fs';
import { url as inspectorUrl } from 'node:inspector';

/** What of this process would let somebody read its memory. */
export interface ProcessFacts {
  /** Node's own options, without the script and what follows it. */
  execArgv: readonly string[];
  nodeOptions: string | undefined;
  /** `soft limit` of core files in bytes, or `unlimited`; undefined where it is not known. */
  coreLimit: string | undefined;
  /** Whether an inspector listens now. */
  inspecting: boolean;
}

/** Each opens the memory of the process, with every secret in it, to a port, a file or a signal. */
const OPENS_MEMORY: readonly [RegExp, string][] = [
  [/^--(inspect|debug)/, 'opens an inspector'],
  [/^--experimental-network-inspection/, 'shows requests to an inspector'],
  [/^--(heapsnapshot-(signal|near-heap-limit)|heap-prof)/, 'writes the memory of the process to a file'],
  [/^--(report-(on|signal|uncaught)|experimental-report)/, 'writes reports with the environment in them'],
  [/^--abort-on-uncaught-exception/, 'leaves a core file'],
  [/^--(tls-keylog|trace-tls)/, 'writes the keys of TLS connections to a file'],
  [/^--insecure-http-parser/, 'reads requests otherwise than others do'],
];

/** @returns what keeps a production service from starting, each with how to mend it. Values of options are never shown. */
export function processProblems({ execArgv, nodeOptions, coreLimit, inspecting }: ProcessFacts): string[] {
  const sources: [string, readonly string[]][] = [
    ['the command line', execArgv],
    ['NODE_OPTIONS', (nodeOptions ?? '').split(/\s+/).map((option) => option.replace(/^["']|["']$/g, ''))],
  ];
  const problems = sources.flatMap(([where, options]) =>
    options.flatMap((option) => {
      // Node takes underscores for dashes within an option's name.
      const plain = (option.split('=', 1)[0] ?? '').replaceAll('_', '-');
      const found = OPENS_MEMORY.find(([pattern]) => pattern.test(plain));
      return found === undefined
        ? []
        : [`${where} has ${nameOf(plain)}, which ${found[1]}: remove it in production`];
    }),
  );
  if (inspecting && problems.length === 0)
    problems.push('an inspector listens in this process: do not start it in production');
  if (coreLimit !== undefined && coreLimit !== '0')
    problems.push(
      'a crash of this process would write its memory to a core file: run `ulimit -c 0` before it, or set the limit of core files to 0 (docs/operations.md)',
    );
  return problems;
}

/** As it is now. */
export function processFacts(nodeOptions: string | undefined): ProcessFacts {
  return {
    nodeOptions,
    execArgv: process.execArgv,
    coreLimit: coreLimitOf(readLimits()),
    inspecting: inspectorUrl() !== undefined,
  };
}

/** Node opens an inspector when it gets SIGUSR1, unless somebody else listens to it. */
export function ignoreInspectorSignal(): void {
  process.on('SIGUSR1', () => undefined);
}

/** Out of /proc/self/limits. */
export function coreLimitOf(limits: string): string | undefined {
  return /^Max core file size\s+(\S+)/m.exec(limits)?.[1];
}

function readLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'utf8');
  } catch {
    // Not Linux: the operator knows (docs/operations.md).
    return '';
  }
}

function nameOf(option: string): string {
  return /^--?[a-z0-9.-]{1,60}$/.exec(option)?.[0] ?? 'an option';
}
