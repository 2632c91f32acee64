import { isIP } from 'node:net';
import { isPublic } from '../domain/address.ts';

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
