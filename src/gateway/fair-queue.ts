import { ServiceError } from '../domain/errors.ts';

export interface FairQueueOptions {
  /** Calls in flight in this process. */
  inFlightMax: number;
  /** Of them, those of one merchant. */
  inFlightPerMerchantMax: number;
  /** Calls of one merchant that wait; more are refused at once. */
  waitingPerMerchantMax: number;
  /** The longest that a call waits. Milliseconds. */
  waitMs: number;
  /** 0 (inclusive) to 1, for the spread of Retry-After. */
  random?: () => number;
}

/** A place among the calls in flight. */
export interface Place {
  /** Gives the place back; once, however often it is called. */
  leave(): void;
}

interface Waiter {
  admit: () => void;
}

interface Lane {
  readonly merchant: string;
  inFlight: number;
  /** In the order in which they came. */
  readonly waiting: Set<Waiter>;
}

/**
 * The door of paid calls: a merchant has a bounded part of the calls in flight and a bounded line before them, and free places go to
 * the merchants in turn, not to who asks most (deficit round robin, with equal weights and each call of cost one). It knows no I/O: a call
 * that finds a place costs two look-ups, one that must wait a timer.
 */
export class FairQueue {
  readonly #options: FairQueueOptions;
  readonly #lanes = new Map<string, Lane>();
  /** Lanes that could use a free place, the next one first. */
  readonly #ready = new Set<Lane>();
  #inFlight = 0;

  constructor(options: FairQueueOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Merchants with a call in flight or waiting; of others nothing is kept. */
  get merchants(): number {
    return this.#lanes.size;
  }

  /**
   * Waits for a place.
   * @throws ServiceError limit.share_exceeded when the merchant's own calls are in the way, service.overloaded when those of all are,
   *   request.aborted when the caller left.
   */
  enter(merchant: string, callerGone: AbortSignal): Promise<Place> {
    const lane = this.#lanes.get(merchant) ?? { merchant, inFlight: 0, waiting: new Set() };
    if (lane.waiting.size === 0 && this.#hasRoom(lane)) {
      this.#lanes.set(merchant, lane);
      return Promise.resolve(this.#take(lane));
    }
    if (lane.waiting.size >= this.#options.waitingPerMerchantMax) return Promise.reject(this.#refusal(lane));
    if (callerGone.aborted) return Promise.reject(left());
    this.#lanes.set(merchant, lane);
    return this.#wait(lane, callerGone);
  }

  #wait(lane: Lane, callerGone: AbortSignal): Promise<Place> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        callerGone.removeEventListener('abort', onGone);
        lane.waiting.delete(waiter);
      };
      const giveUp = (error: ServiceError): void => {
        end();
        this.#sort(lane);
        reject(error);
      };
      const onGone = (): void => {
        giveUp(left());
      };
      const waiter: Waiter = {
        admit: () => {
          end();
          resolve(this.#take(lane));
        },
      };
      const timer = setTimeout(() => {
        giveUp(this.#refusal(lane));
      }, this.#options.waitMs);
      callerGone.addEventListener('abort', onGone, { once: true });
      lane.waiting.add(waiter);
      this.#sort(lane);
    });
  }

  #take(lane: Lane): Place {
    lane.inFlight += 1;
    this.#inFlight += 1;
    let held = true;
    return {
      leave: () => {
        if (!held) return;
        held = false;
        lane.inFlight -= 1;
        this.#inFlight -= 1;
        this.#sort(lane);
        this.#admitNext();
      },
    };
  }

  #admitNext(): void {
    for (const lane of this.#ready) {
      if (this.#inFlight >= this.#options.inFlightMax) return;
      const [waiter] = lane.waiting;
      // To the end of the turn, if it still could use one.
      this.#ready.delete(lane);
      waiter?.admit();
      this.#sort(lane);
    }
  }

  /** Puts a lane where it belongs after a change of it. */
  #sort(lane: Lane): void {
    if (lane.waiting.size === 0 || lane.inFlight >= this.#options.inFlightPerMerchantMax)
      this.#ready.delete(lane);
    else this.#ready.add(lane);
    if (lane.waiting.size === 0 && lane.inFlight === 0) this.#lanes.delete(lane.merchant);
  }

  #hasRoom(lane: Lane): boolean {
    const { inFlightMax, inFlightPerMerchantMax } = this.#options;
    return this.#inFlight < inFlightMax && lane.inFlight < inFlightPerMerchantMax;
  }

  #refusal(lane: Lane): ServiceError {
    const { inFlightPerMerchantMax: max, random = Math.random } = this.#options;
    // Spread, so that those refused together do not come back together.
    const retryAfterSeconds = 1 + Math.floor(random() * 3);
    if (lane.inFlight >= max)
      return new ServiceError(
        'limit.share_exceeded',
        `This merchant has ${String(max)} calls in flight here, as many as one merchant may, and too many waiting. Nothing was called.`,
        { retryAfterSeconds, limit: { name: 'callsInFlightShare', max, used: lane.inFlight } },
      );
    return new ServiceError(
      'service.overloaded',
      'This replica has as many calls in flight as it can, of many merchants. Nothing was called. Try again shortly.',
      { retryAfterSeconds },
    );
  }
}

function left(): ServiceError {
  return new ServiceError(
    'request.aborted',
    'The caller left while the call was waiting. Nothing was called.',
  );
}
