import type { Frame } from './event-stream.ts';
import { parseObject } from './token-counts.ts';

/**
 * One frame as a server-sent event: `event:` is AWS's event type, `data:` its JSON. A chunk of InvokeModelWithResponseStream is unwrapped: its
 * data is the model's own JSON. An exception becomes `event: error`.
 */
export function sseOfFrame(frame: Frame): string {
  if (frame.messageType !== 'event') return sse('error', JSON.stringify(errorOf(frame)));
  if (frame.eventType !== 'chunk') return sse(frame.eventType ?? 'message', frame.payload.toString('utf8'));
  const bytes = parseObject(frame.payload)?.['bytes'];
  return sse(
    'chunk',
    typeof bytes === 'string'
      ? Buffer.from(bytes, 'base64').toString('utf8')
      : frame.payload.toString('utf8'),
  );
}

/** An exception or error frame, in words. `code` is of our own errors. */
export function errorOf(frame: Frame): { type: string; message: string; code?: string } {
  const { message, code } = parseObject(frame.payload) ?? {};
  return {
    type: frame.exceptionType ?? frame.errorCode ?? 'unknown',
    message:
      frame.errorMessage ?? (typeof message === 'string' ? message : 'The stream ended with an error.'),
    ...(typeof code === 'string' && { code }),
  };
}

/** A data line for each line of text, so that a line feed in the payload cannot begin another event. */
export function sse(event: string, data: string): string {
  const lines = data.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
  return `event: ${event.replaceAll(/[^A-Za-z0-9_-]/g, '')}\n${lines.join('')}\n`;
}
