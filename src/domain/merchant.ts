import type { CredentialId, MerchantId } from './ids.ts';

/** A tenant. Direct credentials and the service's own account are off unless an operator turned them on. */
export interface Merchant {
  id: MerchantId;
  name: string;
  status: 'active' | 'suspended' | 'closed';
  directAllowed: boolean;
  serviceDefaultsAllowed: boolean;
  /** Regions this merchant may use; empty means every region the service has enabled. */
  regions: readonly string[];
  /** Used when a request names no credential. */
  defaultCredentialId?: CredentialId;
}
