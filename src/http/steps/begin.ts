import { randomUUID } from 'node:crypto';
import type { NextFunction, Request, RequestHandler, Response } from 'express';
import type { Principal } from '../../domain/principal.ts';
import type { Logger } from '../../observability/logger.ts';
import type { RequestEvent } from '../context.ts';

/** What one request carries through the house. */
interface Carried {
  requestId: string;
  event: RequestEvent;
  principal?: Principal;
}

export function carriedBy(res: Response): Carried {
  return res.locals as Carried;
}

/** Gives the request its id and its one event, which is written when the answer is out or the caller is gone. */
export function begin(logger: Logger): RequestHandler {
  return (req: Request, res: Response, next: NextFunction) => {
    const startedAtMs = performance.now();
    const carried = carriedBy(res);
    carried.requestId = randomUUID();
    carried.event = {
      requestId: carried.requestId,
      method: req.method,
      protocol: req.httpVersionMajor === 2 ? 'h2' : 'h1',
    };
    res.setHeader('x-request-id', carried.requestId);
    res.setHeader('cache-control', 'no-store');
    res.once('close', () => {
      const durationMs = Math.round(performance.now() - startedAtMs);
      logger.info('request', {
        ...carried.event,
        status: res.statusCode,
        durationMs,
        complete: res.writableEnded,
      });
    });
    next();
  };
}

/** Fires when the caller is gone before the answer was complete. On HTTP/2 `writableFinished` is true for an aborted stream too; `writableEnded` is not. */
export function goneSignal(res: Response): AbortSignal {
  const gone = new AbortController();
  res.once('close', () => {
    if (!res.writableEnded) gone.abort();
  });
  if (res.destroyed) gone.abort();
  return gone.signal;
}
