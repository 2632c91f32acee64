import type { IncomingMessage, ServerResponse } from 'node:http';

export interface OpenRequest {
  req: IncomingMessage;
  res: ServerResponse;
}

/** The requests that are being answered, by connection: what shutdown waits for. */
export class OpenRequests {
  readonly #byConnection = new Map<object, Set<OpenRequest>>();
  readonly #onLeft: () => void;
  #size = 0;

  constructor(onLeft: () => void) {
    this.#onLeft = onLeft;
  }

  get size(): number {
    return this.#size;
  }

  /** Counts the request until its response is closed: finished, cut or abandoned by the client. */
  enter(request: OpenRequest): void {
    // HTTP/2 gives each request a socket object of its own; nobody asks for those by connection.
    const connection = request.req.socket;
    const requests = this.#byConnection.get(connection) ?? new Set();
    this.#byConnection.set(connection, requests.add(request));
    this.#size += 1;
    request.res.once('close', () => {
      this.#size -= 1;
      requests.delete(request);
      if (requests.size === 0) this.#byConnection.delete(connection);
      this.#onLeft();
    });
  }

  on(connection: object): OpenRequest[] {
    return [...(this.#byConnection.get(connection) ?? [])];
  }

  all(): OpenRequest[] {
    return [...this.#byConnection.values()].flatMap((requests) => [...requests]);
  }
}
