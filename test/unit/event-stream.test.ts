import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  encodeFrame,
  EventStreamError,
  exceptionFrame,
  parseFrame,
  wholeFrames,
} from '../../src/bedrock/event-stream.ts';
import type { Frame } from '../../src/bedrock/event-stream.ts';
import { sseOfFrame } from '../../src/bedrock/sse.ts';

/** A messageStart as AWS frames it, byte for byte. */
const GOLDEN = Buffer.from(
  '000000760000005296d5fade0b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22726f6c65223a22617373697374616e74227d6fa8c599',
  'hex',
);
const OPTIONS = { frameBytesMax: 16 * 1024 * 1024 };
const event = (type: string, payload: object) =>
  encodeFrame(
    { ':event-type': type, ':content-type': 'application/json', ':message-type': 'event' },
    Buffer.from(JSON.stringify(payload)),
  );

async function read(chunks: Iterable<Uint8Array>): Promise<{ frames: Frame[]; failure: unknown }> {
  const frames: Frame[] = [];
  async function* source(): AsyncGenerator<Uint8Array> {
    for (const chunk of chunks) {
      await Promise.resolve();
      yield chunk;
    }
  }
  try {
    for await (const frame of wholeFrames(source(), OPTIONS)) frames.push(frame);
    return { frames, failure: undefined };
  } catch (failure) {
    return { frames, failure };
  }
}

function* pieces(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

describe('frames', () => {
  test("AWS's own frame is read and written byte for byte", () => {
    const frame = parseFrame(GOLDEN);
    expect(frame).toMatchObject({ messageType: 'event', eventType: 'messageStart' });
    expect(frame.payload.toString()).toBe('{"role":"assistant"}');
    expect(event('messageStart', { role: 'assistant' })).toEqual(GOLDEN);
  });

  test('come out the same however the bytes are cut', async () => {
    const all = Array.from({ length: 12 }, (_, index) =>
      event('contentBlockDelta', { delta: { text: 'word '.repeat(index * 7) }, p: 'x'.repeat(index) }),
    );
    const bytes = Buffer.concat(all);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 20 }),
        async (sizes) => {
          const { frames, failure } = await read(pieces(bytes, sizes));
          expect(failure).toBeUndefined();
          expect(frames.map((frame) => frame.bytes)).toEqual(all);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('a cut at any byte is a clean end only between frames', async () => {
    const two = Buffer.concat([GOLDEN, GOLDEN]);
    for (let length = 0; length <= two.length; length += 1) {
      const { frames, failure } = await read([two.subarray(0, length)]);
      expect(frames).toHaveLength(Math.floor(length / GOLDEN.length));
      if (length % GOLDEN.length === 0) expect(failure).toBeUndefined();
      else expect(failure).toMatchObject({ kind: 'truncated' });
    }
  });

  test('any one bit changed is noticed', async () => {
    for (let bit = 0; bit < GOLDEN.length * 8; bit += 1) {
      const broken = Buffer.from(GOLDEN);
      broken[bit >> 3] = (broken[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const { frames, failure } = await read([broken]);
      expect(frames).toEqual([]);
      expect(failure).toBeInstanceOf(EventStreamError);
    }
  });

  test('bytes that are no event stream are refused, and a length beyond the limit before it is read', async () => {
    expect(
      (await read([Buffer.from('{"message":"this is JSON and no event stream"}')])).failure,
    ).toMatchObject({ kind: 'corrupt' });
  });

  test('ten megabytes in small pieces cost little: each byte is copied once', async () => {
    const large = event('chunk', { bytes: 'A'.repeat(10_000_000) });
    const before = process.cpuUsage();
    for (const first of [3, 900]) {
      const sizes = [first, ...Array.from({ length: 20_000 }, () => 900)];
      expect((await read(pieces(large, sizes))).frames).toHaveLength(1);
    }
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1_000).toBeLessThan(3_000);
  });

  test('our exception frame is one that SDKs throw on', () => {
    expect(parseFrame(exceptionFrame('modelStreamErrorException', 'it broke "off"'))).toMatchObject({
      messageType: 'exception',
      exceptionType: 'modelStreamErrorException',
    });
  });
});

describe('server-sent events', () => {
  test('an event, a chunk and an exception', () => {
    expect(sseOfFrame(parseFrame(GOLDEN))).toBe('event: messageStart\ndata: {"role":"assistant"}\n\n');
    const chunk = event('chunk', {
      bytes: Buffer.from('{"type":"message_stop"}').toString('base64'),
      p: 'abc',
    });
    expect(sseOfFrame(parseFrame(chunk))).toBe('event: chunk\ndata: {"type":"message_stop"}\n\n');
    expect(sseOfFrame(parseFrame(exceptionFrame('throttlingException', 'slow')))).toBe(
      'event: error\ndata: {"type":"throttlingException","message":"slow"}\n\n',
    );
  });

  test('nothing in a payload can begin another event', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (type, text) => {
        const frame = parseFrame(
          event('chunk', { bytes: Buffer.from(`${text}\n\nevent: forged\r\rdata: x`).toString('base64') }),
        );
        const named = { ...frame, eventType: `chunk\n${type}` };
        for (const sent of [sseOfFrame(frame), sseOfFrame(named)]) {
          expect(sent.split(/\r\n|\r|\n/).filter((line) => line.startsWith('event:'))).toHaveLength(1);
          expect(sent.indexOf('\n\n')).toBe(sent.length - 2);
        }
      }),
    );
  });
});
