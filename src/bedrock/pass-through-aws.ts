import type { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';
import { HttpRequest } from '@smithy/protocol-http';
import type { HttpResponse } from '@smithy/protocol-http';
import type { Operation } from '../domain/usage.ts';
import { basePath } from './egress.ts';

/** Bytes for AWS, without the signature. */
export interface PassThrough {
  modelId: string;
  operation: Operation;
  body: Uint8Array;
  /** Lower-case hex. */
  bodySha256: string;
  headers: Readonly<Record<string, string>>;
  abortSignal: AbortSignal;
}

type Stack = BedrockRuntimeClient['middlewareStack'];

/**
 * The steps of the SDK that a call keeps: choosing the identity and signing with it. All others serve typed commands
 * (serialising, parsing, retrying, logging); a test holds the list equal to what the SDK has.
 */
const STEPS_KEPT = ['httpAuthSchemeMiddleware', 'httpSigningMiddleware'];

/**
 * A command of our own on a client's stack, resolved once: body bytes in, response as it came, nothing parsed or retried.
 * Less than half the CPU of `client.send(new InvokeModelCommand())`, Node's HTTP client included.
 */
export function passThroughFor(client: BedrockRuntimeClient, endpoint: URL, region: string) {
  const { requestHandler } = client.config;
  const send = signingStack(client.middlewareStack, endpoint).resolve<PassThrough, never>(
    ({ input, request }) => requestHandler.handle(request as HttpRequest, { abortSignal: input.abortSignal }),
    {
      clientName: 'BedrockRuntimeClient',
      commandName: 'PassThroughCommand',
      endpointV2: {
        url: endpoint,
        properties: {
          authSchemes: [{ name: 'sigv4', signingName: 'bedrock', signingRegion: region, properties: {} }],
        },
      },
      __smithy_context: {},
    },
  );
  return async (input: PassThrough): Promise<HttpResponse> =>
    (await send({ input })).response as HttpResponse;
}

function signingStack(clientStack: Stack, endpoint: URL): Stack {
  const stack = clientStack.clone();
  for (const step of clientStack.identify()) {
    const name = step.slice(0, step.search(/ |$/));
    if (!STEPS_KEPT.includes(name)) stack.remove(name);
  }
  // The two kept steps are placed relative to steps of these names.
  stack.add((next) => (args) => next({ ...args, request: unsigned(args.input as PassThrough, endpoint) }), {
    name: 'endpointV2Middleware',
    step: 'serialize',
  });
  stack.add((next) => next, { name: 'retryMiddleware', step: 'finalizeRequest' });
  return stack;
}

function unsigned(input: PassThrough, endpoint: URL): HttpRequest {
  return new HttpRequest({
    protocol: endpoint.protocol,
    hostname: endpoint.hostname,
    ...(endpoint.port === '' ? {} : { port: Number(endpoint.port) }),
    method: 'POST',
    path: `${basePath(endpoint)}/model/${encodeURIComponent(input.modelId)}/${input.operation}`,
    headers: {
      ...input.headers,
      'user-agent': 'merchant-bedrock',
      host: endpoint.host,
      'content-length': String(input.body.byteLength),
      'x-amz-content-sha256': input.bodySha256,
    },
    body: input.body,
  });
}
