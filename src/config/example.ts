import { SECRET_SETTINGS } from './secret-settings.ts';
import type { AnySetting } from './setting.ts';
import { SETTINGS } from './settings.ts';

const HEAD = `# Every setting of the service. Copy to .env and fill in what is not commented out.
# Layers: defaults, then the YAML or JSON file that CONFIG_FILE names (same settings, camelCase), then the environment.
# Written by \`npm run docs\` from src/config; a test holds the two equal.

# Optional path of a config file. Secrets never go into it.
#CONFIG_FILE=
`;

/** The text of .env.example: required settings are open, those with a default or optional ones are commented out. */
export function envExample(): string {
  const secrets = Object.values(SECRET_SETTINGS).map((setting) => describe(setting, 'secret'));
  const settings = Object.values(SETTINGS).map((setting) => describe(setting));
  return [
    HEAD,
    '# --- Secrets. Each may come from a file instead: NAME_FILE=/path ---\n',
    ...secrets,
    '# --- Settings ---\n',
    ...settings,
  ].join('\n');
}

function describe(setting: AnySetting, kind?: 'secret'): string {
  const required = setting.fallback === undefined && setting.optional !== true;
  const about = `# ${setting.about}${required ? ' Required.' : ''}`;
  const value = kind === 'secret' ? '' : (setting.fallback ?? '');
  return `${about}\n${required ? '' : '#'}${setting.env}=${value}\n`;
}
