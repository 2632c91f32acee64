import { integer, setting } from './setting.ts';
import type { Setting } from './setting.ts';

/** How much this process takes at one time, of all and of one merchant. Part of SETTINGS. */
export const CAPACITY_SETTINGS = {
  wireBodyBytesMax: setting(
    'WIRE_BODY_BYTES_MAX',
    "Bytes. Largest body on AWS-shaped routes; 25,000,000 is Bedrock's own limit.",
    integer(1_024, 25_000_000),
    '25000000',
  ),
  jsonBodyBytesMax: setting(
    'JSON_BODY_BYTES_MAX',
    'Bytes. Largest body on our JSON routes.',
    integer(1_024, 25_000_000),
    '1048576',
  ),
  inFlightBodyBytesMax: setting(
    'IN_FLIGHT_BODY_BYTES_MAX',
    'Bytes. Sum of all bodies held at one time; more is answered 503.',
    integer(1_024, 100_000_000_000),
    '268435456',
  ),
  inFlightBodySharePercent: setting(
    'IN_FLIGHT_BODY_SHARE_PERCENT',
    'Percent of IN_FLIGHT_BODY_BYTES_MAX that the bodies of one merchant may have, but always one of the largest; more is answered 429.',
    integer(1, 100),
    '25',
  ),
  bodyTimeoutMs: setting(
    'BODY_TIMEOUT_MS',
    'Milliseconds. Longest upload of a body.',
    integer(100, 600_000),
    '60000',
  ),
  connectionsMax: setting(
    'CONNECTIONS_MAX',
    'Sockets that may be open to us.',
    integer(1, 1_000_000),
    '10000',
  ),

  callsInFlightMax: setting(
    'CALLS_IN_FLIGHT_MAX',
    'Paid calls in flight in this process, streams until their end. Beyond it calls wait, and merchants take turns. No more than UPSTREAM_SOCKETS_MAX, where turns end.',
    integer(1, 100_000),
    '1024',
  ),
  callsInFlightSharePercent: setting(
    'CALLS_IN_FLIGHT_SHARE_PERCENT',
    'Percent of CALLS_IN_FLIGHT_MAX that one merchant may have; the rest stays free for others. At 50, two merchants with long streams can hold all places.',
    integer(1, 100),
    '50',
  ),
  callsWaitingMax: setting(
    'CALLS_WAITING_MAX',
    'Calls of one merchant that may wait for a place; more are answered 429 or 503 at once.',
    integer(0, 100_000),
    '50',
  ),
  callsWaitMs: setting(
    'CALLS_WAIT_MS',
    'Milliseconds. The longest that a call waits for a place.',
    integer(0, 60_000),
    '2000',
  ),

  upstreamSocketsMax: setting(
    'UPSTREAM_SOCKETS_MAX',
    'Sockets to AWS per host. A call beyond them waits.',
    integer(1, 100_000),
    '1024',
  ),
} as const satisfies Record<string, Setting<unknown>>;
