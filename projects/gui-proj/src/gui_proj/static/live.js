// Keeps an open page true: one event stream per browser, and each page refetches its own regions in place.
// A region is `<… id="x" data-live="run:42 approvals">`; a change notice names topics. Without this file a
// reload does the same.

const FRAGMENT = { "Evs-Fragment": "1" };
const REFRESH_MS = 100; // at most ten refreshes a second, fewer where they take long; the first one at once
const session = document.body.dataset.session;
const policy = window.trustedTypes?.createPolicy("evs", { createHTML: (text) => text }) ?? { createHTML: (text) => text };
const banner = document.getElementById("connection");
const channel = new BroadcastChannel(`evs-live-${session}`);

// --- refreshing -----------------------------------------------------------------------------------------------

let nextRefresh = 0, timer = 0, busy = false, again = false;

const regions = () => [...document.querySelectorAll("[data-live][id]")];

/** @param {string[]} topics */
function changed(topics) {
  const wanted = (region) => region.dataset.live.split(" ").some((topic) => topics.includes(topic));
  if (topics.includes("*") || regions().some(wanted)) refreshSoon();
}

function refreshSoon() {
  if (document.hidden) { again = true; return; }
  if (busy) { again = true; return; }
  timer ||= setTimeout(refresh, Math.max(0, nextRefresh - performance.now()));
}

async function refresh() {
  timer = 0; busy = true; again = false;
  const began = performance.now();
  try {
    const answer = await fetch(location.href, { headers: FRAGMENT, cache: "no-store" });
    if (answer.status === 401) { leave(); return; }
    showConnection(answer.status < 500);
    if (answer.ok) replaceRegions(await answer.text());
  } catch {
    showConnection(false);
  } finally {
    busy = false;
    nextRefresh = began + Math.max(REFRESH_MS, 2 * (performance.now() - began));
    if (again && !document.hidden) refreshSoon();
  }
}

/** @param {string} html */
function replaceRegions(html) {
  replace(html, regions());
}

/** @param {string} html @param {Iterable<Element>} elements */
function replace(html, elements) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(html);
  for (const element of elements) {
    const fresh = template.content.getElementById(element.id);
    if (fresh) morph(element, fresh);
  }
  localise(document.body);
}

// --- morphing: the old nodes stay wherever they can, and with them focus, scroll, selection and open details ----

/** @param {Element} old @param {Element} fresh */
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const theirs = (name) => name === "open" && old.hasAttribute("data-keep"); // a person opened or closed it
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !theirs(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !theirs(name)) old.setAttribute(name, value);
  }
  if (old.matches("input, select, textarea")) return; // what a person typed is theirs
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    let found = wanted.id ? named.get(wanted.id) : place && !place.id && alike(place, wanted) ? place : null;
    if (!found) { old.insertBefore(wanted, place); continue; }
    if (found === place) place = place.nextSibling; else old.insertBefore(found, place);
    if (found.nodeType === Node.ELEMENT_NODE) morph(found, wanted);
    else if (found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

// --- one stream for all tabs: whoever holds the lock reads it and tells the others --------------------------------

function tell(notice) { channel.postMessage(notice); hear(notice); }

function hear(notice) {
  if (notice.bye) leave();
  else if ("connected" in notice) showConnection(notice.connected);
  else changed(notice.topics);
}

channel.onmessage = (message) => hear(message.data);

const LOCK = `evs-live-${session}`;

navigator.locks
  ? navigator.locks.request(LOCK, { ifAvailable: true }, (lock) => lock ? new Promise(lead) : follow())
  : lead(() => {});

function follow() {
  refreshSoon(); // what was told before this page could listen
  navigator.locks.request(LOCK, () => new Promise(lead));
}

function lead(resign) {
  const stream = new EventSource("/live");
  stream.onopen = () => tell({ connected: true });
  stream.addEventListener("change", (event) => { tell({ connected: true }); tell(JSON.parse(event.data)); });
  stream.addEventListener("down", () => tell({ connected: false }));
  stream.addEventListener("bye", () => { stream.close(); tell({ bye: true }); });
  stream.onerror = () => {
    tell({ connected: false });
    if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
    setTimeout(() => { refresh(); lead(resign); }, 2000);
  };
  addEventListener("pagehide", () => { stream.close(); resign(); }, { once: true });
}

// A page that comes back from the browser's history has no stream any more.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

let leaving = false;
function leave() {
  // A form that is on its way (signing out ends the stream, too) brings a page of its own: do not run over it.
  if (leaving || document.querySelector("form[data-sent]")) return;
  leaving = true;
  location.reload();
}

/** @param {boolean} connected */
function showConnection(connected) {
  clearTimeout(showConnection.timer);
  if (connected && navigator.onLine) banner.hidden = true;
  else showConnection.timer = setTimeout(() => { banner.hidden = false; }, 800); // a blink is not worth a word
}

// --- times, clocks, keys --------------------------------------------------------------------------------------------

const UNITS = [[172800, 86400, "d"], [3600, 3600, "h"], [60, 60, "min"], [5, 1, "s"]];

function distance(seconds, soon) {
  const size = Math.abs(seconds);
  const unit = UNITS.find(([least]) => size >= least);
  if (!unit) return soon;
  const words = `${Math.round(size / unit[1])} ${unit[2]}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

function localise(root) {
  for (const element of root.querySelectorAll("time[data-ago]")) {
    const moment = new Date(element.dateTime);
    const soon = element.dataset.ago === "ahead" ? "any moment" : "just now";
    const words = distance((Date.now() - moment) / 1000, soon);
    if (element.textContent !== words) element.textContent = words;
    element.title = moment.toLocaleString();
  }
  for (const element of root.querySelectorAll("time[data-local]")) {
    const words = clock(new Date(element.dateTime), element.dataset.local || undefined);
    if (element.textContent !== words) element.textContent = words;
  }
  for (const element of root.querySelectorAll("[data-zone-here]")) {
    element.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

/** A time on the clock of a zone, or of whoever looks. */
function clock(moment, timeZone) {
  const shown = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (moment.getUTCSeconds()) shown.second = "2-digit";
  try {
    return moment.toLocaleString("en-GB", { ...shown, timeZone });
  } catch {
    return ""; // a zone this browser does not know
  }
}

localise(document.body);
setInterval(() => { if (!document.hidden) localise(document.body); }, 5000);
setInterval(() => {
  if (document.querySelector("[data-every]") && !document.hidden) refreshSoon(); // a bar that still grows
}, 2000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshSoon(); });
addEventListener("online", refreshSoon);
addEventListener("offline", () => showConnection(false));
if (!navigator.onLine) showConnection(false);

// --- previews: what comes of what a person types, asked for as they type ---------------------------------------------

for (const fieldset of document.querySelectorAll("fieldset[data-preview]")) {
  let timer = 0, asked = 0;
  fieldset.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(preview, 250); });
  async function preview() {
    const mine = ++asked;
    const body = new URLSearchParams({ _csrf: fieldset.form.elements._csrf.value });
    for (const field of fieldset.elements) {
      if (field.name && (field.type !== "radio" || field.checked)) body.append(field.name, field.value);
    }
    const answer = await fetch(fieldset.dataset.preview, { method: "POST", headers: FRAGMENT, body }).catch(() => null);
    if (answer?.ok && mine === asked) replace(await answer.text(), [document.getElementById("preview")]);
  }
}

// A second press of a button that already sends must not send twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "1";
  setTimeout(() => delete form.dataset.sent, 3000);
});
