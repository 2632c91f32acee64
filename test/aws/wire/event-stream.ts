import { crc32 } from 'node:zlib';

/** Header names and string values, in the order in which they go on the wire. */
export type FrameHeaders = readonly (readonly [name: string, value: string])[];

/** The only header type that Bedrock's answers use (smithy event stream, "string"). */
const STRING_TYPE = 7;
const PADDING = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';

/**
 * One frame of `application/vnd.amazon.eventstream`, big endian:
 * u32 total | u32 headers | u32 crc of those eight bytes | headers | payload | u32 crc of all before.
 */
export function encodeFrame(headers: FrameHeaders, payload: Buffer): Buffer {
  const head = Buffer.concat(headers.map(encodeHeader));
  const prelude = Buffer.alloc(12);
  prelude.writeUInt32BE(16 + head.length + payload.length, 0);
  prelude.writeUInt32BE(head.length, 4);
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8);
  const body = Buffer.concat([prelude, head, payload]);
  const trailer = Buffer.alloc(4);
  trailer.writeUInt32BE(crc32(body));
  return Buffer.concat([body, trailer]);
}

function encodeHeader([name, value]: readonly [string, string]): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(3);
  length.writeUInt8(STRING_TYPE, 0);
  length.writeUInt16BE(bytes.length, 1);
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), length, bytes]);
}

/** An ordinary event. AWS sends its three headers in this order. */
export function eventFrame(type: string, payload: object): Buffer {
  return encodeFrame(
    [
      [':event-type', type],
      [':content-type', 'application/json'],
      [':message-type', 'event'],
    ],
    Buffer.from(JSON.stringify(payload)),
  );
}

/** A modelled exception inside a stream; `type` in lower camel case, as `throttlingException`. */
export function exceptionFrame(type: string, message: string): Buffer {
  return encodeFrame(
    [
      [':exception-type', type],
      [':content-type', 'application/json'],
      [':message-type', 'exception'],
    ],
    Buffer.from(JSON.stringify({ message })),
  );
}

/** An unmodelled error inside a stream: no payload, the text is in headers. */
export function errorFrame(code: string, message: string): Buffer {
  return encodeFrame(
    [
      [':error-code', code],
      [':error-message', message],
      [':message-type', 'error'],
    ],
    Buffer.alloc(0),
  );
}

/** The payload with AWS's padding member `p`: its length varies with the place in the stream; members sorted, as AWS sends them. */
export function padded(payload: object, index: number): object {
  const p = PADDING.slice(0, 1 + ((index * 17 + 5) % PADDING.length));
  return Object.fromEntries(Object.entries({ ...payload, p }).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The frame with one bit of its message checksum turned, so that a reader that checks must refuse it. */
export function corrupted(frame: Buffer): Buffer {
  const copy = Buffer.from(frame);
  copy.writeUInt8(copy.readUInt8(copy.length - 1) ^ 1, copy.length - 1);
  return copy;
}
