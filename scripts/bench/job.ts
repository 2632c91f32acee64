import type { LatencySummary } from './statistics.ts';

/** What the load generator is asked for, over IPC. */
export interface Job {
  port: number;
  /** Whole HTTP/1.1 requests; connections take them in turn. */
  requests: readonly string[];
  /** What the body of every answer holds, as Latin-1. */
  marker: string;
  /** Connections, each with one request in flight: a closed loop. */
  inFlight: number;
  /** Before anything is counted: at least this long, and until every connection has had an answer. */
  rampSeconds: number;
  /** Counted: at least this long, and until three answers for each in flight have come. */
  seconds: number;
  /** Whose CPU time is read when counting begins and ends; a family is a process with its children. */
  watched: Readonly<Record<string, { pid: number; family: boolean }>>;
}

/** One round of one target. Times in milliseconds. */
export interface Round {
  seconds: number;
  latency: LatencySummary;
  /** Until the first byte of the answer. */
  firstByte: LatencySummary;
  cpuMs: Readonly<Record<string, number>>;
  /** Of the load generator itself. */
  ownCpuMs: number;
  errors: number;
  /** What the first of them was. */
  firstError?: string;
}

/** Opens streams that stay open, for the memory they cost. */
export interface Hold {
  port: number;
  requests: readonly string[];
  marker: string;
  streams: number;
}

/** `open`: every stream has begun, `ended` of them are over already. `done`: all have ended. */
export type HoldReport =
  { kind: 'open'; ended: number } | { kind: 'done'; errors: number; firstError?: string };

/** Sends so many per second, evenly spread, whatever the answers do. */
export interface Pace {
  perSecond: number;
}
/** Sends as fast as it is answered, over so many connections. */
export interface Closed {
  inFlight: number;
}
/** Requests are taken in turn. */
export type PacedCaller = { name: string; requests: readonly string[] } & (Pace | Closed);

/** Callers side by side, each with its own answers counted. */
export interface Paced {
  port: number;
  marker: string;
  seconds: number;
  callers: readonly PacedCaller[];
}

/** By the callers' names. Milliseconds, of the answers that were good. */
export interface PacedReport {
  kind: 'paced';
  callers: Readonly<Record<string, PacedTally>>;
}

export interface PacedTally {
  latency: LatencySummary;
  /** 429 and 503. */
  refused: number;
  errors: number;
  firstError?: string;
}

export type Order =
  { kind: 'load'; job: Job } | { kind: 'hold'; hold: Hold } | { kind: 'paced'; paced: Paced };
export type Report =
  { kind: 'round'; round: Round } | HoldReport | PacedReport | { kind: 'failed'; message: string };
