// The page at /ui: looks at one engine with one key, and changes nothing.
//
// Invariant: whatever comes from the engine is put into the page as text (textContent), never as markup, since guests and
// tenants choose it. The key lives in sessionStorage, so that it ends with the tab.
"use strict";

const MOST_SHOWN = 500;
const MOST_LINES = 100;
const ENDED_STAY_MS = 8000;
const COST_EVERY_MS = 4000;
const COSTS_AT_ONCE = 4;
const RETRY_MS = 2000;
const KEY = "brood.key";

const at = (id) => document.getElementById(id);
/** Whose key it is. */
let tenant = "";
let key = sessionStorage.getItem(KEY);
let leaving = new AbortController();
/** Events up to this number are in what is shown. */
let last = 0;
/** Decisions up to this number are shown. */
let decided = 0;
let denied = 0;
/** Machines and checkpoints by id: {data, cost, node, endedAt}. */
const known = new Map();

/** An element with a class and a text. */
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A problem as the engine says it. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the engine answered ${status}`);
    this.status = status;
  }
}

async function ask(path, more = {}) {
  const headers = { Accept: "application/json", ...more.headers, Authorization: `Bearer ${key}` };
  const answer = await fetch(path, { ...more, headers, signal: leaving.signal, cache: "no-store" });
  if (answer.ok) return answer;
  let problem = {};
  try { problem = await answer.json(); } catch { /* Whatever answered is no engine. */ }
  throw new Refused(answer.status, problem);
}

const look = async (path) => (await ask(path)).json();

function bytes(kib) {
  if (kib < 1024) return `${kib} KiB`;
  const [size, unit] = kib < 1024 * 1024 ? [kib / 1024, "MiB"] : [kib / 1024 / 1024, "GiB"];
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${unit}`;
}

const clock = (time) => new Date(time).toLocaleTimeString();
const short = (id) => id.slice(-8);

function say(state, words) {
  at("link").dataset.state = state;
  at("link").textContent = words;
}

/* ---- machines ---- */

/** Takes in what is known of a machine, and the ended mothers that its tree needs. */
async function take(data) {
  const one = known.get(data.id) || { data, cost: null, node: null };
  one.data = data;
  if (data.state === "ended") one.endedAt ??= Date.now();
  known.set(data.id, one);
  if (data.mother && !known.has(data.mother)) {
    try {
      await take(await look(`/v1/machines/${data.mother}`));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      try { await take(await look(`/v1/checkpoints/${data.mother}`)); } catch (again) {
        if (!(again instanceof Refused)) throw again;
      }
    }
  }
}

async function takeAll() {
  let more = false;
  for (const path of ["/v1/machines", "/v1/checkpoints"]) {
    let cursor = "";
    do {
      const page = await look(`${path}?limit=100${cursor}`);
      for (const one of page.items) await take(one);
      more ||= Boolean(page.next) && known.size >= MOST_SHOWN;
      cursor = page.next && !more ? `&cursor=${encodeURIComponent(page.next)}` : "";
    } while (cursor);
  }
  at("more").hidden = !more;
  at("more").textContent = `The first ${MOST_SHOWN} are shown, and those that are made from now on.`;
}

/** Whether a machine, or somebody below her, is to be shown. */
function stays(id, now, children) {
  const one = known.get(id);
  if (one.data.state !== "ended" || now - one.endedAt < ENDED_STAY_MS) return true;
  return (children.get(id) || []).some((below) => stays(below, now, children));
}

