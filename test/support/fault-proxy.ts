import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

/**
 * What the road to a dependency does.
 * - `open`: passes everything on.
 * - `refused`: nobody listens; connections that were there are reset.
 * - `black hole`: takes connections and bytes, and nothing ever comes back.
 * - `slow`: passes everything on; each piece of an answer comes `delayMs` late.
 * - `lost answer`: passes everything on, but where a connection has said `of`, what is answered when it says `to`: with that it is reset.
 * - `postgres-error`: what Postgres says at the door with this SQLSTATE; connections that were there are reset.
 */
export type Road =
  | { kind: 'open' }
  | { kind: 'refused' }
  | { kind: 'black hole' }
  | { kind: 'slow'; delayMs: number }
  | { kind: 'lost answer'; of: string; to: string }
  | { kind: 'postgres-error'; sqlState: string };

/** A TCP proxy on loopback whose road can be broken and mended. */
export class FaultProxy implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** How far connections have come on a road of lost answers. */
  readonly #said = new WeakMap<Socket, 'of' | 'to'>();
  #target: { host: string; port: number } | undefined;
  #road: Road = { kind: 'open' };

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
    server.on('connection', (socket) => {
      this.#take(socket);
    });
  }

  /** Below the range from which the system gives out ports, so that nobody else has it while the road is closed. */
  static async start(): Promise<FaultProxy> {
    const server = createServer();
    for (;;) {
      try {
        return new FaultProxy(server, await listen(server, randomInt(12_000, 32_000)));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      }
    }
  }

  /** `http://127.0.0.1:PORT` */
  get url(): string {
    return `http://127.0.0.1:${String(this.port)}`;
  }

  leadTo(url: string): void {
    const { hostname, port } = new URL(url);
    this.#target = { host: hostname, port: Number(port) };
  }

  async set(road: Road): Promise<void> {
    const before = this.#road.kind;
    this.#road = road;
    // A hole that ends answers what was said into it with a reset, as a firewall does that has forgotten the connection.
    if (before === 'black hole' || road.kind === 'refused' || road.kind === 'postgres-error')
      this.#resetAll();
    if (road.kind === 'refused') await new Promise((resolve) => this.#server.close(resolve));
    else if (!this.#server.listening) await listen(this.#server, this.port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#resetAll();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  #take(client: Socket): void {
    this.#watch(client);
    const { kind } = this.#road;
    if (kind === 'postgres-error') {
      refuseAsPostgres(client, this.#road.sqlState);
      return;
    }
    if (kind === 'black hole' || this.#target === undefined) {
      client.resume();
      return;
    }
    const server = connect(this.#target);
    this.#watch(server);
    client.on('data', (bytes) => {
      this.#note(client, bytes);
      if (this.#road.kind !== 'black hole') server.write(bytes);
    });
    server.on('data', (bytes) => {
      this.#answer(client, bytes);
    });
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    client.on('close', end);
    server.on('close', () => {
      // What is still on its way comes first.
      setTimeout(end, this.#road.kind === 'slow' ? this.#road.delayMs : 0);
    });
  }

  #note(client: Socket, bytes: Buffer): void {
    if (this.#road.kind !== 'lost answer') return;
    if (bytes.includes(this.#road.of)) this.#said.set(client, 'of');
    if (bytes.includes(this.#road.to) && this.#said.has(client)) this.#said.set(client, 'to');
  }

  #answer(client: Socket, bytes: Buffer): void {
    const road = this.#road;
    if (road.kind === 'black hole') return;
    // It has answered, so it was done.
    if (this.#said.get(client) === 'to') {
      client.resetAndDestroy();
      return;
    }
    if (road.kind === 'slow') setTimeout(() => client.write(bytes), road.delayMs);
    else client.write(bytes);
  }

  #watch(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
  }

  #resetAll(): void {
    // One that is closing already cannot be reset: Node would leave it open, and the process with it.
    for (const socket of this.#sockets)
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
  }
}

async function listen(server: Server, port: number): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** An ErrorResponse, before any password is asked for. */
function refuseAsPostgres(client: Socket, sqlState: string): void {
  client.once('data', () => {
    const fields = ['SFATAL', 'VFATAL', `C${sqlState}`, 'Mrefused at the door'].map((field) => `${field}\0`);
    const text = Buffer.from(`${fields.join('')}\0`);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length + 4);
    client.end(Buffer.concat([Buffer.from('E'), length, text]));
  });
}
