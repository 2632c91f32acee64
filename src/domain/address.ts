import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';

/** IPv4 addresses that are not of the public internet (IANA's special-purpose registry), and 6to4's relays. */
const SPECIAL_V4: readonly (readonly [network: string, prefix: number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.31.196.0', 24],
  ['192.52.193.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['192.175.48.0', 24],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
  // A public address by its number, but the metadata and health endpoint of every virtual machine at Azure.
  ['168.63.129.16', 32],
];

/** Of IPv6 only global unicast (2000::/3) is public; these are what is special within it: Teredo and its kin, documentation, 6to4, AS112, SRv6. */
const GLOBAL_V6: readonly [network: string, prefix: number] = ['2000::', 3];
const SPECIAL_V6: readonly (readonly [network: string, prefix: number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['2620:4f:8000::', 48],
  ['3fff::', 20],
];

const special = new BlockList();
for (const [network, prefix] of SPECIAL_V4) special.addSubnet(network, prefix, 'ipv4');
for (const [network, prefix] of SPECIAL_V6) special.addSubnet(network, prefix, 'ipv6');
const globalV6 = new BlockList();
globalV6.addSubnet(...GLOBAL_V6, 'ipv6');

/** True for an IP address of the public internet. IPv4 inside of IPv6 (mapped, NAT64, 6to4) is not public, whatever it holds. */
export function isPublic(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !special.check(address, 'ipv4');
  if (family !== 6 || address.includes('%')) return false;
  return globalV6.check(address, 'ipv6') && !special.check(address, 'ipv6');
}

/** Networks that a VPC may use within itself. Not link-local: what answers there is the machine's own, such as its metadata. */
const withinVpc = new BlockList();
for (const [network, prefix] of [
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
] as const)
  withinVpc.addSubnet(network, prefix, 'ipv4');
withinVpc.addSubnet('fc00::', 7, 'ipv6');

function isWithinVpc(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && withinVpc.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

/** Where names of AWS may lead: `public`, `vpc` (or public), or `anywhere`, for a host that whoever runs the service has set. */
export type Reach = 'public' | 'vpc' | 'anywhere';

export function isWithinReach(address: string, reach: Reach): boolean {
  return reach === 'anywhere' || isPublic(address) || (reach === 'vpc' && isWithinVpc(address));
}

/** The rule for clients of AWS's: `endpoint` as it was set, if it was. */
export function reachOf(endpoint: string | undefined, privateNames = false): Reach {
  if (endpoint !== undefined) return 'anywhere';
  return privateNames ? 'vpc' : 'public';
}

/**
 * A lookup that fails when any address of a name is out of reach: whoever answers for the name could have the request, and its signature, sent to a
 * machine in here. The connection goes to the addresses that were looked at; nothing resolves the name a second time.
 */
export function guardedLookup(lookup: LookupFunction, reach: Reach): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, options, (error, found, family) => {
      const addresses = Array.isArray(found) ? found.map(({ address }) => address) : [found];
      const stray = error === null && !addresses.every((address) => isWithinReach(address, reach));
      callback(
        stray ? new Error('a name of AWS leads to an address that is not public') : error,
        found,
        family,
      );
    });
  };
}
