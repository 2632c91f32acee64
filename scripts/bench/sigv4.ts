import { createHash, createHmac } from 'node:crypto';

export interface SigningKeys {
  accessKeyId: string;
  secretAccessKey: string;
  region: string;
}

export interface ToSign {
  method: string;
  host: string;
  /** As it goes over the wire, without a query. */
  path: string;
  contentType: string;
  body: Buffer;
}

const SERVICE = 'bedrock';
const SIGNED_HEADERS = 'content-type;host;x-amz-content-sha256;x-amz-date';

/** Signature Version 4 and nothing else: what a proxy has to do at the least. The day's signing key is derived once a day. */
export class Signer {
  readonly #keys: SigningKeys;
  #day = '';
  #key = Buffer.alloc(0);

  constructor(keys: SigningKeys) {
    this.#keys = keys;
  }

  /** The headers to send, without content-length. */
  sign({ method, host, path, contentType, body }: ToSign, now = new Date()): Record<string, string> {
    const at = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
    const day = at.slice(0, 8);
    const scope = `${day}/${this.#keys.region}/${SERVICE}/aws4_request`;
    const bodyHash = sha256(body);
    const canonical =
      `${method}\n${encodedAgain(path)}\n\ncontent-type:${contentType}\nhost:${host}\n` +
      `x-amz-content-sha256:${bodyHash}\nx-amz-date:${at}\n\n${SIGNED_HEADERS}\n${bodyHash}`;
    const signature = createHmac('sha256', this.#keyOf(day))
      .update(`AWS4-HMAC-SHA256\n${at}\n${scope}\n${sha256(canonical)}`)
      .digest('hex');
    return {
      host,
      'content-type': contentType,
      'x-amz-content-sha256': bodyHash,
      'x-amz-date': at,
      authorization: `AWS4-HMAC-SHA256 Credential=${this.#keys.accessKeyId}/${scope}, SignedHeaders=${SIGNED_HEADERS}, Signature=${signature}`,
    };
  }

  #keyOf(day: string): Buffer {
    if (day !== this.#day) {
      this.#day = day;
      this.#key = [day, this.#keys.region, SERVICE, 'aws4_request'].reduce(
        (key, part) => createHmac('sha256', key).update(part).digest(),
        Buffer.from(`AWS4${this.#keys.secretAccessKey}`),
      );
    }
    return this.#key;
  }
}

/** Every service but S3 signs the path encoded once more. */
function encodedAgain(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}
