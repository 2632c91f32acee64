import type { Mutant } from '../../scripts/mutants/mutant.ts';

const RESOLVE = 'src/credentials/resolve.ts';
const ENVELOPE = 'src/credentials/envelope.ts';
const SESSIONS = 'src/credentials/sessions.ts';

/** Which keys sign a call, and how they are kept. */
export const CREDENTIALS: readonly Mutant[] = [
  {
    name: 'Nothing is opened for a right that is only remembered.',
    file: 'src/credentials/resolve.ts',
    find: 'if (!held) await mayAsk();',
    replace: '',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'What is evicted while it is opened leaves no copy.',
    file: 'src/credentials/opened-cache.ts',
    find: 'if (this.#cache.has(name)) this.#copies',
    replace: 'this.#copies',
    test: 'test/unit/opened-cache.test.ts',
  },
  {
    name: "A stored credential that cannot be opened is an error, and never replaced by the service's own account.",
    file: RESOLVE,
    find: 'vault.open(actor, merchant.id, credentialId, version);',
    replace:
      'vault.open(actor, merchant.id, credentialId, version).catch(() => this.#parts.serviceDefault?.accessKey as never);',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: "A session that does not open is an error, and never replaced by the service's own account.",
    file: RESOLVE,
    find: 'sessions.open(session, request.principal);',
    replace:
      "sessions.open(session, request.principal).catch(() => ({ ...this.#parts.serviceDefault, accountId: '' }) as never);",
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'Direct keys are used only after AWS has said whose they are.',
    file: RESOLVE,
    find: "this.#askWhose(request, 'direct', accessKey, region),",
    replace:
      "this.#askWhose(request, 'direct', accessKey, region).catch(() => ({ accountId: '100000000001' }) as never),",
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'What AWS said of direct keys is not believed of the same key id with another secret.',
    file: RESOLVE,
    find: '`${poolKey}/${region}`',
    replace: '`${accessKey.accessKeyId}/${region}`',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'A request that names no credential is refused where the merchant has no default one.',
    file: RESOLVE,
    find: 'return this.#stored(request, defaultOf(merchant));',
    replace:
      'return merchant.defaultCredentialId === undefined ? this.#service(request) : this.#stored(request, defaultOf(merchant));',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: "No key is touched when the caller's merchant is not the merchant of the request.",
    file: RESOLVE,
    find: 'if (principal.merchantId !== merchant.id)',
    replace: 'if (principal.merchantId === undefined)',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'Direct credentials and sessions are off until an operator turns them on.',
    file: RESOLVE,
    find: 'if (merchant.directAllowed) return;',
    replace: 'if (merchant.id !== undefined) return;',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: "The service's own account is closed to a merchant until an operator opens it.",
    file: RESOLVE,
    find: 'if (!merchant.serviceDefaultsAllowed)',
    replace: 'if (merchant.id === undefined)',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'A merchant that is limited to some regions gets no other.',
    file: 'src/credentials/region-rule.ts',
    find: 'if (allowed.includes(wanted)) return wanted;',
    replace: 'if (enabled.includes(wanted)) return wanted;',
    test: 'test/unit/resolve.test.ts',
  },
  {
    name: 'A request that names two credentials is refused, and none is preferred.',
    file: 'src/domain/credential-choice.ts',
    find: 'if (sources.size > 1) {',
    replace: 'if (sources.size > 99) {',
    test: 'test/unit/credential-choice.test.ts',
  },
  {
    name: 'A credential in the body and one in a header are two choices.',
    file: 'src/http/mount.ts',
    find: "if (fromHeaders.kind === 'merchant-default') return fromBody;",
    replace: "if (fromHeaders.kind !== 'direct') return fromBody;",
    test: 'test/server/three-ways.test.ts',
    testName: 'a choice that is not exactly one',
  },
  {
    name: 'A misspelt credential header is an error and not "no choice".',
    file: 'src/domain/credential-choice.ts',
    find: /if \(field === undefined\)\s+throw invalid\([^;]+;/,
    replace: 'if (field === undefined) continue;',
    test: 'test/unit/credential-choice.test.ts',
  },
  {
    name: 'A deleted credential is evicted from memory at once.',
    file: 'src/credentials/vault.ts',
    find: 'opened.evict(merchantId, credentialId);',
    replace: '',
    test: 'test/contract/vault.test.ts',
    testName: 'deletion',
  },
  {
    name: 'Every opening of a stored secret is recorded.',
    file: 'src/credentials/credential-store.ts',
    find: "await appendAudit(tx, merchantId, entry(actor, 'credential.opened', credentialId, { version }));",
    replace: '',
    test: 'test/contract/vault.test.ts',
    testName: 'the record of an opening comes first',
  },
  {
    name: 'A secret that was sealed for one merchant opens for no other.',
    file: ENVELOPE,
    find: "'merchant_id', 'credential_id'",
    replace: "'credential_id'",
    test: 'test/unit/envelope.test.ts',
    testName: 'an envelope is refused',
  },
  {
    name: 'The associated data of an envelope is injective: text cannot move from one field to the next.',
    file: ENVELOPE,
    find: 'return Buffer.concat([uint32(bytes.length), bytes]);',
    replace: 'return bytes;',
    test: 'test/unit/envelope.test.ts',
  },
  {
    name: 'An envelope opens under one data key only: its commitment is compared.',
    file: ENVELOPE,
    find: 'if (!timingSafeEqual(commitment, parts.commitment))',
    replace: 'if (commitment.length !== parts.commitment.length)',
    test: 'test/unit/envelope.test.ts',
    testName: 'an envelope is refused',
  },
  {
    name: 'Every byte of an envelope counts: one with more at its end is refused.',
    file: ENVELOPE,
    find: 'if (envelope.length !== FIXED_BYTES + length)',
    replace: 'if (envelope.length < FIXED_BYTES + length)',
    test: 'test/unit/envelope.test.ts',
    testName: 'an envelope is refused',
  },
  {
    name: 'A session ends when it says so.',
    file: SESSIONS,
    find: 'currentDate: new Date(this.#options.clock.now()),',
    replace: 'currentDate: new Date(0),',
    test: 'test/unit/sessions.test.ts',
  },
  {
    name: 'A session is worthless to another API key.',
    file: SESSIONS,
    find: ' || payload.bearer !== bearerOf(principal)',
    replace: '',
    test: 'test/unit/sessions.test.ts',
  },
  {
    name: 'A session is worthless to another merchant.',
    file: SESSIONS,
    find: 'payload?.merchant !== principal.merchantId',
    replace: 'payload === undefined',
    test: 'test/unit/sessions.test.ts',
  },
  {
    name: 'A session is sealed in one way only: what another recipe made under our key is not one.',
    file: SESSIONS,
    find: 'contentEncryptionAlgorithms: [ALGORITHMS.enc],',
    replace: '',
    test: 'test/unit/sessions.test.ts',
  },
];
