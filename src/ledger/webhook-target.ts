import { BlockList, isIP } from 'node:net';

/** Outside production a receiver may be `http://` on this machine, for tests and the demo. */
export interface TargetRules {
  plainLoopback: boolean;
}

const CHARACTERS_MAX = 2_048;

/**
 * Says what is wrong with an address that a merchant gives, or undefined. Never repeats it.
 * The host's own addresses are looked at when something is sent (`addressProblem`): a name can point elsewhere by then.
 */
export function urlProblem(text: string, rules: TargetRules): string | undefined {
  if (text.length > CHARACTERS_MAX) return `must have at most ${String(CHARACTERS_MAX)} characters`;
  if (!URL.canParse(text)) return 'must be an https URL';
  const url = new URL(text);
  return partsProblem(url) ?? placeProblem(url, rules);
}

function partsProblem(url: URL): string | undefined {
  if (`${url.username}${url.password}` !== '') return 'must hold no user or password';
  if (url.href.includes('#')) return 'must hold no fragment';
  const port = Number(url.port);
  return url.port === '' || port === 443 || port > 1_023 ? undefined : 'must have port 443 or one above 1023';
}

function placeProblem(url: URL, rules: TargetRules): string | undefined {
  const host = hostOf(url);
  const here = url.protocol === 'http:' && url.port !== '' && rules.plainLoopback && isLoopback(host);
  if (here) return undefined;
  if (url.protocol !== 'https:') return 'must be an https URL';
  return isIP(host) !== 0 && !isPublic(host) ? 'must be reachable from the internet' : undefined;
}

/** The host as DNS and TLS take it: IPv6 without brackets. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}

/** May something be sent to this address? `http://` goes to this machine only, everything else to the public internet only. */
export function isAllowedAddress(address: string, url: URL, rules: TargetRules): boolean {
  if (url.protocol === 'http:') return rules.plainLoopback && isLoopback(address);
  return url.protocol === 'https:' && isPublic(address);
}

function isLoopback(host: string): boolean {
  return host === '127.0.0.1' || host === '::1';
}

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
