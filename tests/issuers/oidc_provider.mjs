// An authorization server of panva's oidc-provider: node oidc_provider.mjs FOLDER PORT, where FOLDER has node_modules.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, port] = process.argv.slice(2);
const module = createRequire(`${folder}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(module));

const issuer = `http://127.0.0.1:${port}`;
const client = (client_id, more) => ({ client_id, client_secret: `secret-of-${client_id}`, redirect_uris: [], response_types: [], ...more });

const provider = new Provider(issuer, {
  clients: [
    client('etl', { grant_types: ['client_credentials'] }),
    client('web', {
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['https://web.example/callback'],
    }),
  ],
  scopes: ['openid', 'read', 'write'],
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // Without this function every request for a resource is refused; without accessTokenFormat tokens are opaque.
      getResourceServerInfo: (ctx, resource) => ({ scope: 'read write', audience: resource, accessTokenFormat: 'jwt' }),
    },
  },
});

provider.listen(Number(port), '127.0.0.1');
