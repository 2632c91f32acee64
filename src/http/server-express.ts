import express from 'express';
import { randomUUID } from 'node:crypto';
import { Http2ServerRequest } from 'node:http2';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ServiceError } from '../domain/errors.ts';
import { sendProblem } from './problem.ts';
import { METHODS, cutResponse, guardRequest } from './protocol.ts';
import type { Refusal } from './protocol.ts';
import { TolerantHttp2Response } from './server-http2.ts';
import type { ServerOptions } from './server-options.ts';

type Listener = (req: IncomingMessage, res: ServerResponse) => void;

/** Called by Express when no route answered, or with what a route threw and no error handler took. */
type Done = (error?: unknown) => void;
type Handle = (this: object, req: IncomingMessage, res: ServerResponse, done: Done) => void;

/** Guards, then lets Express answer; what Express leaves over is answered here. Never throws. */
export function requestListener(app: express.Express, options: ServerOptions): Listener {
  const handle = expressHandle(app);
  return (req, res) => {
    const done = (error?: unknown): void => {
      answerLeftover(res, error, options);
    };
    try {
      const refusal = guardRequest(req, options.limits.headerBytesMax);
      if (refusal === undefined) handle(req, res, done);
      else refuse(res, refusal, options);
    } catch (error) {
      done(error);
    }
  };
}

/**
 * Lets one Express 5 app serve HTTP/2 too. Express replaces the prototype of every request and response by its own,
 * which descend from Node's HTTP/1 classes; on HTTP/2 that breaks both objects. So HTTP/2 requests go
 * through a view of the app: the same app, with prototypes that carry Express's methods over Node's HTTP/2 classes.
 * A mounted sub-app would put the HTTP/1 prototypes back: mount Routers only.
 */
function expressHandle(
  app: express.Express,
): (req: IncomingMessage, res: ServerResponse, done: Done) => void {
  const { handle } = app as unknown as { handle: Handle };
  const http2View = Object.create(app, {
    request: { value: overHttp2(Http2ServerRequest.prototype, express.request, app.request) },
    response: { value: overHttp2(TolerantHttp2Response.prototype, express.response, app.response) },
  }) as object;
  return (req, res, done) => {
    handle.call(req.httpVersionMajor === 2 ? http2View : app, req, res, done);
  };
}

/** An object that descends from `base` and has the own properties of `layers`, the last one on top. */
function overHttp2(base: object, ...layers: object[]): object {
  const descriptors = layers.map((layer) => Object.getOwnPropertyDescriptors(layer));
  return Object.create(base, Object.assign({}, ...descriptors) as PropertyDescriptorMap) as object;
}

function refuse(res: ServerResponse, refusal: Refusal, options: ServerOptions): void {
  const requestId = randomUUID();
  const { status, error } = refusal;
  // A parser in front of us may see another end of this request than we do.
  res.setHeader('connection', 'close');
  if (error.code === 'route.method_not_allowed') res.setHeader('allow', METHODS.join(', '));
  options.onRefused?.({ status, error, requestId, remoteAddress: res.req.socket.remoteAddress });
  sendProblem(res, error, requestId, status);
}

/**
 * The last net, below the app's own 404 and error handler: with it no client ever sees Express's HTML page or a stack.
 * Headers that were set are dropped, since one of them may be why the answer failed.
 */
function answerLeftover(res: ServerResponse, error: unknown, options: ServerOptions): void {
  if (error instanceof Error && !(error instanceof ServiceError)) options.onSocketError?.(error);
  if (res.headersSent && !isFailure(error)) return; // the answer is on its way
  try {
    if (!res.headersSent) for (const name of res.getHeaderNames()) res.removeHeader(name);
    sendProblem(res, leftoverError(error), randomUUID());
  } catch {
    cutResponse(res);
  }
}

function isFailure(error: unknown): boolean {
  return error !== undefined && error !== null;
}

function leftoverError(error: unknown): ServiceError {
  if (error instanceof ServiceError) return error;
  if (error === undefined || error === null)
    return new ServiceError('route.not_found', 'There is nothing here.');
  return new ServiceError('internal', 'The request failed for a reason on our side.', { cause: error });
}
