import type { Mutant } from '../../scripts/mutants/mutant.ts';

const SQL = 'prisma/migrations/20261121140000_webhooks/migration.sql';
const SENDER = 'src/ledger/webhook-sender-out.ts';
const DELIVERER = 'src/ledger/webhook-deliverer.ts';
const SECRETS = 'src/ledger/webhook-secrets.ts';
const GUARD = 'test/unit/egress-guard.test.ts';
const DELIVERY = 'test/server/webhooks.test.ts';

/** Alerts go out once raised, to whom the merchant named, and nowhere inside. */
export const WEBHOOKS: readonly Mutant[] = [
  {
    name: 'What one replica sends, no other takes until the lease ends.',
    file: SQL,
    find: 'next_at = clock_timestamp() + make_interval(secs => p_lease_seconds)',
    replace: 'next_at = o.next_at',
    test: DELIVERY,
    testName: 'who comes back after its lease writes nothing',
  },
  {
    name: 'An attempt that was given up does not write over the result of a later one.',
    file: SQL,
    find: 'AND d.lease = p_lease AND',
    replace: 'AND',
    test: DELIVERY,
    testName: 'who comes back after its lease writes nothing',
  },
  {
    name: 'A webhook gets the events that it named and no others.',
    file: 'prisma/migrations/20261121197000_keys/migration.sql',
    find: ' AND event_name = ANY (h.events)) AS w',
    replace: ') AS w',
    test: DELIVERY,
    testName: 'the outbox is filled in the transaction of the alert',
  },
  {
    name: "The ledger fills the outbox and sees no webhook's secret.",
    file: SQL,
    find: 'GRANT SELECT (merchant_id, id, state, events) ON webhooks TO merchant_bedrock_ledger;',
    replace: 'GRANT SELECT ON webhooks TO merchant_bedrock_ledger;',
    test: 'test/server/row-security.test.ts',
  },
  {
    name: 'A name of which one address is private is not called.',
    file: SENDER,
    find: '!addresses.every((address)',
    replace: '!addresses.some((address)',
    test: GUARD,
  },
  {
    name: 'The connection goes to the address that was checked, not to what the name says by then.',
    file: SENDER,
    find: 'this.#options.dial?.(address) ?? address',
    replace: 'this.#options.dial?.(host) ?? host',
    test: GUARD,
  },
  {
    name: 'IPv4 inside of IPv6 is not public.',
    file: 'src/domain/address.ts',
    find: 'return globalV6.check(address',
    replace: "return address.startsWith('::ffff:') || globalV6.check(address",
    test: GUARD,
  },
  {
    name: 'Where a redirect leads nobody is told, and the event is not taken as delivered.',
    file: DELIVERER,
    find: 'sent.status < 300)',
    replace: 'sent.status < 400)',
    test: DELIVERY,
    testName: 'errors, redirects, broken connections',
  },
  {
    name: 'The signature covers the time of the attempt.',
    file: SECRETS,
    find: '`${id}.${String(timestamp)}.${body}`',
    replace: '`${id}.${body}`',
    test: DELIVERY,
    testName: 'the secret is shown once',
  },
  {
    name: 'A signing secret opens for its webhook only.',
    file: SECRETS,
    find: '/${merchantId}/${webhookId}/${keyId',
    replace: '/${merchantId}/${keyId',
    test: DELIVERY,
    testName: 'open for their merchant and webhook only',
  },
  {
    name: 'A process that stops gives back what it was about to send.',
    file: DELIVERER,
    find: 'await this.#round?.catch(() => undefined);',
    replace: '',
    test: DELIVERY,
    testName: 'one that stops while it takes something',
  },
];
