import type { Readable } from 'node:stream';
import type { ResolvedCredential } from '../domain/credential.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { Operation } from '../domain/usage.ts';

/** One paid call, decided in full: who pays, with which keys, what is sent. Bytes go through as they are. */
export interface RuntimeCall {
  merchantId: MerchantId;
  resolved: ResolvedCredential;
  operation: Operation;
  /** Decoded and already validated; encoded again for the path here. */
  modelId: string;
  /** Must not change until `send` has resolved: it is hashed and signed as it is. */
  body: Uint8Array;
  /** Lower-case names, already allow-listed. Destination, length and signature headers are set here. */
  headers: Readonly<Record<string, string>>;
  /** Ends the call at any time, also while the body is being read. */
  signal: AbortSignal;
}

/** AWS's answer, whatever its status: 4xx and 5xx are replies, not errors. */
export interface RuntimeReply {
  status: number;
  /** Lower-case names; a header that came more than once is joined with ", ". */
  headers: Readonly<Record<string, string>>;
  /** Raw bytes. When it fails, `bodyFailure` of upstream-error.ts says what that means for the ledger. */
  body: Readable;
  /** Milliseconds from `send` to the response headers. */
  timeToHeadersMs: number;
  /** Gives everything back; cuts the connection if the body is not read to its end. Safe to call more than once. */
  release(): void;
}
