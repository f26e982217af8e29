// node-oidc-provider: client_credentials, secrets by HTTP Basic, one process, NODE_ENV=production. Called as:
// node server.mjs PORT SECRET KEEPING [FILE], where KEEPING is what is kept of a grant.
//   memory  the library's own store. Of ES256 access tokens (JWT) it keeps nothing, and the client is a constant.
//   durable ES256 access tokens; the client is a row, and each issued token is one before it is answered.
//   opaque  the same with opaque tokens, which the library itself stores before it answers: no signature.
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";
import { Store, adapterOf } from "./sqlite_adapter.mjs";

const [port, secret, keeping, file] = process.argv.slice(2);
const resource = "http://127.0.0.1/api";
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const client = {
  client_id: "bench", client_secret: secret, grant_types: ["client_credentials"], redirect_uris: [],
  response_types: [], token_endpoint_auth_method: "client_secret_basic", id_token_signed_response_alg: "ES256",
};
const store = keeping === "memory" ? null : new Store(file);
const token = keeping === "opaque"
  ? { accessTokenFormat: "opaque" } : { accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } };

await store?.write("Client", client.client_id, client);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  ...(store ? { adapter: adapterOf(store) } : { clients: [client] }),
  jwks: { keys: [{ ...key, use: "sig", alg: "ES256", kid: "one" }] },
  scopes: ["read"],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: "read", audience: resource, accessTokenTTL: 300, ...token }),
    },
  },
});

if (keeping === "durable") {
  // The library tells of a JWT and does not wait; the answer does, for the row to be on the disk.
  const written = new WeakMap();
  provider.on("client_credentials.issued", (issued) => {
    const { jti, clientId, scope, aud } = issued;
    written.set(Provider.ctx, store.write("Issued", jti, { jti, clientId, scope, aud, at: Date.now() }));
  });
  provider.use(async (ctx, next) => {
    await next();
    await written.get(ctx);
  });
}
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
