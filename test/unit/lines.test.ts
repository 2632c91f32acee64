import { Readable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { linesOf } from '../../src/bedrock/lines.ts';

function* chunked(text: string, sizes: readonly number[]): Generator<Buffer> {
  const bytes = Buffer.from(text);
  let at = 0;
  for (const size of [...sizes, bytes.length]) {
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function read(text: string, sizes: readonly number[], bytesMax: number): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of linesOf(Readable.from(chunked(text, sizes)), bytesMax))
    lines.push(line.toString());
  return lines;
}

describe('lines of a stream', () => {
  test('are the same wherever it is cut; empty ones and those that are too long are left out', async () => {
    const line = fc.string({ maxLength: 12 }).map((text) => text.replaceAll('\n', ' '));
    await fc.assert(
      fc.asyncProperty(
        fc.array(line),
        fc.array(fc.nat(9)),
        fc.integer({ min: 1, max: 10 }),
        async (lines, sizes, bytesMax) => {
          const kept = lines.filter((text) => text !== '' && Buffer.byteLength(text) <= bytesMax);
          expect(await read(lines.join('\n'), sizes, bytesMax)).toEqual(kept);
        },
      ),
    );
  });
});
