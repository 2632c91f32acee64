import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

const HTTP2_PREFACE_START = 'PRI ';

/**
 * Reads the first bytes of a cleartext connection, puts them back, and tells which protocol they open.
 * HTTP/2 with prior knowledge starts with `PRI * HTTP/2.0`; no method of HTTP/1 starts with `PRI `.
 * A connection that has not decided after `timeoutMs`, or ends before, is dropped: nothing was asked.
 */
export function peekProtocol(
  socket: Socket,
  timeoutMs: number,
  onKnown: (protocol: 'http1' | 'http2') => void,
): void {
  let head: Buffer = Buffer.alloc(0);
  const drop = (): void => {
    socket.destroy();
  };
  const forget = (): void => {
    clearTimeout(timer);
    socket.off('readable', read).off('end', drop).off('close', forget);
  };
  const read = (): void => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    head = Buffer.concat([head, chunk]);
    const start = head.toString('latin1', 0, HTTP2_PREFACE_START.length);
    if (start !== HTTP2_PREFACE_START && HTTP2_PREFACE_START.startsWith(start)) return;
    forget();
    socket.unshift(head);
    onKnown(start === HTTP2_PREFACE_START ? 'http2' : 'http1');
  };
  const timer = setTimeout(drop, timeoutMs);
  socket.on('readable', read).on('end', drop).on('close', forget);
}

/** Reads away what still comes, and ends the socket for good after `ms` unless the peer hangs up first. */
export function destroyAfter(socket: Duplex, ms: number): void {
  const timer = setTimeout(() => {
    socket.destroy();
  }, ms);
  socket.once('close', () => {
    clearTimeout(timer);
  });
  socket.resume();
}