function draw() {
  const now = Date.now();
  const children = new Map();
  for (const [id, one] of known) {
    const mother = known.has(one.data.mother) ? one.data.mother : null;
    children.set(mother, [...(children.get(mother) || []), id]);
  }
  for (const id of [...known.keys()]) {
    if (!stays(id, now, children)) {
      known.get(id).node?.item.remove();
      known.delete(id);
    }
  }
  let most = 1;
  for (const one of known.values()) most = Math.max(most, one.cost ? one.cost.pss_kib : 0);
  const place = (list, ids) => {
    const sorted = ids.filter((id) => known.has(id));
    sorted.sort((a, b) => known.get(a).data.created_at.localeCompare(known.get(b).data.created_at) || (a < b ? -1 : 1));
    sorted.forEach((id, index) => {
      const node = shown(known.get(id), most);
      if (list.children[index] !== node.item) list.insertBefore(node.item, list.children[index] || null);
      place(node.below, children.get(id) || []);
    });
  };
  place(at("forest"), children.get(null) || []);
  at("empty").hidden = known.size > 0;
  sums();
}

/** The element of a machine, made once and brought up to date. */
function shown(one, most) {
  const { data, cost } = one;
  if (!one.node) {
    const item = make("li");
    const row = make("div", "node");
    if (Date.now() - Date.parse(data.created_at) < 5000) row.classList.add("born");
    const node = { item, row, who: make("div", "who"), bar: make("div", "bar"), own: make("div", "private"), part: make("div", "shared"), bytes: make("div", "bytes", "…"), below: make("ul") };
    node.bar.setAttribute("role", "img");
    node.bar.append(node.own, node.part);
    row.append(node.who, node.bar, node.bytes);
    item.append(row, node.below);
    item.dataset.machine = data.id;
    one.node = node;
  }
  const { item, who, bar, own, part, bytes: words, below } = one.node;
  item.classList.toggle("is-ended", data.state === "ended");
  const text = JSON.stringify([data.name, data.state, data.labels, data.ending]);
  if (who.dataset.text !== text) {
    who.dataset.text = text;
    const state = make("span", "state", data.state === "frozen" ? "checkpoint" : data.state);
    state.dataset.state = data.state;
    const id = make("span", "id", short(data.id));
    id.title = data.id;
    const labels = Object.entries(data.labels).map(([name, value]) => make("span", "label", `${name}=${value}`));
    who.replaceChildren(...(data.name ? [make("span", "name", data.name)] : []), id, state, ...labels);
    if (data.ending) who.append(make("span", "label", data.ending));
  }
  const ended = data.state === "ended";
  // The engine counts what machines cost, and not checkpoints.
  bar.hidden = words.hidden = ended || data.kind !== "machine";
  if (!ended && cost) {
    const shared = Math.max(0, cost.pss_kib - cost.private_kib);
    own.style.width = `${(100 * cost.private_kib) / most}%`;
    part.style.width = `${(100 * shared) / most}%`;
    words.textContent = `${bytes(cost.private_kib)} + ${bytes(shared)} of ${data.memory_mib} MiB`;
    bar.setAttribute("aria-label", `${bytes(cost.private_kib)} private, ${bytes(shared)} shared, of ${data.memory_mib} MiB that the guest has`);
  }
  below.setAttribute("aria-label", `daughters of ${data.name || short(data.id)}`);
  return one.node;
}

function sums() {
  const count = { running: 0, paused: 0, frozen: 0, hibernated: 0, ended: 0 };
  let given = 0, own = 0, part = 0, counted = false;
  for (const { data, cost } of known.values()) {
    count[data.state] += 1;
    if (data.state === "ended") continue;
    if (data.kind === "machine" && data.state !== "hibernated") given += data.memory_mib;
    if (!cost) continue;
    counted = true;
    own += cost.private_kib;
    part += Math.max(0, cost.pss_kib - cost.private_kib);
  }
  for (const state of ["running", "paused", "frozen"]) at(`t-${state}`).textContent = count[state];
  at("t-given").textContent = bytes(given * 1024);
  at("t-private").textContent = counted ? bytes(own) : "–";
  at("t-shared").textContent = counted ? bytes(part) : "–";
  at("t-denied").textContent = denied;
}

