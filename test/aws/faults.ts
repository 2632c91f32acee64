import type { Service } from './wire/errors.ts';

/** Which requests a fault meets; absent members match all. Only requests whose signature holds are ever met. */
interface FaultMatch {
  service?: Service;
  /** AWS's name: `Converse`, `InvokeModelWithResponseStream`, `Decrypt`. */
  operation?: string;
  accessKeyId?: string;
  modelId?: string;
  /** Part of the raw path. */
  pathIncludes?: string;
  /** How many requests it meets; default 1. */
  times?: number | 'always';
}

/**
 * What happens instead of, or on the way to, the answer. Members of one rule combine (`delayMs` with `status`); of several rules only
 * the first that matches acts, so rules registered one after the other form a script.
 * `...AtEvent: n` counts whole frames that get through before: 0 is before the first; the number of all frames is after the last.
 */
export interface FaultAction {
  /** Answer with this error. The model does not run. */
  status?: number;
  type?: string;
  message?: string;
  headers?: Record<string, string>;
  /** Wait, then go on; the model runs after the wait. */
  delayMs?: number;
  /** Wait for this, then go on; the model runs after the wait. Not over HTTP. */
  after?: Promise<unknown>;
  /** The model runs, then the headers wait. */
  beforeHeadersHangMs?: number;
  /** The model runs and nothing is ever answered. */
  hangHeaders?: boolean;
  /** Break off before the headers: TCP reset on HTTP/1.1, RST_STREAM on HTTP/2. The model does not run unless `executed`. */
  reset?: boolean;
  /** Send an exception frame (`exceptionType` in lower camel case, default `internalServerException`) and end. */
  exceptionAtEvent?: number;
  exceptionType?: string;
  /** Send an unmodelled error frame (code `type`) and end. */
  errorFrameAtEvent?: number;
  /** Break off after n frames; `midFrame`: and half of the next. */
  cutAtEvent?: number;
  midFrame?: boolean;
  /** How to break off on HTTP/2: the whole connection (default), or only this stream with RST_STREAM. */
  cutBy?: 'connection' | 'stream';
  /** End the body in order, without the rest: silent truncation. */
  endCleanlyAtEvent?: number;
  corruptCrcAtEvent?: number;
  stallAtEvent?: number;
  /** Default: for ever. */
  stallMs?: number;
  /** Wait before every frame. */
  eventDelayMs?: number;
  /** Unary: break off in the middle of the body. */
  cutBody?: boolean;
  /** Overrides whether the journal counts the model as having run. */
  executed?: boolean;
}

export interface FaultRule extends FaultMatch, FaultAction {}

export interface FaultHandle {
  remove(): void;
  /** How many requests it has met. */
  hits(): number;
}

/** What a rule is matched against. */
export type FaultTarget = Required<Pick<FaultMatch, 'service' | 'operation'>> & {
  accessKeyId?: string | undefined;
  modelId?: string | undefined;
  path: string;
};

interface Entry {
  rule: FaultRule;
  hits: number;
}

/** The faults that wait to happen, in the order in which they were registered. */
export class FaultBook {
  #entries: Entry[] = [];

  add(rule: FaultRule): FaultHandle {
    const entry: Entry = { rule, hits: 0 };
    this.#entries.push(entry);
    return {
      remove: () => {
        this.#entries = this.#entries.filter((other) => other !== entry);
      },
      hits: () => entry.hits,
    };
  }

  /** The first rule that matches and has a hit left; takes that hit. */
  take(target: FaultTarget): FaultAction | undefined {
    const entry = this.#entries.find(({ rule, hits }) => hasHitsLeft(rule, hits) && matches(rule, target));
    if (!entry) return undefined;
    entry.hits += 1;
    return entry.rule;
  }

  clear(): void {
    this.#entries = [];
  }
}

function hasHitsLeft({ times = 1 }: FaultRule, hits: number): boolean {
  return times === 'always' || hits < times;
}

function matches(rule: FaultRule, target: FaultTarget): boolean {
  const names = ['service', 'operation', 'accessKeyId', 'modelId'] as const;
  return (
    names.every((name) => rule[name] === undefined || rule[name] === target[name]) &&
    target.path.includes(rule.pathIncludes ?? '')
  );
}
