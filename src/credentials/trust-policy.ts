import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { sessionTagsOf } from './role.ts';

/** An IAM policy document. */
export interface PolicyDocument {
  Version: '2012-10-17';
  Statement: readonly object[];
}

/** What the trust policy of a role is made for. */
export interface TrustAsk {
  merchantId: MerchantId;
  credentialId: CredentialId;
  externalId: string;
  /** Who assumes the role: this service. */
  principalArn: string;
}

/** The statement that lets this service in, and by which it proves for whom it comes. */
export function assumeStatement({ externalId, principalArn }: Pick<TrustAsk, 'externalId' | 'principalArn'>) {
  return {
    Sid: 'AssumeForOneMerchantOnly',
    Effect: 'Allow',
    Principal: { AWS: principalArn },
    Action: 'sts:AssumeRole',
    Condition: { StringEquals: { 'sts:ExternalId': externalId } },
  };
}

/** Tags have a statement of their own: it allows nothing without the other, and holds them to this merchant and credential. */
export function trustPolicy(ask: TrustAsk): PolicyDocument {
  const tags = Object.entries(sessionTagsOf(ask.merchantId, ask.credentialId));
  return {
    Version: '2012-10-17',
    Statement: [
      assumeStatement(ask),
      {
        Sid: 'TagSessionsWithTheMerchant',
        Effect: 'Allow',
        Principal: { AWS: ask.principalArn },
        Action: 'sts:TagSession',
        Condition: {
          StringEquals: Object.fromEntries(tags.map(([key, value]) => [`aws:RequestTag/${key}`, value])),
        },
      },
    ],
  };
}
