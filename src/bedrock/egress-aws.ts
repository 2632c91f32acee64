import type { HttpHandler, HttpRequest, HttpResponse } from '@smithy/protocol-http';
import { egressProblem } from './egress.ts';
import type { ExpectedRequest } from './egress.ts';
import type { Transport } from './transport-aws.ts';
import { UpstreamError } from './upstream-error.ts';

type HandlerOptions = Parameters<HttpHandler['handle']>[1];

/**
 * The last step of every call to Bedrock, as the SDK's request handler: looks at the final, signed request and lets it pass
 * only to the host, and with the signature, that its client was built for.
 */
export class EgressGuard implements HttpHandler {
  readonly #transport: Transport;
  readonly #expected: ExpectedRequest;
  #closed = false;

  constructor(transport: Transport, expected: ExpectedRequest) {
    this.#transport = transport;
    this.#expected = expected;
  }

  /**
   * @throws UpstreamError internal, executed `no`: the request is not the one expected; no byte has left
   * @throws UpstreamError of Transport.handle
   */
  async handle(request: HttpRequest, options?: HandlerOptions): Promise<{ response: HttpResponse }> {
    const problem = this.#closed ? 'client already closed' : egressProblem(request, this.#expected);
    if (problem !== undefined) {
      const detail = 'The signed request was not the one expected and was not sent.';
      throw new UpstreamError('internal', detail, 'no', { cause: new Error(`egress refused: ${problem}`) });
    }
    // The SDK's type also allows a signal class of its own; ours are all the platform's.
    return this.#transport.handle(request, options?.abortSignal as AbortSignal | undefined);
  }

  /** Called by the SDK when the client is destroyed. The connections are everybody's and stay. */
  destroy(): void {
    this.#closed = true;
  }

  /** The SDK asks for this; there is nothing to configure from outside. */
  updateHttpClientConfig(): void {
    // Nothing.
  }

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }
}
