import { describe, expect, test } from '@jest/globals';
import { authorize, merchantNotFound } from '../../src/auth/permissions.ts';
import type { Demand } from '../../src/auth/permissions.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ApiKeyId, MerchantId } from '../../src/domain/ids.ts';
import { MERCHANT_SCOPES, OPERATOR_SCOPES } from '../../src/domain/principal.ts';
import type { MerchantScope, OperatorScope, Principal, Scope } from '../../src/domain/principal.ts';

const acme = 'acme' as MerchantId;
const other = 'other' as MerchantId;
const merchant = (scopes: readonly Scope[], merchantId = acme): Principal => ({
  kind: 'merchant',
  merchantId,
  subject: 'api-key:x',
  scopes: scopes as readonly MerchantScope[],
});
const operator = (scopes: readonly Scope[]): Principal => ({
  kind: 'operator',
  subject: 'operator:x',
  keyId: 'x' as ApiKeyId,
  scopes: scopes as readonly OperatorScope[],
});

function refusalOf(principal: Principal, demand: Demand): ServiceError | undefined {
  try {
    authorize(principal, demand);
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(ServiceError);
    return error as ServiceError;
  }
}

describe.each([...MERCHANT_SCOPES])('a merchant route that needs %s', (permission) => {
  const without = MERCHANT_SCOPES.filter((scope) => scope !== permission);

  test('lets in its merchant with that scope alone', () => {
    expect(refusalOf(merchant([permission]), { permission, merchantId: acme })).toBeUndefined();
  });

  test('refuses all the other scopes together, and says which is missing and what to do', () => {
    const refusal = refusalOf(merchant([...without, ...OPERATOR_SCOPES]), { permission, merchantId: acme });
    expect(refusal).toMatchObject({
      code: 'auth.insufficient_scope',
      options: { extra: { scope: permission } },
    });
    expect(refusal?.detail).toContain(permission);
    expect(refusal?.detail).toMatch(/have one made with it/);
  });

  test('is for another merchant what it is for none, before scopes are looked at', () => {
    for (const principal of [
      merchant(MERCHANT_SCOPES, other),
      merchant([], other),
      operator([...OPERATOR_SCOPES, ...MERCHANT_SCOPES]),
    ]) {
      const refusal = refusalOf(principal, { permission, merchantId: acme });
      expect(refusal).toMatchObject({ code: 'merchant.not_found', options: {} });
      expect(refusal?.detail).toBe(merchantNotFound().detail);
    }
  });

  test('without a merchant in the path opens to nobody', () => {
    expect(refusalOf(merchant(MERCHANT_SCOPES), { permission })?.code).toBe('merchant.not_found');
    expect(refusalOf(operator([permission]), { permission })?.code).toBe('merchant.not_found');
  });
});

describe.each([...OPERATOR_SCOPES])('an operators’ route that needs %s', (permission) => {
  test('lets in an operator with that scope alone', () => {
    expect(refusalOf(operator([permission]), { permission })).toBeUndefined();
  });

  test('refuses the other scopes', () => {
    const without = OPERATOR_SCOPES.filter((scope) => scope !== permission);
    expect(refusalOf(operator(without), { permission })).toMatchObject({
      code: 'auth.insufficient_scope',
      options: { extra: { scope: permission } },
    });
  });

  test('refuses a merchant, even one whose scopes were made up', () => {
    for (const scopes of [MERCHANT_SCOPES, [permission]])
      expect(refusalOf(merchant(scopes), { permission })?.code).toBe('auth.insufficient_scope');
  });
});
