import { SignJWT } from 'jose';

/** What a service is configured with that accepts the tokens of `signJwt`. */
export const JWT_SETTINGS = {
  JWT_ALGORITHM: 'HS256',
  JWT_ISSUER: 'https://issuer.example',
  JWT_AUDIENCE: 'merchant-bedrock',
  JWT_SECRET: 'a shared secret of at least 32 characters',
};

/** By so much a clock may differ; seconds (src/auth/jwt.ts). */
const TOLERANCE = 30;

/** The token of a merchant's user. @param lasts how long it is taken, of which its own expiry says less; default: five minutes. Seconds */
export function signJwt(merchantId: string, scope: string, lasts = 300): Promise<string> {
  return new SignJWT({ merchant_id: merchantId, scope })
    .setProtectedHeader({ alg: JWT_SETTINGS.JWT_ALGORITHM })
    .setIssuer(JWT_SETTINGS.JWT_ISSUER)
    .setAudience(JWT_SETTINGS.JWT_AUDIENCE)
    .setSubject('user-1')
    .setIssuedAt()
    .setExpirationTime(Math.floor(Date.now() / 1_000) + lasts - TOLERANCE)
    .sign(new TextEncoder().encode(JWT_SETTINGS.JWT_SECRET));
}
