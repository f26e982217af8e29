// Passkeys: asks the browser what a form's `data-options` say, and sends its answer with that form.

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const described = (list) => list?.map((each) => ({ ...each, id: bytes(each.id) }));
let waiting = null; // one question at a time: a second one ends the first

function read(options) {
  const publicKey = { ...options, challenge: bytes(options.challenge) };
  if (options.user) publicKey.user = { ...options.user, id: bytes(options.user.id) };
  if (options.allowCredentials) publicKey.allowCredentials = described(options.allowCredentials);
  if (options.excludeCredentials) publicKey.excludeCredentials = described(options.excludeCredentials);
  return publicKey;
}

function write(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
}

async function ask(form, mediation) {
  waiting?.abort();
  waiting = new AbortController();
  const asked = { publicKey: read(JSON.parse(form.dataset.options)), signal: waiting.signal };
  if (mediation) asked.mediation = mediation;
  const kind = asked.publicKey.user ? "create" : "get";
  form.elements.credential.value = write(await navigator.credentials[kind](asked));
  form.submit();
}

function tell(form, error) {
  const told = form.querySelector("[data-error]");
  told.textContent =
    error.name === "InvalidStateError"
      ? "This device has a passkey for this account already."
      : "That did not work, or it was cancelled. Try again, or use another way.";
  told.hidden = false;
}

async function offer(form) {
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form).catch((error) => tell(form, error));
  });
  const { conditional } = form.dataset;
  if (conditional && (await PublicKeyCredential.isConditionalMediationAvailable?.())) {
    ask(form, "conditional").catch(() => {}); // nobody asked for it yet: the button is there, and says so
  }
}

if (window.PublicKeyCredential) document.querySelectorAll("form[data-options]").forEach(offer);
