import * as zlib from 'node:zlib';

/** In Node since 20.15; the types of that line do not have it. Source: zlib of Node, the CRC-32 of RFC 1952. */
const { crc32 } = zlib as unknown as { crc32: (bytes: Uint8Array, value?: number) => number };

/** Total length, headers length and the checksum of both: 12 bytes; then headers, payload, and a checksum of all before it. */
const PRELUDE_BYTES = 12;
const TRAILER_BYTES = 4;
const STRING_HEADER = 7;

/**
 * One message of an AWS event stream (`application/vnd.amazon.eventstream`). `bytes` are exactly what came, padding and all;
 * the rest are views into them.
 */
export interface Frame {
  bytes: Buffer;
  messageType: string;
  eventType?: string;
  exceptionType?: string;
  errorCode?: string;
  errorMessage?: string;
  payload: Buffer;
}

/** Bytes that are no event stream, or one that was cut in the middle of a frame. */
export class EventStreamError extends Error {
  override readonly name = 'EventStreamError';
  readonly kind: 'truncated' | 'corrupt';

  constructor(kind: 'truncated' | 'corrupt', message: string) {
    super(message);
    this.kind = kind;
  }
}

/**
 * Cuts a byte stream into whole frames, checksums verified. Holds at most one frame and one chunk.
 * @throws EventStreamError corrupt, or truncated when the source ends inside a frame; whatever the source throws passes through.
 */
export async function* wholeFrames(
  source: AsyncIterable<Uint8Array>,
  options: { frameBytesMax: number },
): AsyncGenerator<Frame> {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  /** Length of the frame that is being gathered; undefined until its prelude is there. */
  let length: number | undefined;
  for await (const chunk of source) {
    pending.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    pendingBytes += chunk.byteLength;
    while (pendingBytes >= (length ?? PRELUDE_BYTES)) {
      // Joined only when the prelude, and then when the frame is complete: a large frame in many chunks is copied once.
      const joined = pending.length === 1 && pending[0] ? pending[0] : Buffer.concat(pending, pendingBytes);
      pending = [joined];
      length ??= frameLength(joined, options.frameBytesMax);
      if (pendingBytes < length) break;
      yield parseFrame(joined.subarray(0, length));
      pending = length === joined.length ? [] : [joined.subarray(length)];
      pendingBytes -= length;
      length = undefined;
    }
  }
  if (pendingBytes > 0) throw new EventStreamError('truncated', 'the stream ended inside a frame');
}

/** Reads one whole frame. @throws EventStreamError corrupt */
export function parseFrame(bytes: Buffer): Frame {
  const headersEnd = PRELUDE_BYTES + bytes.readUInt32BE(4);
  const payloadEnd = bytes.length - TRAILER_BYTES;
  if (headersEnd > payloadEnd) throw new EventStreamError('corrupt', 'the headers are longer than the frame');
  if (crc32(bytes.subarray(0, payloadEnd)) !== bytes.readUInt32BE(payloadEnd))
    throw new EventStreamError('corrupt', 'the checksum of a frame is wrong');
  const headers = readHeaders(bytes.subarray(PRELUDE_BYTES, headersEnd));
  const optional = {
    eventType: headers.get(':event-type'),
    exceptionType: headers.get(':exception-type'),
    errorCode: headers.get(':error-code'),
    errorMessage: headers.get(':error-message'),
  };
  const present = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined));
  return {
    bytes,
    messageType: headers.get(':message-type') ?? '',
    ...present,
    payload: bytes.subarray(headersEnd, payloadEnd),
  };
}

/** Writes a frame with string headers, as AWS does: in the given order. */
export function encodeFrame(headers: Readonly<Record<string, string>>, payload: Uint8Array): Buffer {
  const head = Buffer.concat(Object.entries(headers).map(([name, value]) => encodeHeader(name, value)));
  const bytes = Buffer.alloc(PRELUDE_BYTES + head.length + payload.byteLength + TRAILER_BYTES);
  bytes.writeUInt32BE(bytes.length, 0);
  bytes.writeUInt32BE(head.length, 4);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 8)), 8);
  head.copy(bytes, PRELUDE_BYTES);
  bytes.set(payload, PRELUDE_BYTES + head.length);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, bytes.length - TRAILER_BYTES)), bytes.length - TRAILER_BYTES);
  return bytes;
}

/** The frame that makes every SDK throw: a stream that cannot go on ends with it, never silently. Type in lower camel case. */
export function exceptionFrame(
  exceptionType: string,
  message: string,
  more: Readonly<Record<string, string | number | boolean>> = {},
): Buffer {
  const headers = {
    ':exception-type': exceptionType,
    ':content-type': 'application/json',
    ':message-type': 'exception',
  };
  return encodeFrame(headers, Buffer.from(JSON.stringify({ message, ...more })));
}

function frameLength(prelude: Buffer, frameBytesMax: number): number {
  if (crc32(prelude.subarray(0, 8)) !== prelude.readUInt32BE(8))
    throw new EventStreamError('corrupt', 'the checksum of a prelude is wrong');
  const length = prelude.readUInt32BE(0);
  if (length < PRELUDE_BYTES + TRAILER_BYTES || length > frameBytesMax)
    throw new EventStreamError('corrupt', 'a frame has an impossible length');
  return length;
}

/** String headers only: AWS sends no others here, and one of another kind ends the reading of the rest. */
function readHeaders(bytes: Buffer): Map<string, string> {
  const headers = new Map<string, string>();
  let at = 0;
  while (at < bytes.length) {
    const nameEnd = at + 1 + (bytes[at] ?? 0);
    if (nameEnd + 3 > bytes.length || bytes[nameEnd] !== STRING_HEADER) break;
    const valueStart = nameEnd + 3;
    const valueEnd = valueStart + bytes.readUInt16BE(nameEnd + 1);
    if (valueEnd > bytes.length) throw new EventStreamError('corrupt', 'a header is longer than its frame');
    headers.set(bytes.toString('utf8', at + 1, nameEnd), bytes.toString('utf8', valueStart, valueEnd));
    at = valueEnd;
  }
  return headers;
}

function encodeHeader(name: string, value: string): Buffer {
  const [nameBytes, valueBytes] = [Buffer.from(name), Buffer.from(value)];
  const length = Buffer.alloc(2);
  length.writeUInt16BE(valueBytes.length);
  return Buffer.concat([
    Buffer.from([nameBytes.length]),
    nameBytes,
    Buffer.from([STRING_HEADER]),
    length,
    valueBytes,
  ]);
}
