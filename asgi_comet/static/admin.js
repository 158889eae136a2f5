// The dashboard, an application of comet.js; see docs/dashboard.md.
// Whatever the server tells is shown as text, never as HTML.
import { connect } from "./comet.js"

const BASE = new URL(".", location) // PREFIX/admin/
const SVG = "http://www.w3.org/2000/svg"
const VIEW = 600 // seconds that the charts show at most, and the server holds
const LEAST = 60 // seconds that they show at least
const PAGE = 60 // rows asked for at once
const SPARE = 15 // rows beyond the visible ones
const KEPT = 200 // messages or events in the page

const byId = (id) => document.getElementById(id)
const role = document.documentElement.dataset.role
const operates = role !== "look"
const comet = connect({ url: BASE.href })

// Small things

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

const whole = new Intl.NumberFormat("en")
const count = (n) => (n === null || n === undefined ? "–" : whole.format(n))
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB")

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–"
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(3)} ms`
  if (seconds < 120) return `${Math.round(seconds)} s`
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`
}

let silence
function say(text) {
  clearTimeout(silence)
  byId("said").textContent = text
  silence = setTimeout(() => say(""), 6000)
}

async function post(path, body) {
  const init = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
  const answer = await fetch(new URL(path, BASE), { method: "POST", ...init })
  if (answer.status === 401) location.reload() // the sign-in page
  if (!answer.ok) throw new Error((await answer.text()) || `the server answers ${answer.status}`)
  return answer.json()
}

async function act(path, body, done) {
  try {
    const found = await post(path, body)
    say(done)
    return found
  } catch (error) {
    say(`not done: ${error.message}`)
  }
}

// Ask before an action; the choices are inputs inside the dialog.
function confirmed(title, text, yes, ...choices) {
  const dialog = byId("ask")
  byId("ask-title").textContent = title
  byId("ask-text").textContent = text
  byId("ask-yes").textContent = yes
  byId("ask-choices").replaceChildren(...choices)
  dialog.returnValue = ""
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes")
  })
}

// Not a submit button: Enter in an input stands for the first of these.
byId("ask-no").onclick = () => byId("ask").close()

// Charts: a second without a sample is a hole in the line

class Chart {
  #path = document.createElementNS(SVG, "path")
  #span = make("p", { className: "muted" })

