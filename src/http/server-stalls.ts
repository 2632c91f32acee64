import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { cutResponse } from './protocol.ts';
import { TolerantHttp2Response } from './server-http2.ts';
import type { OpenRequest } from './server-requests.ts';

/** A reader is looked at this often within the time that it may take nothing. */
const LOOKS = 8;

export interface Watched {
  sockets: Iterable<Socket>;
  requests: () => readonly OpenRequest[];
  onCut: (error: Error) => void;
}

/**
 * Cuts readers that take nothing, whatever wrote the answer: a connection whose bytes wait while the kernel takes none of them, and an
 * HTTP/2 stream whose answer has ended and waits for its client's flow control. Who takes bytes, however slowly, is not cut; what is seen
 * of it are steps: a part of the kernel's buffer, and PIECE_BYTES of server-http2.ts (not the connection's bytes, or pings would count).
 * Looks are counted and not time, so that a process that stood still cuts nobody.
 * @returns how to end the watch.
 */
export function watchStalls(stallTimeoutMs: number, { sockets, requests, onCut }: Watched): () => void {
  const stuckSockets = new Unmoved<Socket>();
  const stuckStreams = new Unmoved<ServerResponse>();
  const look = (): void => {
    for (const socket of sockets) {
      if (socket instanceof TLSSocket) continue; // the one below it tells more
      const { queued, taken } = wireOf(socket);
      if (stuckSockets.looksAt(socket, queued === 0 ? undefined : taken) < LOOKS) continue;
      onCut(stalled());
      socket.destroy();
    }
    for (const { req, res } of requests()) {
      if (!(res instanceof TolerantHttp2Response)) continue;
      if (stuckStreams.looksAt(res, isForTheClient(req, res) ? res.piecesTaken : undefined) < LOOKS) continue;
      onCut(stalled());
      cutResponse(res);
    }
  };
  const timer = setInterval(look, stallTimeoutMs / LOOKS).unref();
  return () => {
    clearInterval(timer);
  };
}

/** How many looks in a row found the same of a thing; undefined says that nothing is to be seen of it. */
class Unmoved<Thing extends object> {
  readonly #seen = new WeakMap<Thing, { mark: number; looks: number }>();

  looksAt(thing: Thing, mark: number | undefined): number {
    const before = this.#seen.get(thing);
    if (mark === undefined) this.#seen.delete(thing);
    else this.#seen.set(thing, { mark, looks: before?.mark === mark ? before.looks + 1 : 0 });
    return this.#seen.get(thing)?.looks ?? 0;
  }
}

/** Ended, and it is not the wire that keeps it: whoever reads the connection, however slowly, comes to it. */
function isForTheClient(req: IncomingMessage, res: ServerResponse): boolean {
  return res.writableEnded && wireOf(req.socket).queued === 0;
}

/** What Node's own socket time-out looks at, too. A large piece is one write, so nothing else shows what was taken of it. */
interface Handle {
  writeQueueSize?: number;
  bytesWritten?: number;
}

/** Bytes that wait for the kernel, and those that it took. Of a connection that is gone: none. */
function wireOf(socket: Socket): { queued: number; taken: number } {
  const { writeQueueSize: queued = 0, bytesWritten = 0 } =
    (socket as unknown as { _handle?: Handle | null })._handle ?? {};
  return { queued, taken: bytesWritten - queued };
}

function stalled(): Error {
  return Object.assign(new Error('The reader took nothing.'), { code: 'ERR_READER_STALLED' });
}
