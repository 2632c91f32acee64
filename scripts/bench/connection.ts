import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { HttpReader } from './http-reader.ts';

/** How one request went. */
export interface Exchange {
  /** `performance.now()` when it was sent. */
  sentAt: number;
  firstByteMs: number;
  ms: number;
  /** Undefined when the answer was whole, 200 and held the marker. */
  error: string | undefined;
}

/** One keep-alive HTTP/1.1 connection with at most one request in flight. */
export class Connection {
  readonly #socket: Socket;
  readonly #marker: string;
  #reader = new HttpReader();
  #waiting: { sentAt: number; firstByteMs: number; done: (exchange: Exchange) => void } | undefined;
  /** Told of the first bytes of an answer's body. */
  onBody: () => void = () => undefined;

  private constructor(socket: Socket, marker: string) {
    this.#socket = socket;
    this.#marker = marker;
    socket.on('data', (bytes) => {
      this.#receive(bytes);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#finish(error.code ?? 'socket error');
    });
    socket.on('close', () => {
      this.#finish('connection closed');
    });
  }

  static open(port: number, marker: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, noDelay: true }, () => {
        socket.off('error', reject);
        resolve(new Connection(socket, marker));
      });
      socket.once('error', reject);
    });
  }

  /** Never rejects: what goes wrong is the exchange's `error`. */
  send(request: string): Promise<Exchange> {
    return new Promise((resolve) => {
      this.#waiting = { sentAt: performance.now(), firstByteMs: 0, done: resolve };
      if (this.#socket.destroyed) this.#finish('connection closed');
      else this.#socket.write(request, 'latin1');
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(bytes: Buffer): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return void this.#socket.destroy();
    if (waiting.firstByteMs === 0) waiting.firstByteMs = performance.now() - waiting.sentAt;
    try {
      const whole = this.#reader.push(bytes);
      if (this.#reader.bodyBytes > 0) this.onBody();
      if (whole) this.#judge(this.#reader.take());
    } catch (error) {
      this.#finish(error instanceof Error ? error.message : 'unreadable answer');
      this.#socket.destroy();
    }
  }

  #judge(body: Buffer): void {
    const { status } = this.#reader;
    if (status !== 200) this.#finish(`status ${String(status)}: ${body.toString('latin1', 0, 300)}`);
    else if (body.includes(':exception-type', 0, 'latin1')) this.#finish('exception in the stream');
    else if (body.includes(this.#marker, 0, 'latin1')) this.#finish(undefined);
    else this.#finish(`an answer without ${this.#marker}`);
  }

  #finish(error: string | undefined): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    this.#waiting = undefined;
    const { sentAt, firstByteMs, done } = waiting;
    done({ sentAt, firstByteMs, ms: performance.now() - sentAt, error });
  }
}