  constructor(element, key) {
    this.key = key
    const svg = document.createElementNS(SVG, "svg")
    for (const [name, value] of Object.entries({ viewBox: `0 0 ${VIEW} 100`, preserveAspectRatio: "none", "aria-hidden": "true" })) {
      svg.setAttribute(name, value)
    }
    svg.append(this.#path)
    element.append(svg, this.#span)
  }

  draw(samples) {
    const now = samples.at(-1).at
    const span = Math.max(LEAST, now - samples[0].at)
    const top = Math.max(1, ...samples.map((sample) => sample[this.key] ?? 0))
    let before = -Infinity
    let line = ""
    for (const { at, [this.key]: value } of samples) {
      if (value === null) continue
      const pen = at - before > 3.5 ? "M" : "L"
      line += `${pen}${(VIEW * (1 - (now - at) / span)).toFixed(1)},${(97 - (94 * value) / top).toFixed(1)}`
      before = at
    }
    this.#path.setAttribute("d", line)
    this.#span.textContent = `the last ${duration(span)}, up to ${count(top)}`
  }
}

// Lists of any length: only the rows in view are in the page, and asked for

class List {
  #asked = 0
  #shown = new Map() // index: element
  #timer
  #total = 0

  // `columns`: pairs of title and class; `fill(row, cells, before)`; `ask(start, count)`.
  constructor(element, { label, name, columns, ask, fill }) {
    Object.assign(this, { columns, ask, fill })
    this.head = make("div", { className: "row head", role: "row" }, ...columns.map(([title, kind]) =>
      make("span", { className: kind, role: "columnheader", textContent: title })))
    this.space = make("div", { className: "space", role: "rowgroup" })
    this.scroller = make("div", { className: "scroller", tabIndex: 0, role: "group", ariaLabel: `${label}, scrolls` }, this.space)
    this.table = make("div", { className: `table ${name}`, role: "table", ariaLabel: label }, this.head, this.scroller)
    element.replaceChildren(this.table)
    this.scroller.onscroll = () => {
      this.#timer ??= setTimeout(() => this.refresh(), 50)
    }
  }

  get rowHeight() {
    return this.head.offsetHeight || 36
  }

  restart() {
    this.scroller.scrollTop = 0
    return this.refresh()
  }

  async refresh() {
    clearTimeout(this.#timer)
    this.#timer = null
    const asked = ++this.#asked
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / this.rowHeight) - SPARE)
    try {
      const { total, start, rows } = await this.ask(first, PAGE)
      if (asked === this.#asked) this.#show(total, start, rows)
    } catch (error) {
      if (asked === this.#asked) say(error.message)
    }
  }

  #show(total, start, rows) {
    this.#total = total
    this.table.ariaRowCount = total + 1
    this.space.style.height = `${Math.max(total, 1) * this.rowHeight}px`
    for (const [index, element] of this.#shown) {
      if (index >= start && index < start + rows.length) continue
      element.remove()
      this.#shown.delete(index)
    }
    rows.forEach((row, n) => this.fill(row, this.#cells(start + n), rows[n - 1]))
  }

  // The element of a row stays, and with it the focus.
  #cells(index) {
    let element = this.#shown.get(index)
    if (!element) {
      element = make("div", { className: "row", role: "row", ariaRowIndex: index + 2 }, ...this.columns.map(([, kind]) =>
        make("span", { className: kind, role: "cell" })))
      element.style.top = `${index * this.rowHeight}px`
      this.#shown.set(index, element)
      const after = Math.min(...[...this.#shown.keys()].filter((other) => other > index))
      this.space.insertBefore(element, this.#shown.get(after) ?? null)
    }
    return [...element.children]
  }
}

// One button that stays in its cell, for the focus
function button(cell, text, label, onclick) {
  const found = cell.firstElementChild ?? cell.appendChild(make("button", { type: "button", className: "link" }))
  if (found.textContent !== text) found.textContent = text
  Object.assign(found, { onclick, title: text })
  if (label) found.ariaLabel = label
}

const NAME = ""
const NUMBER = "number"
const WIDE = "number wide"

// Now

const samples = []
const charts = ["listeners", "published", "delivered"].map((key) => new Chart(byId(`${key}-chart`), key))
let active = true
let timeout = null

function addSample(sample) {
  if (sample.at <= (samples.at(-1)?.at ?? 0)) return // told again, after a restart of the server
  samples.push(sample)
  while (sample.at - samples[0].at > VIEW) samples.shift()
  soon(showNow)
}

// Many samples come at once when the page opens.
const due = new Set()
function soon(show) {
  if (due.has(show)) return
  due.add(show)
  setTimeout(() => {
    due.delete(show)
    show()
  })
}

function showNow() {
  const newest = samples.at(-1)
  for (const key of ["listeners", "tabs", "users", "published", "delivered", "gaps", "stalled"]) {
    byId(key).textContent = count(newest[key])
  }
  for (const key of ["p50", "p99"]) byId(key).textContent = newest[key] === null ? "–" : `≤ ${duration(newest[key])}`
  if (newest.workers > 1 && newest.users) byId("users").textContent = `≤ ${count(newest.users)}` // each may be known to several
  byId("gaps-card").className = `card large ${newest.gaps ? "bad" : "good"}`
  charts.forEach((chart) => chart.draw(samples))
  active = newest.active
  const polls = `Polls are held for ${duration(newest.timeout)}.`
  byId("switch-state").textContent = `Push is ${active ? "active" : "deactivated"}. ${polls}${newest.stopping ? " The server stops." : ""}`
  byId("switch").textContent = active ? "Deactivate" : "Activate"
  if (timeout !== newest.timeout) byId("timeout").value = timeout = newest.timeout
  showState()
  showLimits(newest)
}

let limits = {}
function showLimits(newest) {
  const rows = Object.entries(limits).filter(([, limit]) => limit).map(([key, limit]) => {
    const label = { tabs: "Tabs", channels: "Channels", members: "Members of families" }[key]
    const share = newest[key] / limit
    const meter = make("meter", { max: 1, high: 0.8, optimum: 0, value: share, ariaLabel: `${label}: ${Math.round(share * 100)} % of the limit` })
    return make("div", { className: "limit" }, make("span", { textContent: label }),
      make("span", { className: "muted", textContent: `${count(newest[key])} of ${count(limit)}` }), meter)
  })
  byId("limits").replaceChildren(...rows)
}

function showState() {
  const { status } = comet
  const newest = samples.at(-1)
  const trouble = newest?.stopping ? "the server stops" : active ? "" : "push is deactivated"
  const words = { online: trouble || "live", connecting: "connecting", offline: "no connection", deactivated: "no connection" }
  const text = words[status] ?? status
  if (byId("state").textContent !== text) byId("state").textContent = text
  byId("state").className = trouble ? "" : status
}

byId("switch").onclick = async () => {
  const [title, text] = active
    ? ["Deactivate push?", "Every connection of a client ends, and clients come back when push is active again."]
    : ["Activate push?", "Clients come back by themselves, and get what the histories still hold."]
  const path = active ? "deactivate" : "activate"
  const word = active ? "Deactivate" : "Activate"
  if (await confirmed(title, text, word)) act(path, undefined, `done: ${path}`)
}

byId("timeout-form").onsubmit = async (event) => {
  event.preventDefault()
  const seconds = byId("timeout").valueAsNumber
  const kill = byId("kill").checked
  const text = `Polls and registrations are held for ${seconds} s from now on.${kill ? " Those that are held now end." : ""}`
  if (await confirmed("Change the timeout?", text, "Change")) act("timeout", { seconds, kill }, "done: timeout")
}

// Channels

let declaration = null
let channel = null

function showDeclarations(rows) {
  const columns = [["Channel", NAME], ["Live", NUMBER], ["Per second", NUMBER], ["Published", WIDE], ["Gaps", WIDE], ["Restarts", WIDE], ["Refused", WIDE]]
  declarations ??= new List(byId("declarations"), { label: "Declared channels", name: "declarations", columns, ask: async (start) => ({ total: told.length, start, rows: told.slice(start, start + PAGE) }), fill: fillDeclaration })
  told = rows
  declarations.refresh()
  if (declaration !== null) members.refresh()
  if (channel !== null) readChannel()
}

let declarations
let told = []

function fillDeclaration(row, cells) {
  button(cells[0], row.name, `${row.name}, ${row.kind || "not declared"}: show its channels`, () => openDeclaration(row.name))
  ;["live", "rate", "published", "gaps", "restarts", "refused"].forEach((key, n) => (cells[n + 1].textContent = count(row[key])))
}

const tops = new Map() // by worker and channel: the newest offset, when, and the rate

function rateOf({ worker, name, top }) {
  const key = `${worker} ${name}`
  const now = performance.now() / 1000
  const before = tops.get(key)
  if (before && now - before.at < 0.5) return before.rate
  const rate = before && top >= before.top ? Math.round((10 * (top - before.top)) / (now - before.at)) / 10 : null
  if (tops.size > 1000) tops.clear()
  tops.set(key, { top, at: now, rate })
  return rate
}

const members = new List(byId("members-list"), {
  label: "Channels",
  name: "members",
  columns: [["Channel", NAME], ["Listeners", NUMBER], ["Held", NUMBER], ["Per second", WIDE], ["Slowest", WIDE], ["Source", "wide"], ["Worker", "wide"]],
  ask: (start, length) => post("channels", { of: declaration, start, count: length, find: byId("find-channel").value }),
  fill(row, cells) {
    if (row.name.startsWith("~")) cells[0].textContent = row.name // its tab alone reads it
    else button(cells[0], row.name, `${row.name} in ${nameOf(row)}`, () => openChannel(row))
    cells[1].textContent = count(row.listeners)
    cells[2].textContent = count(row.held)
    cells[3].textContent = count(rateOf(row))
    cells[4].textContent = row.behind ? `−${count(row.behind)}` : "0"
    cells[5].textContent = row.source
    cells[6].textContent = nameOf(row)
  },
})

function openDeclaration(name) {
  declaration = name
  byId("members").hidden = false
  byId("members-title").textContent = name
  byId("find-channel").value = ""
  byId("members-title").focus()
  byId("channel").hidden = true
  channel = null
  members.restart()
}

let place = { epoch: "", after: 0 }

async function openChannel({ name, fault }) {
  channel = name
  place = { epoch: "", after: 0 }
  byId("tail").replaceChildren()
  byId("channel-figures").textContent = ""
  byId("channel-title").textContent = name
  byId("fault").textContent = fault
  byId("fault").hidden = !fault
  byId("channel").hidden = false
  byId("channel-title").focus()
  readChannel()
}

async function readChannel() {
  if (role !== "contents") return
  const name = channel
  try {
    const found = await post("messages", { channel: name, ...place })
    if (name === channel) showMessages(found)
  } catch (error) {
    if (name === channel) byId("channel-figures").textContent = error.message
  }
}

function showMessages(found) {
  byId("channel-figures").textContent = `${found.kind} · listeners: ${count(found.listeners)} · held: ${count(found.held)} messages, ${count(found.bytes)} bytes · the slowest is ${count(found.behind)} behind · in ${nameOf(found)}`
  if (found.epoch === place.epoch && found.after <= place.after) return
  place = { epoch: found.epoch, after: found.after }
  const list = byId("tail")
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40
  for (const { offset, text, size } of found.messages) {
    const more = size > new Blob([text]).size ? ` … ${count(size)} bytes` : ""
    list.append(make("li", {}, make("span", { className: "at", textContent: `${found.epoch}.${offset}` }), make("span", { textContent: text + more })))
  }
  while (list.children.length > KEPT) list.firstChild.remove()
  if (atEnd) list.scrollTop = list.scrollHeight
}

byId("publish").onsubmit = async (event) => {
  event.preventDefault()
  let data
  try {
    data = JSON.parse(byId("data").value)
  } catch {
    return say("not done: expected JSON, like \"text\" or {\"a\": 1}")
  }
  if (!(await confirmed("Publish?", `All who listen to ${channel} get this message.`, "Publish"))) return
  const found = await act("publish", { channel, data }, "done: publish")
  if (found) byId("data").value = ""
  readChannel()
}

// People

const people = operates && new List(byId("people-list"), {
  label: "Tabs by user and browser",
  name: "people",
  columns: [["User", NAME], ["Browser", "wide"], ["Tab", NAME], ["Transport", "wide"], ["Since", WIDE], ["Away", WIDE], ["Behind", NUMBER], ["Worker", "wide"]],
  ask: (start, length) => post("people", { start, count: length, find: byId("find-user").value }),
  fill(row, cells, before) {
    const [user, browser, tab, transport, since, away, behind, worker] = cells
    user.textContent = row.user || "visitor"
    user.className = row.user === before?.user ? "same" : ""
    browser.textContent = row.browser
    browser.className = `wide${row.browser === before?.browser ? " same" : ""}`
    button(tab, row.tab, `Tab ${row.tab} of ${row.user || "a visitor"}: choose an action`, () => operateOn(row))
    transport.textContent = row.transport.join(", ") || "–"
    since.textContent = duration(row.age)
    away.textContent = row.away ? duration(row.away) : "–"
    behind.textContent = row.behind ? `−${count(row.behind)}` : "0"
    worker.textContent = nameOf(row)
  },
})

async function operateOn({ tab, user }) {
  const choice = make("select", { id: "choice" }, ...[["close-tab", "Close the tab"], ["revoke", "Revoke the right to a channel"], ["test-message", "Send a test message on ~comet"]]
    .map(([value, textContent]) => make("option", { value, textContent })))
  const name = make("input", { id: "revoked", autocomplete: "off" })
  const asked = make("label", { hidden: true }, "Channel or family ", name)
  choice.onchange = () => {
    asked.hidden = !(name.required = choice.value === "revoke")
  }
  const text = `Tab ${tab} of ${user || "a visitor"}.`
  if (!(await confirmed("Act on a tab", text, "Do it", make("label", {}, "Action ", choice), asked))) return
  const body = choice.value === "revoke" ? { tab, channel: name.value } : { tab }
  if (await act(choice.value, body, `done: ${choice.value}`)) people.refresh()
}

// Events

const ADVICE = {
  "admin.acted": "An operator did this.",
  "admin.refused": "A wrong token was refused. If there are many, close /comet/admin in the proxy; the log of requests has the address.",
  "authorize.failed": "Look into the log for the exception in your authorize function; its clients come back again and again.",
  "broker.unavailable": "Look whether Redis runs and is reached; messages wait for a minute.",
  "change.missed": "This worker may lack changes of others; restart the worker if its clients behave differently.",
  "channel.unstarted": "Raise the limit that the reason names, or see who opens so many channels.",
  "client.missed": "Clients were told full. Do what the page Watch it says of the reason.",
  "client.stalled": "A client did not read in time. If there are many, look at the network and the proxy.",
  "function.cut_off": "A callback took too long. Move slow work to a task queue.",
  "function.failed": "Look into the log for the exception in your function.",
  "identify.failed": "Look into the log for the exception in your identify function; its clients come back again and again.",
  "internal.failed": "Please report this, with the traceback in the log.",
  "key.foreign": "Another program writes to our keys in Redis: give each its own prefix or database.",
  "loop.blocked": "Something blocks the event loop: find sync work in async functions.",
  "message.lost": "Messages were not stored: look at the connection to Redis, and publish them again if they matter.",
  "message.unserved": "The application published before the server ran; no client gets that.",
  "origin.refused": "A page of another origin asked. If it is yours, add it to allowed_origins; behind a proxy, look at the header Host.",
  "process.evicted": "A browser has many tabs: the longest unused one was closed.",
  "push.activated": "An operator or the application did this.",
  "push.deactivated": "An operator or the application did this. Activate push under Now.",
  "source.failed": "Look into the log for the exception in your source; the source is started again.",
  "source.restarted": "A source is started again. If this goes on, look into the log for its exception.",
  "timeout.changed": "An operator or the application did this.",
  "worker.differs": "Workers declare different channels. That is normal during a deployment, and wrong after it.",
  "worker.found": "Another worker runs without a broker: clients miss its messages. Use a broker, or one worker.",
}

const MISSED = {
  displaced: "Give the channel a longer history (size, max_age), or find out why its clients are away for so long.",
  epoch: "The channel began anew: look for a restart of the server, or of a Redis that has lost its data.",
  overflow: "The channel of a tab was full and has ended: publish more slowly, raise size, or use a channel on demand.",
  restarted: "The source of the channel has failed: look into the log for its exception.",
}

const events = []

function addEvent(event) {
  const same = ({ at, number, worker }) => at === event.at && number === event.number && worker === event.worker
  if (events.some(same)) return // told again, by another worker
  events.unshift(event)
  events.length = Math.min(events.length, 1000)
  soon(showEvents)
}

function showEvents() {
  if (byId("events").hidden) return
  const kind = byId("kind").value
  const known = new Set([...byId("kind").options].map(({ value }) => value))
  for (const { event } of events) {
    if (known.has(event)) continue
    known.add(event)
    byId("kind").append(make("option", { value: event, textContent: event }))
  }
  const chosen = events.filter(({ event }) => !kind || event === kind).slice(0, KEPT)
  const rows = chosen.map(({ event, at, worker, number, ...fields }) => {
    const about = Object.entries(fields).map(([name, value]) => `${name}: ${value}`)
    return make("li", {}, make("p", {}, make("time", { className: "muted", textContent: clock(at) }), " ", make("span", { className: "what", textContent: event }), ` ${about.join(" · ")}`, make("span", { className: "muted", textContent: ` (${worker})` })),
      make("p", { className: "muted", textContent: (event === "client.missed" && MISSED[fields.reason]) || ADVICE[event] || "" }))
  })
  byId("events-list").replaceChildren(...(rows.length ? rows : [make("li", { className: "muted", textContent: "Nothing has happened." })]))
}

byId("kind").onchange = showEvents

// Workers

let workers
let alive = []
const nameOf = ({ worker }) => alive.find((one) => one.worker === worker)?.name ?? "–"

function showWorkers(found) {
  limits = found.limits
  alive = found.workers
  const trouble = found.trouble ? ` The broker carries no messages: ${found.trouble}` : ""
  byId("workers-state").textContent = `${alive.length} of ${found.alive} workers answer.${trouble}`
  const columns = [["Worker", NAME], ["State", NAME], ["Listeners", NUMBER], ["Tabs", WIDE], ["Channels", WIDE], ["Transports", "wide"]]
  workers ??= new List(byId("workers-list"), { label: "Workers", name: "workers", columns, ask: async (start) => ({ total: alive.length, start, rows: alive.slice(start, start + PAGE) }), fill: fillWorker })
  workers.refresh()
}

function fillWorker(row, cells) {
  const open = Object.entries(row.open).filter(([, n]) => n).map(([name, n]) => `${name} ${count(n)}`)
  const state = row.stopping ? "stops" : row.active ? "active" : "deactivated"
  ;[row.name, state, count(row.listeners), count(row.tabs), count(row.channels), open.join(", ") || "–"].forEach((text, n) => (cells[n].textContent = text))
}

// Following: the newest samples at once, then each as it comes

const SCREENS = {
  now: {},
  channels: { channels: showDeclarations },
  people: { people: () => people.refresh() },
  events: {},
  workers: {},
}

function follow(name, from, onmessage) {
  const again = (consumer) => consumer ?? follow(name, from, onmessage)
  return comet.channel(`:admin/${name}`, { from, onmessage, onfull: () => again(), onclosed: () => {} })
}

let followed = []

function open() {
  const asked = location.hash.slice(1)
  const hidden = !operates && ["people", "events"].includes(asked)
  const screen = SCREENS[asked] && !hidden ? asked : "now"
  for (const name of Object.keys(SCREENS)) byId(name).hidden = name !== screen
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${screen}`) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  document.title = `Push: ${screen}`
  followed.forEach((consumer) => consumer.close())
  followed = Object.entries(SCREENS[screen]).map(([name, show]) => follow(name, "last:1", show))
  if (screen === "people") people.restart()
  if (screen === "events") showEvents()
}

function debounced(input, list) {
  let timer
  input.oninput = () => {
    clearTimeout(timer)
    timer = setTimeout(() => list.restart(), 200)
  }
}

debounced(byId("find-channel"), members)
if (operates) debounced(byId("find-user"), people)

// The session may have ended: then the page is the sign-in page.
async function check() {
  showState()
  if (comet.status !== "offline") return
  const answer = await fetch(new URL("status", BASE)).catch(() => null)
  if (answer?.status === 401) location.reload()
}

comet.addEventListener("status", check)
follow("overview", "last:600", addSample)
follow("workers", "last:1", showWorkers)
if (operates) follow("events", "last:1000", addEvent)
addEventListener("hashchange", () => {
  open()
  document.querySelector("main").focus()
})
open()
