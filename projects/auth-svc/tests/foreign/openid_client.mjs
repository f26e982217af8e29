// openid-client, unmodified, against a running AuthService: every flow it offers that we claim.
// Lines of JSON: {"open": url} asks the test to be the person, who answers with where the browser was sent;
// {"check": name, "error": text or null} tells how a check ended.
import { createInterface } from "node:readline/promises";
import * as client from "openid-client";

const [issuer, secret, callback] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (message) => console.log(JSON.stringify(message));
const insecure = { execute: [client.allowInsecureRequests] }; // http, on loopback alone
const SCOPE = "openid profile workflows:read";

async function beThePerson(url) {
  say({ open: url.href });
  return new URL((await lines.next()).value);
}

async function register(metadata, auth) {
  const wanted = { redirect_uris: [callback], scope: SCOPE, id_token_signed_response_alg: "ES256", ...metadata };
  return client.dynamicClientRegistration(new URL(issuer), wanted, auth, insecure);
}

async function begin(config, extra = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const checks = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() };
  const parameters = {
    redirect_uri: callback,
    scope: SCOPE,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state: checks.expectedState,
    nonce: checks.expectedNonce,
    ...extra,
  };
  return { parameters, checks };
}

async function signIn(config, { pushed = false, ...options } = {}) {
  const { parameters, checks } = await begin(config);
  const url = pushed
    ? await client.buildAuthorizationUrlWithPAR(config, parameters, options)
    : client.buildAuthorizationUrl(config, parameters);
  return client.authorizationCodeGrant(config, await beThePerson(url), checks, undefined, options);
}

function equal(got, wanted) {
  if (got !== wanted) throw new Error(`got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
}

async function usesItsTokens(config, tokens, options = {}) {
  const subject = tokens.claims().sub;
  equal((await client.fetchUserInfo(config, tokens.access_token, subject, options)).preferred_username, "admin");
  const fresh = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, options);
  equal(fresh.claims().sub, subject);
  return fresh;
}

const checks = {
  async "code, PKCE, nonce, user info, refresh"() {
    const config = await client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretBasic(secret), insecure);
    const fresh = await usesItsTokens(config, await signIn(config));
    equal((await client.tokenIntrospection(config, fresh.access_token)).active, true);
    await client.tokenRevocation(config, fresh.refresh_token);
    equal((await client.tokenIntrospection(config, fresh.access_token)).active, false);
  },
  async "client_secret_post"() {
    const config = await client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretPost(secret), insecure);
    await usesItsTokens(config, await signIn(config));
  },
  async "a pushed request"() {
    const config = await client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretBasic(secret), insecure);
    await usesItsTokens(config, await signIn(config, { pushed: true }));
  },
  async "DPoP with nonces, pushed and bound"() {
    const config = await register({ grant_types: ["authorization_code", "refresh_token"], token_endpoint_auth_method: "none" }, client.None());
    const options = { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256")) };
    const tokens = await signIn(config, { pushed: true, ...options });
    equal(tokens.token_type, "dpop");
    await usesItsTokens(config, tokens, options);
  },
  async "registration with private_key_jwt and RS256 ID tokens"() {
    const pair = await client.randomDPoPKeyPair("ES256", { extractable: true });
    const key = { ...(await crypto.subtle.exportKey("jwk", pair.publicKey)), kid: "one", use: "sig", alg: "ES256" };
    delete key.key_ops;
    delete key.ext;
    const metadata = {
      grant_types: ["authorization_code", "refresh_token"],
      token_endpoint_auth_method: "private_key_jwt",
      jwks: { keys: [key] },
      id_token_signed_response_alg: "RS256",
    };
    const config = await register(metadata, client.PrivateKeyJwt({ key: pair.privateKey, kid: "one" }));
    await usesItsTokens(config, await signIn(config));
  },
  async "ID tokens checked against the published keys"() {
    const config = await client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretBasic(secret), {
      execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
    });
    await usesItsTokens(config, await signIn(config));
  },
  async "the device grant"() {
    const config = await client.discovery(new URL(issuer), "evs-cli", { token_endpoint_auth_method: "none" }, client.None(), insecure);
    const device = await client.initiateDeviceAuthorization(config, { scope: SCOPE });
    say({ device: device.verification_uri_complete });
    await lines.next();
    await usesItsTokens(config, await client.pollDeviceAuthorizationGrant(config, device));
  },
  async "client credentials"() {
    const config = await register({ grant_types: ["client_credentials"], response_types: [], redirect_uris: [] }).then(
      () => { throw new Error("anybody may have client credentials"); },
      () => client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretBasic(secret), insecure),
    );
    await client.clientCredentialsGrant(config).then(
      () => { throw new Error("the GUI may have client credentials"); },
      (error) => equal(error.error, "unauthorized_client"),
    );
  },
  async "a refusal comes back as an error"() {
    const config = await client.discovery(new URL(issuer), "evs-gui", secret, client.ClientSecretBasic(secret), insecure);
    const { parameters, checks: expected } = await begin(config, { prompt: "none" });
    const back = await beThePerson(client.buildAuthorizationUrl(config, parameters));
    await client.authorizationCodeGrant(config, back, expected).then(
      () => { throw new Error("nobody was signed in"); },
      (error) => equal(error.error, "login_required"),
    );
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    say({ check: name, error: null });
  } catch (error) {
    say({ check: name, error: `${error.stack}\n${JSON.stringify(error.cause ?? null)}` });
  }
}
process.exit(0);
