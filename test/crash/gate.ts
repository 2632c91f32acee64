import net from 'node:net';
import type { Socket } from 'node:net';

/** How long a request that is delivered late may take to be answered, to nobody. Milliseconds. */
const LATE_ANSWER_MS = 2_000;

/**
 * A door between the service and the stand-in. Closed, it takes requests and keeps them: for the service they are sent, for AWS they have not
 * come. What it kept can then be lost with the connection, or arrive after the one who sent it is dead.
 */
export class Gate implements AsyncDisposable {
  readonly url: string;
  readonly #server: net.Server;
  readonly #passages: Set<Passage>;
  readonly #state: { closed: boolean };

  private constructor(server: net.Server, passages: Set<Passage>, state: { closed: boolean }) {
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    this.url = `http://127.0.0.1:${String(address.port)}`;
    this.#server = server;
    this.#passages = passages;
    this.#state = state;
  }

  static async before(target: string): Promise<Gate> {
    const port = Number(new URL(target).port);
    const passages = new Set<Passage>();
    const state = { closed: false };
    const server = net.createServer((caller) => {
      passages.add(newPassage(caller, port, { state, passages }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Gate(server, passages, state);
  }

  /** Connections on which a request was kept. */
  get waiting(): number {
    return [...this.#passages].filter(({ kept }) => kept.length > 0).length;
  }

  close(): void {
    this.#state.closed = true;
  }

  /** Lets through what comes from now on, and what was kept: `deliver` it, also of callers that are gone, or `lose` it with its connection. */
  open(what: 'deliver' | 'lose'): void {
    this.#state.closed = false;
    for (const passage of this.#passages) {
      if (what === 'deliver') passage.deliver();
      else if (passage.kept.length > 0) passage.end();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const passage of this.#passages) passage.end();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

interface Passage {
  kept: Buffer[];
  deliver: () => void;
  end: () => void;
}

function newPassage(
  caller: Socket,
  port: number,
  { state, passages }: { state: { closed: boolean }; passages: Set<Passage> },
): Passage {
  const aws = net.connect(port, '127.0.0.1');
  let callerGone = false;
  const passage: Passage = {
    kept: [],
    deliver: () => {
      const late = passage.kept.splice(0);
      for (const bytes of late) aws.write(bytes);
      if (!callerGone) return;
      if (late.length === 0) passage.end();
      else setTimeout(passage.end, LATE_ANSWER_MS).unref();
    },
    end: () => {
      caller.destroy();
      aws.destroy();
      passages.delete(passage);
    },
  };
  caller.on('data', (bytes) => {
    if (state.closed || passage.kept.length > 0) passage.kept.push(bytes);
    else aws.write(bytes);
  });
  aws.on('data', (bytes) => {
    // The first piece of an answer that nobody waits for any more says that the late request was taken.
    if (callerGone) passage.end();
    else caller.write(bytes);
  });
  caller.on('close', () => {
    callerGone = true;
    if (passage.kept.length === 0) passage.end();
  });
  aws.on('close', (broken) => {
    if (broken) caller.resetAndDestroy();
    else caller.end();
    passages.delete(passage);
  });
  for (const socket of [caller, aws]) socket.on('error', () => undefined);
  return passage;
}
