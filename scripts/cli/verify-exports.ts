import { isUtf8 } from 'node:buffer';
import { createReadStream, readFileSync } from 'node:fs';
import type { KeyObject } from 'node:crypto';
import { parseBody, provenShape, readPublicKey, signedShape } from '../../src/audit/checkpoint.ts';
import type { ProvenCheckpoint, SignedCheckpoint } from '../../src/audit/checkpoint.ts';
import { ExportVerifier } from '../../src/audit/verify-export.ts';
import type { ExportVerifierOptions } from '../../src/audit/verify-export.ts';
import type { AuditFault } from '../../src/audit/verify.ts';
import { Failure } from './run.ts';

/** An event is a few hundred bytes, the last line a few thousand. */
const LINE_BYTES_MAX = 16_000_000;

export type ExportResult = ExportVerifier['summary'] & { fault: AuditFault | undefined };

/**
 * Checks the files as one export, in their order; `-` is standard input. Memory: a line.
 * @throws Failure when a checkpoint was kept for nothing: it is of an event that the export does not reach back to.
 */
export async function verifyExports(
  files: readonly string[],
  options: ExportVerifierOptions,
): Promise<ExportResult> {
  const { kept = [], from = 1 } = options;
  const early = kept.find(({ leaf }) => leaf.seq < from - 1)?.leaf.seq;
  if (early !== undefined)
    throw new Failure(
      `a checkpoint was kept of event ${String(early)}: it says something of an export from event ${String(early + 1)} or before`,
    );
  const verifier = new ExportVerifier(options);
  const result = (fault?: AuditFault): ExportResult => ({ ...verifier.summary, fault });
  for (const file of files) {
    const source = file === '-' ? process.stdin : createReadStream(file, { highWaterMark: 1 << 20 });
    for await (const line of linesIn(source as AsyncIterable<Buffer>)) {
      const fault = verifier.line(line);
      if (fault !== undefined) return result(fault);
    }
  }
  return result(verifier.end());
}

/** Lines that end with LF; what comes after the last LF is a line too, if there is anything. What cannot be a line of an export is an empty one. */
async function* linesIn(source: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      yield textOf(bytes.subarray(start, end));
      start = end + 1;
    }
    rest = bytes.subarray(start);
    if (rest.length > LINE_BYTES_MAX) break;
  }
  if (rest.length > 0) yield textOf(rest);
}

function textOf(bytes: Buffer): string {
  return bytes.length <= LINE_BYTES_MAX && isUtf8(bytes) ? bytes.toString('utf8') : '';
}

/** @throws Failure that names the file. */
export function readKeys(files: readonly string[]): KeyObject[] {
  return files.map((file) => {
    try {
      return readPublicKey(readFileSync(file, 'utf8'));
    } catch {
      throw new Failure(`${file} is not a public key (PEM, ECC_NIST_P256)`);
    }
  });
}

/** Checkpoints that were kept: as GET /audit/checkpoint answers them. @throws Failure that names the file. */
export function readProven(files: readonly string[]): ProvenCheckpoint[] {
  return files.map((file) => provenShape.safeParse(readJson(file)).data ?? notOne(file));
}

/** The same, or a copy from the bucket, which has no leaf. */
export function readSigned(files: readonly string[]): SignedCheckpoint[] {
  return files.map((file) => {
    const value = readJson(file);
    const checkpoint = signedShape.safeParse(value).data ?? provenShape.safeParse(value).data;
    return checkpoint !== undefined && parseBody(checkpoint.body) !== undefined ? checkpoint : notOne(file);
  });
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return notOne(file);
  }
}

function notOne(file: string): never {
  throw new Failure(`${file} is not a checkpoint`);
}
