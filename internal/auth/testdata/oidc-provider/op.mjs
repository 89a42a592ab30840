// An OAuth server for tests, on loopback only: every refresh replaces the refresh token, and using an old one ends the
// whole sign-in, which is stricter than Entra. It prints its port, and ends with its standard input.
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const server = createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const { port } = server.address();
const ttl = Number(process.env.TTL || 60);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    { client_id: 'byo', client_secret: 's3cret', token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'], application_type: 'native',
      redirect_uris: ['http://127.0.0.1/callback'], response_types: ['code'] },
    { client_id: 'public', token_endpoint_auth_method: 'none', application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: ['http://127.0.0.1/callback'], response_types: ['code'] },
    ...(process.env.CERT_JWK ? [{ client_id: 'cert', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'PS256',
      grant_types: ['client_credentials'], redirect_uris: [], response_types: [], jwks: { keys: [JSON.parse(process.env.CERT_JWK)] } }] : []),
  ],
  scopes: ['openid', 'offline_access', 'profile', 'email', 'Mail.Read', 'Mail.Read.Shared'],
  claims: { openid: ['sub'], profile: ['preferred_username'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: ttl, RefreshToken: 3600, AuthorizationCode: 60, DeviceCode: Number(process.env.DEVICE_TTL || 600), ClientCredentials: ttl, IdToken: 600, Interaction: 600, Session: 600, Grant: 3600 },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true }, clientCredentials: { enabled: true }, revocation: { enabled: true } },
  issueRefreshToken: async (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id, preferred_username: `${id}@example.com` }) }),
  cookies: { keys: ['test-only'] },
});
server.on('request', provider.callback());
process.stdin.on('end', () => process.exit(0)).resume();
console.log(`port ${port}`);
