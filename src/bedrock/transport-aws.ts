import dns from 'node:dns';
import http from 'node:http';
import type { Agent, AgentOptions, ClientRequest, IncomingMessage } from 'node:http';
import https from 'node:https';
import type { LookupFunction } from 'node:net';
import type { Duplex } from 'node:stream';
import { inspect } from 'node:util';
import { HttpResponse } from '@smithy/protocol-http';
import type { HttpRequest } from '@smithy/protocol-http';
import { guardedLookup, reachOf } from '../domain/address.ts';
import { Exchange } from './exchange.ts';
import type { ExchangeLimits } from './exchange.ts';
import { UpstreamError } from './upstream-error.ts';

export interface TransportOptions extends ExchangeLimits {
  /** Connections per host. A call beyond them waits, for `connectMs` at most. */
  socketsMax: number;
  /** The host that was set in place of AWS's own: it may be anywhere. */
  endpoint?: string | undefined;
  /** AWS's own names may lead to addresses of a VPC. Default false: to public ones only. */
  privateNames?: boolean;
  /** Default: the system's. */
  lookup?: LookupFunction;
}

/**
 * Milliseconds an unused connection is kept: well below the idle time-outs of AWS's load balancers, so that a request
 * seldom meets a connection that is being closed, which would leave its outcome unknown.
 */
const IDLE_SOCKET_MS = 15_000;

type ReadyEvent = 'connect' | 'secureConnect';

/**
 * HTTP/1.1 over connections shared by all merchants: a connection carries no identity, only a request does.
 * Takes the place of the SDK's NodeHttpHandler because that one does not tell whether bytes had left when a call failed,
 * and its connection time-out ends before the TLS handshake. Follows no redirect and sends nothing twice.
 */
export class Transport implements Disposable {
  readonly #limits: ExchangeLimits;
  readonly #http: Agent;
  readonly #https: Agent;
  /** Connections that are set up, TLS included. */
  readonly #ready = new WeakSet<Duplex>();

  constructor(options: TransportOptions) {
    this.#limits = options;
    const agentOptions: AgentOptions = {
      keepAlive: true,
      maxSockets: options.socketsMax,
      maxFreeSockets: options.socketsMax,
      timeout: IDLE_SOCKET_MS,
      lookup: guardedLookup(options.lookup ?? dns.lookup, reachOf(options.endpoint, options.privateNames)),
    };
    this.#http = this.#watch(new http.Agent(agentOptions), 'connect');
    this.#https = this.#watch(new https.Agent(agentOptions), 'secureConnect');
  }

  /**
   * Sends one request as it is and resolves at the response headers, whatever the status.
   * @throws UpstreamError upstream.unreachable | upstream.timeout | upstream.incomplete | service.overloaded |
   *   request.aborted | internal
   */
  async handle(request: HttpRequest, signal: AbortSignal | undefined): Promise<{ response: HttpResponse }> {
    const exchange = new Exchange(this.#open(request), {
      limits: this.#limits,
      signal,
      isReady: (socket) => this.#ready.has(socket),
      readyEvent: request.protocol === 'https:' ? 'secureConnect' : 'connect',
    });
    return { response: toResponse(await exchange.run(request.body as Uint8Array | undefined)) };
  }

  /** Closes every connection. Calls still running fail. */
  [Symbol.dispose](): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  #open(request: HttpRequest): ClientRequest {
    const secure = request.protocol === 'https:';
    try {
      return (secure ? https : http).request({
        host: request.hostname.replace(/^\[|\]$/g, ''),
        port: request.port,
        method: request.method,
        path: request.path + queryOf(request),
        headers: request.headers,
        agent: secure ? this.#https : this.#http,
      });
    } catch (cause) {
      throw new UpstreamError('internal', 'The request has characters that HTTP does not allow.', 'no', {
        cause,
      });
    }
  }

  /** Notes every connection that becomes ready, whichever request it was made for. */
  #watch(agent: Agent, readyEvent: ReadyEvent): Agent {
    const connect = agent.createConnection.bind(agent);
    agent.createConnection = (options, callback) => {
      const socket = connect(options, callback);
      socket?.once(readyEvent, () => this.#ready.add(socket));
      return socket;
    };
    return agent;
  }
}

/** The query as it was signed: encoded as SigV4 wants it. */
function queryOf({ query }: HttpRequest): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    [value ?? []].flat().map((one) => `${encoded(name)}=${encoded(one)}`),
  );
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function toResponse(answer: IncomingMessage): HttpResponse {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined) headers[name] = typeof value === 'string' ? value : value.join(', ');
  }
  Object.defineProperties(answer, { toJSON: HIDDEN, [inspect.custom]: HIDDEN });
  return new HttpResponse({ statusCode: answer.statusCode ?? 0, headers, body: answer });
}

/** Node's answer holds on to its request, whose headers hold tokens: neither may be printed by accident. */
const HIDDEN = { value: () => '[answer of AWS]' };
