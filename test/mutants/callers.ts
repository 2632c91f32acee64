import type { Mutant } from '../../scripts/mutants/mutant.ts';

const PERMISSIONS = 'src/auth/permissions.ts';
const JWT = 'src/auth/jwt.ts';
const TOKEN_HASH = 'src/auth/token-hash.ts';
const JWKS = 'src/auth/jwks-out.ts';
const KEY_SET = 'test/unit/key-set.test.ts';
const API_KEYS = 'src/auth/api-keys.ts';
const AUTHENTICATE = 'src/http/steps/authenticate.ts';

/** Who is calling, for whom, and with which right. */
export const CALLERS: readonly Mutant[] = [
  {
    name: "A token opens its own merchant's routes and no other merchant's.",
    file: PERMISSIONS,
    find: ' || principal.merchantId !== merchantId',
    replace: '',
    test: 'test/unit/permissions.test.ts',
  },
  {
    name: "On every route it is the merchant of the path that is compared with the token's.",
    file: 'src/http/mount.ts',
    find: 'authorize(principal, { permission: route.permission, merchantId });',
    replace:
      "authorize(principal, { permission: route.permission, merchantId: principal.kind === 'merchant' ? principal.merchantId : merchantId });",
    test: 'test/server/matrix.test.ts',
  },
  {
    name: "An operator's token does not open a merchant's routes.",
    file: PERMISSIONS,
    find: "(principal.kind !== 'merchant' || principal.merchantId !== merchantId)",
    replace: "principal.kind === 'merchant' && principal.merchantId !== merchantId",
    test: 'test/unit/permissions.test.ts',
  },
  {
    name: "An operator's scope in a merchant's token opens nothing.",
    file: PERMISSIONS,
    find: "!forOperators || principal.kind === 'operator'",
    replace: 'principal.kind.length > 0',
    test: 'test/unit/permissions.test.ts',
  },
  {
    name: 'A token does only what its scopes say.',
    file: PERMISSIONS,
    find: '(principal.scopes as readonly Scope[]).includes(permission)',
    replace: 'principal.scopes.length >= 0',
    test: 'test/unit/permissions.test.ts',
  },
  {
    name: 'The merchant is compared before the scope: a token learns nothing of another merchant.',
    file: PERMISSIONS,
    find: '  if (!forOperators && (',
    replace:
      "  if (!(principal.scopes as readonly Scope[]).includes(permission))\n    throw new ServiceError('auth.insufficient_scope', 'scope', { extra: { scope: permission } });\n  if (!forOperators && (",
    test: 'test/unit/permissions.test.ts',
  },
  {
    name: 'A merchant that is suspended or closed is let in nowhere.',
    file: 'src/http/steps/load-merchant.ts',
    find: "if (merchant.status !== 'active')",
    replace: 'if (merchant.status === undefined)',
    test: 'test/server/matrix.test.ts',
  },
  {
    name: 'A merchant that does not exist is answered as one that is not for this token.',
    file: 'src/http/steps/load-merchant.ts',
    find: 'if (merchantId === undefined) throw merchantNotFound();',
    replace:
      "if (merchantId === undefined) throw new ServiceError('request.invalid', 'This is no merchant id.');",
    test: 'test/server/matrix.test.ts',
  },
  {
    name: 'A JWT is verified with the configured algorithm, whatever its header says.',
    file: JWT,
    find: 'algorithms: [options.algorithm],',
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'A JWT of another issuer is not accepted.',
    file: JWT,
    find: 'issuer: options.issuer,',
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'A JWT for another audience is not accepted.',
    file: JWT,
    find: 'audience: options.audience,',
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'A JWT without an expiry, or another of the claims that bind it, is not accepted.',
    file: JWT,
    find: "requiredClaims: ['exp', 'iat', 'sub', 'aud', 'iss'],",
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'A JWT that brings its own key, or points to one, is not accepted.',
    file: JWT,
    find: 'if (KEY_BEARING.some((name) => name in header)) return false;',
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'A key set is fetched over https, or from this machine.',
    file: JWKS,
    find: ' && LOOPBACK.has(hostname)',
    replace: '',
    test: 'test/unit/jwt.test.ts',
  },
  {
    name: 'Token hashes are compared in constant time.',
    file: TOKEN_HASH,
    find: 'timingSafeEqual(expected, hash)',
    replace: 'expected.equals(hash)',
    test: 'test/unit/token-hash.test.ts',
  },
  {
    name: 'An unknown token id costs as much as a known one.',
    file: TOKEN_HASH,
    find: 'const { hash, pepperVersion } = stored',
    replace: 'if (stored === undefined) return false;\n    const { hash, pepperVersion } = stored',
    test: 'test/unit/token-hash.test.ts',
  },
  {
    name: 'A token under a pepper that is gone is not accepted.',
    file: TOKEN_HASH,
    find: 'return equal && pepper !== undefined && stored !== undefined;',
    replace: 'return equal && stored !== undefined;',
    test: 'test/unit/token-hash.test.ts',
  },
  {
    name: 'What the database holds of a token cannot be compared without the pepper.',
    file: TOKEN_HASH,
    find: "createHmac('sha256', pepper.reveal())",
    replace: "createHmac('sha256', pepper.reveal().subarray(0, 0))",
    test: 'test/unit/token.test.ts',
  },
  {
    name: 'A revoked key is not accepted.',
    file: API_KEYS,
    find: 'key.revokedAt === null &&',
    replace: '',
    test: 'test/unit/token.test.ts',
  },
  {
    name: 'An expired key is not accepted.',
    file: API_KEYS,
    find: 'key.expiresAt.getTime() > this.#parts.clock.now()',
    replace: 'key.expiresAt.getTime() > 0',
    test: 'test/unit/api-keys.test.ts',
  },
  {
    name: 'A key of the test environment opens nothing in the live one.',
    file: API_KEYS,
    find: 'token?.environment !== this.#parts.environment',
    replace: 'token === undefined',
    test: 'test/unit/api-keys.test.ts',
  },
  {
    name: 'A key cannot be made and not recorded.',
    file: 'src/auth/api-key-store.ts',
    find: /await appendAudit\(tx, merchantId, \{(\s+actor: actor\.subject,\s+action: 'token\.created')/,
    replace: 'void ((..._: unknown[]) => undefined)(tx, merchantId, {$1',
    test: 'test/unit/api-keys-store.test.ts',
  },
  {
    name: 'A token in the query is refused, and never looked at.',
    file: AUTHENTICATE,
    find: 'const inQuery = hasTokenInQuery(req.url);',
    replace: 'const inQuery = hasTokenInQuery(req.url) && req.url.length < 1;',
    test: 'test/unit/authenticate.test.ts',
  },
  {
    name: 'Two Authorization headers are refused, and none is preferred.',
    file: AUTHENTICATE,
    find: "names.indexOf('authorization') === names.lastIndexOf('authorization')",
    replace: 'names.length > 0',
    test: 'test/unit/authenticate.test.ts',
  },
  {
    name: 'Development tokens are accepted only where the configuration says so.',
    file: 'src/auth/bearer.ts',
    find: 'return devTokens && token',
    replace: 'return token',
    test: ['test/unit/api-keys.test.ts', 'test/server/auth-table.test.ts'],
  },
  {
    name: 'A token is not taken for bad, and counted against its sender, because the keys of its issuer cannot be fetched.',
    file: JWT,
    find: 'if (error instanceof ServiceError) throw error;',
    replace: '',
    test: KEY_SET,
  },
  {
    name: 'A token of no key of an issuer that is well is bad, and counts, however many come.',
    file: JWKS,
    find: ' || this.#isYounger(COOLDOWN_MS)) throw error;',
    replace: ') throw error;',
    test: KEY_SET,
  },
  {
    name: 'Of a key id that is not in an old key set nobody says that there is no such key.',
    file: JWKS,
    find: 'return this.#keys(COOLDOWN_MS)(header, token);',
    replace: 'return this.#keys(KEPT_MS)(header, token);',
    test: KEY_SET,
  },
  {
    name: 'Keys that were fetched serve on while their issuer is away.',
    file: JWKS,
    find: 'return await this.#keys(KEPT_MS)(header, token);',
    replace: 'return await this.#keys(FRESH_MS)(header, token);',
    test: KEY_SET,
  },
  {
    name: 'Keys that were fetched serve for an hour at most.',
    file: JWKS,
    find: 'this.#isYounger(youngerThanMs)) return',
    replace: 'youngerThanMs > 0) return',
    test: KEY_SET,
  },
  {
    name: 'A key that its issuer removed serves for ten minutes at most while the issuer is there.',
    file: JWKS,
    find: 'if (!this.#isYounger(FRESH_MS)) await',
    replace: 'if (!this.#isYounger(KEPT_MS)) await',
    test: KEY_SET,
  },
  {
    name: 'Who has a known key does not wait for an issuer that was silent a moment ago.',
    file: JWKS,
    find: 'if (!isAway || !this.#isYounger(KEPT_MS)) await',
    replace: 'if (isAway || !this.#isYounger(0)) await',
    test: KEY_SET,
  },
  {
    name: 'An issuer that is away is asked once in five seconds.',
    file: JWKS,
    find: 'this.#fetching === undefined && isSoon',
    replace: 'this.#fetching === null && isSoon',
    test: [KEY_SET, 'test/unit/jwt.test.ts'],
  },
  {
    name: 'An outage of the key set is told once.',
    file: JWKS,
    find: 'if (!wasAway) onAway(error);',
    replace: 'onAway(error);',
    test: KEY_SET,
  },
  {
    name: 'A token is let in whose key others try with wrong secrets, whenever they do.',
    file: API_KEYS,
    find: "if (this.#parts.hasher.matches(token.secret, refused.hash)) return { key, seems: 'good' };",
    replace:
      "if (refused.until >= this.#parts.clock.now() && this.#parts.hasher.matches(token.secret, refused.hash)) return { key, seems: 'good' };",
    test: 'test/unit/failure-budget.test.ts',
  },
];
