import type { Response } from 'express';
import { cutResponse } from './protocol.ts';

/**
 * Writes pieces as they come, no faster than the caller takes them. A caller that takes nothing for `stallTimeoutMs` is cut; leaving the loop
 * tells the source that nobody reads on.
 */
export async function writeStream(
  res: Response,
  pieces: AsyncIterable<Uint8Array | string>,
  stallTimeoutMs: number,
): Promise<void> {
  res.flushHeaders();
  for await (const piece of pieces) {
    if (isGone(res)) return;
    if (!res.write(piece) && !(await drained(res, stallTimeoutMs))) {
      if (!isGone(res)) cutResponse(res);
      return;
    }
  }
  if (!isGone(res)) res.end();
}

function isGone(res: Response): boolean {
  const { stream } = res as unknown as { stream?: { destroyed: boolean; closed: boolean } };
  return res.destroyed || res.closed || stream?.destroyed === true || stream?.closed === true;
}

/** True when the caller has taken what was written; false when it is gone or stalled. */
function drained(res: Response, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const finish = (taken: boolean) => {
      clearTimeout(timer);
      res.off('drain', onDrain).off('close', onClose);
      resolve(taken);
    };
    const onDrain = () => {
      finish(true);
    };
    const onClose = () => {
      finish(false);
    };
    const timer = setTimeout(onClose, timeoutMs);
    res.once('drain', onDrain).once('close', onClose);
    if (isGone(res)) onClose();
  });
}
