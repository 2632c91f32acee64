import { describe, expect, test } from '@jest/globals';
import { mintToken } from '../../src/auth/token.ts';
import { replay, transcriptsIn } from './replay.ts';
import type { Stage } from './replay.ts';
import { runCommand } from './transcript.ts';

const STAGE: Stage = {
  names: {
    SECRET: 'CANARYkey7MDENGbPxRfiCYwJalrXUtnFEMI0123',
    BEDROCK_API_KEY: 'ABSKcanary7MDENGbPxRfiCYwJalrXUtnFEMI',
    OPERATOR_TOKEN: mintToken('operator', 'test').text,
    MERCHANT_TOKEN: mintToken('merchant', 'test').text,
  },
  secrets: ['SECRET', 'BEDROCK_API_KEY', 'OPERATOR_TOKEN', 'MERCHANT_TOKEN'],
};

describe('onboard, what it refuses before it asks anybody', () => {
  test.each(transcriptsIn('alone'))('%s', async (file) => {
    await replay(file, STAGE);
  });

  test('a document that is larger than any document of secrets', async () => {
    const args = ['--url', 'https://bedrock.example.com', '--merchant', 'acme', '--name', 'Acme'];
    const stdin = JSON.stringify({ operatorToken: 'x'.repeat(70_000) });
    const { code, stdout, stderr } = await runCommand(
      'scripts/onboard.ts',
      [...args, '--region', 'us-east-1', '--secrets-stdin'],
      { stdin },
    );
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('  - stdin holds more than a document of secrets would\n');
  });
});