/** Asks what each machine costs, a few at once, for as long as the page is looked at. */
async function costs() {
  const living = [...known.values()].filter((one) => one.data.state !== "ended" && one.data.kind === "machine");
  const next = async () => {
    for (let one = living.pop(); one; one = living.pop()) {
      try { one.cost = await look(`/v1/machines/${one.data.id}/stats`); } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: COSTS_AT_ONCE }, next));
  draw();
}

/* ---- verdicts, events, usage ---- */

function line(list, empty, item) {
  at(empty).hidden = true;
  const log = at(list);
  log.prepend(item);
  while (log.children.length > MOST_LINES) log.lastElementChild.remove();
}

function head(...parts) {
  const head = make("div", "head");
  head.append(...parts);
  return head;
}

async function decisions() {
  const page = await look(decided ? `/v1/decisions?after=${decided}&limit=200` : "/v1/decisions?limit=50");
  for (const one of page.items) {
    decided = Math.max(decided, one.number);
    denied += one.denies ? 1 : 0;
    const item = make("li", one.denies ? "denied" : "");
    const parts = [make("time", "", clock(one.at)), make("span", "what", one.hook), make("span", "", one.binding)];
    const standing = { enforced: "", warned: "warns only", "failed-open": "failed open", "failed-closed": "failed closed", shadow: "shadow" }[one.standing];
    if (standing) parts.push(make("span", one.standing === "failed-closed" ? "badge bad" : "badge wait", standing));
    if (one.took_us !== undefined) parts.push(make("span", "num", `${one.took_us} µs`));
    item.append(head(...parts), make("div", "", one.verdict));
    if (one.instead_of) item.append(make("div", "hint", `its fallback answered: ${one.instead_of}`));
    line("decisions", "no-decisions", item);
  }
  sums();
}

function event(one) {
  const { mother, intent, ...rest } = one.data;
  const more = Object.entries(rest).map(([name, value]) => `${name}: ${value}`);
  if (mother) more.unshift(`of ${short(mother)}`);
  const item = make("li", one.kind === "fork.refused" ? "denied" : "");
  item.append(head(make("time", "", clock(one.at)), make("span", "what", one.kind), make("span", "id", short(one.subject))));
  if (more.length) item.append(make("div", "", more.join(", ")));
  line("events", "no-events", item);
}

/** What of usage is shown, with the names of the summary's fields. */
const MEASURED = { vcpu_hours: "vCPU-hours", cpu_hours: "CPU-hours", gib_hours: "GiB-hours", private_gib_hours: "private GiB-hours", forks: "forks" };

function row(cells, tag) {
  const row = make("tr");
  const cell = (text, column) => make(column ? tag : "th", column ? "num" : "", text ?? "–");
  row.append(...cells.map(cell));
  row.firstElementChild.scope = tag === "th" ? "col" : "row";
  return row;
}

const table = (id, head, rows) => at(id).replaceChildren(row(head, "th"), ...rows.map((cells) => row(cells, "td")));

/** What is left of a budget; a key whose tenant keeps none has none. */
async function left(tenant) {
  const { budget } = await look(`/v1/tenants/${encodeURIComponent(tenant)}/balance`);
  return budget ? ` ${budget.left} are left${budget.message ? `: ${budget.message}` : "."}` : "";
}

/** Usage of this month and what it comes to, as on an invoice. Amounts are text and stay as they were said. */
async function usage() {
  let page, budget;
  try {
    page = await look("/v1/usage?by=project");
    budget = await left(tenant);
  } catch (error) {
    if (error instanceof Refused) return void (at("usage").hidden = true);
    throw error;
  }
  at("usage").hidden = false;
  at("h-usage").textContent = `Usage in ${page.period}`;
  const name = (one) => one.group || "all";
  table("measured", ["project", ...Object.values(MEASURED)],
    page.groups.map((one) => [name(one), ...Object.keys(MEASURED).map((field) => one.measured[field])]));
  const charges = page.groups.flatMap((one) => one.charges.map((charge) => [name(one), charge]));
  table("bill", ["project", "item", "units", "lines", "amount", "currency"],
    charges.map(([group, one]) => [group, one.item, one.units, one.lines, one.amount, one.currency]));
  at("bill").hidden = !charges.length;
  const sum = page.totals.map((one) => `${one.amount} ${one.currency}`).join(", ");
  at("usage-total").textContent = (sum ? `Together ${sum}.` : "Nothing is charged yet.") + budget;
  const waits = [[page.unsealed, "records are not rated yet"], [page.held, "batches are held until they can be rated"], [page.dead, "batches wait for an operator"]];
  at("usage-waits").textContent = waits.filter(([count]) => count).map((words) => words.join(" ")).join(", ");
}

