import type { CredentialId, MerchantId } from './ids.ts';

/** A tenant. Direct credentials and the service's own account are off unless an operator turned them on. */
export interface Merchant {
  id: MerchantId;
  name: string;
  status: 'active' | 'suspended' | 'closed';
  /** The set of limits it is on, e.g. `open@1`. */
  plan: string;
  directAllowed: boolean;
  serviceDefaultsAllowed: boolean;
  /** Regions this merchant may use; empty means every region the service has enabled. */
  regions: readonly string[];
  /** Grows with every change. Admission compares it, so that what a replica remembers cannot outlive a change. */
  revision: number;
  /** Used when a request names no credential. */
  defaultCredentialId?: CredentialId;
}
