import { randomBytes } from 'node:crypto';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type MerchantId = Branded<'MerchantId'>;
export type CredentialId = Branded<'CredentialId'>;
export type ApiKeyId = Branded<'ApiKeyId'>;
export type CallId = Branded<'CallId'>;
export type WebhookId = Branded<'WebhookId'>;

/** Anchored and linear. `~system` (the operators' audit chain) can never match it. */
export const MERCHANT_ID_PATTERN = /^[a-z0-9][a-z0-9-]{1,62}$/;
export const CREDENTIAL_ID_PATTERN = /^cred_[0-9A-Za-z]{22}$/;
export const API_KEY_ID_PATTERN = /^[0-9A-Za-z]{12}$/;
export const WEBHOOK_ID_PATTERN = /^wh_[0-9A-Za-z]{22}$/;

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/**
 * Draws `length` base62 characters from the system's CSPRNG (5.95 bits each).
 * Bytes of 248 and above are thrown away, so that every character is equally likely.
 */
export function randomBase62(length: number): string {
  let text = '';
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      if (byte < 248 && text.length < length) text += BASE62.charAt(byte % 62);
    }
  }
  return text;
}

/** Writes a non-negative integer in base62, left-padded with zeros to `length`. */
export function toBase62(value: number, length: number): string {
  let text = '';
  for (let rest = value; rest > 0; rest = Math.floor(rest / 62)) text = BASE62.charAt(rest % 62) + text;
  return text.padStart(length, '0');
}

/** Returns the id, or undefined when the text is not one. Never throws: callers choose the error. */
export function parseMerchantId(text: string): MerchantId | undefined {
  return MERCHANT_ID_PATTERN.test(text) ? (text as MerchantId) : undefined;
}

export function parseCredentialId(text: string): CredentialId | undefined {
  return CREDENTIAL_ID_PATTERN.test(text) ? (text as CredentialId) : undefined;
}

export function parseApiKeyId(text: string): ApiKeyId | undefined {
  return API_KEY_ID_PATTERN.test(text) ? (text as ApiKeyId) : undefined;
}

export function parseWebhookId(text: string): WebhookId | undefined {
  return WEBHOOK_ID_PATTERN.test(text) ? (text as WebhookId) : undefined;
}

export function newWebhookId(): WebhookId {
  return `wh_${randomBase62(22)}` as WebhookId;
}

/** 22 base62 characters: 131 random bits, so an id of another merchant cannot be guessed. */
export function newCredentialId(): CredentialId {
  return `cred_${randomBase62(22)}` as CredentialId;
}
