/** Frames of RFC 9113, by hand: real clients cannot be made to misbehave enough. All on stream 1. */
export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  windowUpdate: 8,
  continuation: 9,
};
export const END_STREAM = 1;
export const END_HEADERS = 4;

export function frame(type: number, flags: number, payload: Buffer, stream = 1): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** The client's preface with empty SETTINGS. */
export const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(FRAME.settings, 0, Buffer.alloc(0), 0),
]);

export function headersFrame(
  method: string,
  path: string,
  headers: [string, string][] = [],
  flags = END_HEADERS,
): Buffer {
  const lines: [string, string][] = [
    [':method', method],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'localhost'],
    ...headers,
  ];
  return frame(FRAME.headers, flags, headerBlock(lines));
}

export function headerBlock(headers: [string, string][]): Buffer {
  return Buffer.concat(headers.map(([name, value]) => literal(name, value)));
}

/** HPACK: literal without indexing, new name, no Huffman. Lengths of 127 and more take further bytes. */
function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0]), text(name), text(value)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
  return Buffer.concat([Buffer.from([...length, rest]), bytes]);
}
