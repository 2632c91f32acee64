const HEAD_END = Buffer.from('\r\n\r\n');
const LINE_END = Buffer.from('\r\n');

/**
 * Reads one HTTP/1.1 response after the other from the bytes of a connection: content-length and chunked, nothing more, because a load
 * generator that shares the machine must cost little. Bodies are kept: they are checked.
 */
export class HttpReader {
  status = 0;
  #pending: Buffer = Buffer.alloc(0);
  #body: Buffer[] = [];
  #state: 'head' | 'length' | 'chunk-size' | 'chunk' | 'trailer' = 'head';
  /** Bytes of the body, or of the chunk with its line end, that are still to come. */
  #left = 0;

  /** True once the response is whole; `take` then gives its body and makes ready for the next. @throws Error for what is no response */
  push(bytes: Buffer): boolean {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const step = this.#step();
      if (step !== 'go-on') return step === 'whole';
    }
  }

  take(): Buffer {
    const body = Buffer.concat(this.#body);
    this.#body = [];
    this.#state = 'head';
    return body;
  }

  /** Of the response under way. */
  get bodyBytes(): number {
    return this.#body.reduce((sum, { length }) => sum + length, 0);
  }

  #step(): 'go-on' | 'more' | 'whole' {
    switch (this.#state) {
      case 'head':
        return this.#head();
      case 'length':
        return this.#takeBody() ? 'whole' : 'more';
      case 'chunk-size':
        return this.#chunkSize();
      case 'chunk':
        if (!this.#takeBody()) return 'more';
        this.#state = 'chunk-size';
        return 'go-on';
      case 'trailer':
        return this.#line() === '' ? 'whole' : 'more';
    }
  }

  #head(): 'go-on' | 'more' {
    const end = this.#pending.indexOf(HEAD_END);
    if (end < 0) return 'more';
    const head = this.#pending.toString('latin1', 0, end);
    this.#pending = this.#pending.subarray(end + HEAD_END.length);
    this.status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (Number.isNaN(this.status) || (length === undefined && !/\r\ntransfer-encoding: *chunked/i.test(head)))
      throw new Error('not a response that this reader knows');
    this.#left = Number(length ?? 0);
    this.#state = length === undefined ? 'chunk-size' : 'length';
    return 'go-on';
  }

  #chunkSize(): 'go-on' | 'more' {
    const line = this.#line();
    if (line === undefined) return 'more';
    // The empty line is the end of the chunk before.
    if (line === '') return 'go-on';
    this.#left = Number.parseInt(line, 16);
    if (Number.isNaN(this.#left)) throw new Error('not a chunk');
    this.#state = this.#left === 0 ? 'trailer' : 'chunk';
    return 'go-on';
  }

  #line(): string | undefined {
    const end = this.#pending.indexOf(LINE_END);
    if (end < 0) return undefined;
    const line = this.#pending.toString('latin1', 0, end);
    this.#pending = this.#pending.subarray(end + LINE_END.length);
    return line;
  }

  #takeBody(): boolean {
    const taken = this.#pending.subarray(0, this.#left);
    if (taken.length > 0) this.#body.push(taken);
    this.#pending = this.#pending.subarray(taken.length);
    this.#left -= taken.length;
    return this.#left === 0;
  }
}
