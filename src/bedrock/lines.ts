const LINE_FEED = 0x0a;

/** The lines of a stream, without their ends. One that is longer than `bytesMax` is left out, and never held whole. */
export async function* linesOf(source: AsyncIterable<Buffer>, bytesMax: number): AsyncGenerator<Buffer> {
  let pieces: Buffer[] = [];
  let length = 0;
  for await (const chunk of source) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); ; end = chunk.indexOf(LINE_FEED, start)) {
      const piece = chunk.subarray(start, end < 0 ? chunk.length : end);
      length += piece.length;
      if (length > bytesMax) pieces = [];
      else pieces.push(piece);
      if (end < 0) break;
      if (length > 0 && length <= bytesMax) yield Buffer.concat(pieces, length);
      pieces = [];
      length = 0;
      start = end + 1;
    }
  }
  if (length > 0 && length <= bytesMax) yield Buffer.concat(pieces, length);
}
