import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

type Listener = (req: IncomingMessage, res: ServerResponse) => void;

/** Requests of one HTTP/1.1 connection that are worked on at a time. Clients of ours never pipeline; others seldom do by more than a few. */
const AT_ONCE_MAX = 16;

/**
 * Lets only so many requests of one HTTP/1.1 connection begin; the others wait in the order they came, and meanwhile nothing more is read.
 * Node parses all that one read brought (64 KiB) in one go, so those wait here as what they are, a request that nobody has looked at. They
 * wait and are not dropped, because that needs no rule for which answers still come and how the connection ends.
 */
export function inTurns(serve: Listener): Listener {
  const lines = new WeakMap<Socket, Line>();
  return (req, res) => {
    const line = lines.get(req.socket) ?? new Line(req.socket, serve);
    lines.set(req.socket, line);
    line.enter({ req, res });
  };
}

interface Exchange {
  req: IncomingMessage;
  res: ServerResponse;
}

class Line {
  readonly #socket: Socket;
  readonly #serve: Listener;
  readonly #waiting: Exchange[] = [];
  #running = 0;

  constructor(socket: Socket, serve: Listener) {
    this.#socket = socket;
    this.#serve = serve;
    const resume = socket.resume.bind(socket);
    // Node resumes for its own reasons, such as an earlier request whose body is done.
    socket.resume = () => (this.#holds ? socket : resume());
  }

  enter(exchange: Exchange): void {
    if (this.#running < AT_ONCE_MAX && this.#waiting.length === 0) {
      this.#start(exchange);
      return;
    }
    this.#waiting.push(exchange);
    if (this.#holds) this.#socket.pause();
  }

  /** Past our last answer nothing waits any more, and what still comes is read away. */
  get #holds(): boolean {
    return this.#waiting.length > 0 && !this.#isOver;
  }

  get #isOver(): boolean {
    return this.#socket.destroyed || this.#socket.writableEnded;
  }

  #start({ req, res }: Exchange): void {
    if (this.#isOver) return;
    this.#running += 1;
    res.once('close', () => {
      this.#running -= 1;
      // Not in this turn of the loop: a packet of a thousand quick requests would hold it for all of them.
      setImmediate(() => {
        this.#next();
      });
    });
    this.#serve(req, res);
  }

  #next(): void {
    if (this.#waiting.length === 0 || this.#running >= AT_ONCE_MAX) return;
    const [exchange] = this.#waiting.splice(0, this.#isOver ? Infinity : 1);
    if (exchange !== undefined) this.#start(exchange);
    if (this.#waiting.length === 0) this.#socket.resume();
  }
}
