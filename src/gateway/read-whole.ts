import type { Readable } from 'node:stream';
import { bodyFailure, UpstreamError } from '../bedrock/upstream-error.ts';

/**
 * Reads an answer that is not a stream.
 * @throws UpstreamError upstream.incomplete when it breaks off or is larger than `bytesMax`; upstream.timeout after `idleTimeoutMs` of silence.
 */
export async function readWhole(
  reply: { body: Readable; headers: Readonly<Record<string, string>> },
  limits: { bytesMax: number; idleTimeoutMs: number },
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of withIdleTimeout(reply.body, limits.idleTimeoutMs)) {
      length += chunk.byteLength;
      if (length > limits.bytesMax) throw incomplete('is larger than this service passes on');
      chunks.push(chunk);
    }
  } catch (error) {
    reply.body.destroy();
    throw bodyFailure(error);
  }
  const announced = reply.headers['content-length'];
  if (announced !== undefined && Number(announced) !== length) throw incomplete('is shorter than announced');
  return Buffer.concat(chunks, length);
}

function incomplete(how: string): UpstreamError {
  const detail = `The answer from AWS ${how}. Whether it was billed is recorded as unknown.`;
  return new UpstreamError('upstream.incomplete', detail, 'unknown');
}

/**
 * The pieces of a stream, with an error when none comes for `idleTimeoutMs`. Time that the consumer takes does not count: the clock runs only
 * while a piece is awaited.
 */
export async function* withIdleTimeout(source: Readable, idleTimeoutMs: number): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  for (;;) {
    let timer: NodeJS.Timeout | undefined;
    const silence = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(
          new UpstreamError(
            'upstream.timeout',
            `AWS sent nothing for ${String(idleTimeoutMs)} ms.`,
            'unknown',
          ),
        );
      }, idleTimeoutMs);
    });
    try {
      const step = await Promise.race([iterator.next(), silence]);
      if (step.done === true) return;
      yield step.value;
    } finally {
      clearTimeout(timer);
    }
  }
}
