// node-oidc-provider with its in-memory store: client_credentials, secrets by HTTP Basic, ES256 access tokens as JWT.
// Nothing is written to a disk; there is no event of an issued token. NODE_ENV=production, one process.
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2]);
const resource = "http://127.0.0.1/api";
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "bench", client_secret: process.argv[3], grant_types: ["client_credentials"], redirect_uris: [],
    response_types: [], token_endpoint_auth_method: "client_secret_basic", id_token_signed_response_alg: "ES256",
  }],
  jwks: { keys: [{ ...key, use: "sig", alg: "ES256", kid: "one" }] },
  scopes: ["read"],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "read", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: 300, jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
