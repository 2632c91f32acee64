import type { Mutant } from '../../scripts/mutants/mutant.ts';

const RELAY = 'src/gateway/relay-stream.ts';
const STREAMS_TEST = 'test/server/streams.test.ts';

/** What is streamed, how it ends, and what becomes of it when nobody listens any more. */
export const STREAMS: readonly Mutant[] = [
  {
    name: 'A stream that broke off ends with an exception frame, and never silently.',
    file: RELAY,
    find: 'if (!complete && this.#tap.exception === undefined)',
    replace: "if (failure === 'never')",
    test: STREAMS_TEST,
    testName: 'to a client over h1 converse stream',
  },
  {
    name: 'A stream without its last event is unknown, and not settled with what was seen of it.',
    file: RELAY,
    find: 'const usage = complete ? this.#tap.usage() : undefined;',
    replace:
      "const usage = this.#tap.usage() ?? ({ provenance: 'none', tokens: { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 } } as never);",
    test: STREAMS_TEST,
    testName: 'to a client over h1',
  },
  {
    name: 'A stream whose client left is read on to its usage.',
    file: 'src/gateway/lifeline.ts',
    find: 'this.#timer ??= setTimeout(this.#onCut, this.#drainMs);',
    replace: 'this.#onCut();',
    test: STREAMS_TEST,
    testName: 'a client that leaves',
  },
  {
    name: 'A stream whose client left is cut after the drain time.',
    file: 'src/gateway/lifeline.ts',
    find: 'this.#timer ??= setTimeout(this.#onCut, this.#drainMs);',
    replace: 'this.#timer ??= setTimeout(this.#onCut, this.#drainMs * 1_000);',
    test: STREAMS_TEST,
    testName: 'a client that leaves',
  },
  {
    name: 'What was read after the client left says so in the ledger.',
    file: RELAY,
    find: "usage: drained ? { ...usage, provenance: 'drained' } : usage",
    replace: 'usage: drained ? { ...usage } : usage',
    test: STREAMS_TEST,
    testName: 'a client that leaves',
  },
  {
    name: 'A frame with a wrong checksum is not passed on.',
    file: 'src/bedrock/event-stream.ts',
    find: 'if (crc32(bytes.subarray(0, payloadEnd)) !== bytes.readUInt32BE(payloadEnd))',
    replace: 'if (payloadEnd < 0)',
    test: 'test/unit/event-stream.test.ts',
  },
  {
    name: 'A stream that ends inside a frame is truncated, and not a clean end.',
    file: 'src/bedrock/event-stream.ts',
    find: "if (pendingBytes > 0) throw new EventStreamError('truncated', 'the stream ended inside a frame');",
    replace: '',
    test: 'test/unit/event-stream.test.ts',
  },
  {
    name: 'Nothing in a payload can begin another server-sent event.',
    file: 'src/bedrock/sse.ts',
    find: String.raw`data.split(/\r\n|\r|\n/)`,
    replace: 'data.split(/\\r\\n/)',
    test: 'test/unit/event-stream.test.ts',
  },
  {
    name: 'A shutdown waits for what is running.',
    file: 'src/gateway/in-flight.ts',
    find: 'while (this.#running.size > 0) await Promise.allSettled([...this.#running]);',
    replace: '',
    test: 'test/crash/kill.test.ts',
    testName: 'SIGTERM',
  },
];
