import { expect, test } from '@jest/globals';
import {
  corrupted,
  encodeFrame,
  errorFrame,
  eventFrame,
  exceptionFrame,
  padded,
} from '../../aws/wire/event-stream.ts';

/** A recorded messageStart. */
const GOLDEN =
  '000000760000005296d5fade0b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22726f6c65223a22617373697374616e74227d6fa8c599';

test('a frame is byte for byte what AWS sends', () => {
  expect(eventFrame('messageStart', { role: 'assistant' }).toString('hex')).toBe(GOLDEN);
});

test('an exception and an error carry their headers in AWS’s order', () => {
  expect(exceptionFrame('throttlingException', 'slow').toString('latin1')).toMatch(
    /:exception-type.*throttlingException.*:content-type.*application\/json.*:message-type.*exception\{"message":"slow"\}/s,
  );
  expect(errorFrame('Oops', 'why').toString('latin1')).toMatch(
    /:error-code.*Oops.*:error-message.*why.*:message-type.*error/s,
  );
});

test('an empty frame is sixteen bytes', () => {
  expect(encodeFrame([], Buffer.alloc(0))).toHaveLength(16);
});

test('corruption changes the checksum only', () => {
  const frame = eventFrame('chunk', { bytes: 'e30=' });
  expect(corrupted(frame).subarray(0, -4)).toEqual(frame.subarray(0, -4));
  expect(corrupted(frame)).not.toEqual(frame);
});

test('padding varies and members are sorted', () => {
  expect(Object.keys(padded({ usage: 1, metrics: 2 }, 0))).toEqual(['metrics', 'p', 'usage']);
  const lengths = new Set(Array.from({ length: 20 }, (_, i) => JSON.stringify(padded({}, i)).length));
  expect(lengths.size).toBeGreaterThan(10);
});
