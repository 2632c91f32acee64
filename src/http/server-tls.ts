import type { Socket } from 'node:net';
import tls from 'node:tls';
import type { ServerOptions } from './server-options.ts';

/** A TLS server that offers both protocols by ALPN, and allows `timeoutMs` for the whole handshake. */
export function createTlsFront(
  certificate: NonNullable<ServerOptions['tls']>,
  timeoutMs: number,
  onError: (error: Error) => void,
): tls.Server {
  const front = tls.createServer({
    ...certificate,
    ALPNProtocols: ['h2', 'http/1.1'],
    minVersion: 'TLSv1.2',
    noDelay: true,
  });
  // Node's handshakeTimeout starts anew with every byte, and leaves the connection open when it fires.
  const handshakes = new Map<string, NodeJS.Timeout>();
  front.on('connection', (socket: Socket) => {
    const peer = peerOf(socket);
    const timer = setTimeout(() => {
      socket.destroy();
    }, timeoutMs);
    handshakes.set(peer, timer);
    socket.once('close', () => {
      clearTimeout(timer);
      if (handshakes.get(peer) === timer) handshakes.delete(peer);
    });
  });
  front.on('secureConnection', (socket) => {
    clearTimeout(handshakes.get(peerOf(socket)));
  });
  front.on('tlsClientError', (error, socket) => {
    onError(error);
    socket.destroy();
  });
  return front;
}

/** The same for a connection and for the TLS socket that Node builds over it without saying which. */
function peerOf(socket: Socket): string {
  return `${String(socket.remoteAddress)} ${String(socket.remotePort)}`;
}