/* ---- the stream ---- */

async function heard(name, data) {
  if (name === "problem") throw new Refused(503, data);
  if (name === "gap") return;
  last = data.number;
  event(data);
  const checkpoint = data.kind.startsWith("checkpoint.");
  if (checkpoint || data.kind.startsWith("machine.")) {
    await take(await look(`/v1/${checkpoint ? "checkpoints" : "machines"}/${data.subject}`));
    draw();
  }
  if (data.kind === "machine.born" || data.kind === "fork.refused") await decisions();
}

/** Frames of `text/event-stream`, as the HTML standard has them; the engine ends lines with LF. */
async function follow() {
  const stream = await ask("/v1/events", { headers: { Accept: "text/event-stream", "Last-Event-ID": `${last}` } });
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  say("live", "live");
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the stream ended");
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const fields = frame.split("\n").map((text) => text.split(/: ?(.*)/s));
      const of = (name) => fields.find(([field]) => field === name)?.[1];
      if (of("data")) await heard(of("event"), JSON.parse(of("data")));
    }
  }
}

async function live() {
  const own = leaving;
  const every = setInterval(() => { if (!document.hidden) Promise.all([costs(), usage()]).catch(() => {}); }, COST_EVERY_MS);
  own.signal.addEventListener("abort", () => clearInterval(every));
  while (!own.signal.aborted) {
    try {
      // What happens while all is taken in comes again on the stream, and changes nothing then.
      last = Math.max(last, (await look("/v1/info")).last_event);
      await takeAll();
      draw();
      await decisions();
      costs().catch(() => {});
      usage().catch(() => {});
      await follow();
    } catch (error) {
      if (own.signal.aborted) return;
      if (error instanceof Refused && [401, 403].includes(error.status)) return leave(error.message);
      say("wait", "reconnecting");
      await new Promise((wake) => setTimeout(wake, RETRY_MS));
    }
  }
}

async function enter() {
  leaving = new AbortController();
  const info = await look("/v1/info");
  sessionStorage.setItem(KEY, key);
  tenant = info.tenant;
  at("tenant").textContent = `${info.tenant} on brood ${info.version}`;
  at("door").hidden = true;
  at("room").hidden = at("leave").hidden = false;
  live();
}

/** Forgets the key, and everything that was seen with it. */
function leave(words) {
  leaving.abort();
  sessionStorage.removeItem(KEY);
  key = null;
  last = decided = denied = 0;
  known.clear();
  for (const id of ["forest", "decisions", "events", "measured", "bill"]) at(id).replaceChildren();
  for (const id of ["empty", "no-decisions", "no-events"]) at(id).hidden = false;
  at("tenant").textContent = at("usage-total").textContent = at("usage-waits").textContent = tenant = "";
  at("room").hidden = at("leave").hidden = true;
  at("door").hidden = false;
  at("enter-problem").textContent = words || "";
  say("off", "not connected");
  at("key").value = "";
  at("key").focus();
}

async function tryKey() {
  try { await enter(); } catch (error) { leave(error.message); }
}

at("enter").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  key = at("key").value.trim();
  tryKey();
});
at("leave").addEventListener("click", () => leave());
if (key) tryKey();
else at("key").focus();
