import pg from 'pg';
import { operatorOf } from './people.ts';
import type { TestService } from './service.ts';

/** Puts a merchant on a plan of its own, as an operator does over REST. */
export async function setPlan(
  service: TestService,
  merchantId: string,
  spec: Record<string, unknown>,
): Promise<void> {
  const operator = operatorOf(service);
  const made = await operator.post('/api/ops/plans', { id: `of-${merchantId}`, spec });
  if (made.status !== 201) throw new Error(`plan: ${made.text}`);
  const put = await operator.send('PATCH', `/api/ops/merchants/${merchantId}`, { plan: `of-${merchantId}` });
  if (put.status !== 200) throw new Error(`merchant: ${put.text}`);
}

/** A price for the models that tests call, in US dollars per million tokens of input and output. */
export async function setPrice(
  service: TestService,
  modelId: string,
  price: { input: number; output: number },
): Promise<void> {
  await withAdmin(service, async (admin) => {
    await admin.query(
      `INSERT INTO prices (model_id, region, profile, tier, valid_from, input, output, context_tokens, max_output_tokens, source, source_date, imported_by)
       VALUES ($1, '*', 'in-region', 'standard', '2026-01-01', $2, $3, 200000, 8192, 'test', '2026-01-01', 'test')`,
      [modelId, price.input * 1e9, price.output * 1e9],
    );
  });
}

/** What `ledger_differences` finds for a merchant: nothing, always. */
export function differencesOf(
  service: Pick<TestService, 'database'>,
  merchantId: string,
): Promise<unknown[]> {
  return withAdmin(service, async (admin) => {
    await admin.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchantId]);
    return (await admin.query('SELECT * FROM ledger_differences()')).rows;
  });
}

export async function withAdmin<T>(
  service: Pick<TestService, 'database'>,
  work: (admin: pg.Client) => Promise<T>,
): Promise<T> {
  const admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}
