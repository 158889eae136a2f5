/* The notification centre. What one must find again is in the application, `GET centre`; what comes
 * over the channels is added to it. */
import { byId, comet } from "./connection.js"

const NAMES = { alice: "Alice", bob: "Bob" }
const TOPICS = { lunch: "Lunch", releases: "Releases", board: "The board" }
const all = (selector) => [...document.querySelectorAll(selector)]

const user = byId("centre").dataset.user
const notes = new Map() // by number
let read = Number(sessionStorage[`read ${user}`] || 0) // the newest that this tab has looked at
let members = []

// Somebody logged in or out in another tab, or the server forgot this one: the page is another one
// now. It is loaded when the server is there, and knows this browser by its new cookie.
let reloading = false
function reload() {
  if (reloading) return
  reloading = true
  const soon = () => setTimeout(come, 300 + 700 * Math.random())
  const come = () => comet.process().then(() => location.reload(), soon)
  come()
}

comet.channel("~comet", { from: "last:1", onmessage: reload, onerror: reload })

// Then it says so, once.
const before = sessionStorage.user ?? user
sessionStorage.user = user
if (before !== user) {
  byId("told").textContent = user ? `You are now ${NAMES[user]}.` : "You are logged out."
}

async function send(method, url, body) {
  const headers = body && { "Content-Type": "application/json" }
  const answer = await comet.fetch(url, { method, headers, body: body && JSON.stringify(body) })
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`)
  return answer
}

async function become(name) {
  await send("POST", name ? "login" : "logout", name ? { user: name } : undefined)
  reload()
}

// Notes

function add(note) {
  const known = notes.get(note.number)
  if (known?.seen_by?.length > note.seen_by?.length) note.seen_by = known.seen_by // it is newer
  notes.set(note.number, note)
}

const unread = (note) => !note.mine && note.number > read

function showNotes() {
  const newest = [...notes.values()].sort((one, other) => other.number - one.number)
  const count = newest.filter(unread).length
  byId("notes").replaceChildren(...newest.map(item))
  byId("bell").dataset.unread = byId("unread").textContent = count
  document.title = `${count ? `(${count}) ` : ""}asgi_comet · notifications`
}

function item(note) {
  const { number, topic, author, text, at, mine, mentioned, seen_by } = note
  const row = element("li", unread(note) ? "unread" : "")
  row.dataset.number = number
  row.dataset.topic = topic
  if (mentioned) row.classList.add("mentioned")
  const by = element("p", "by")
  const clock = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
  by.append(element("b", "", mine ? "You" : NAMES[author]), element("span", "topic", TOPICS[topic]))
  by.append(element("time", "", clock))
  const seen = seen_by?.length ? `seen by ${seen_by.map((one) => NAMES[one]).join(", ")}` : ""
  row.append(by, element("p", "text", text), element("p", "seen", seen))
  return row
}

function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text })
}

function look() {
  read = Math.max(0, ...notes.keys())
  sessionStorage[`read ${user}`] = read
  showNotes()
}

async function write(event) {
  event.preventDefault()
  const field = byId("write-text")
  byId("write-note").textContent = ""
  try {
    const answer = await send("POST", `topics/${byId("write-topic").value}`, { text: field.value })
    add(await answer.json()) // this tab is told by the answer, and by nothing else
    field.value = ""
    showNotes()
  } catch (error) {
    byId("write-note").textContent = `Not sent. ${error.message}`
  }
  field.focus()
}

// Topics and members

async function load() {
  try {
    const view = await (await send("GET", "centre")).json()
    view.notes.forEach(add)
    members = view.members
    if (read > Math.max(0, ...notes.keys())) look() // the server counts from 1 again
    showTopics(view.topics)
    showNotes()
    byId("right").textContent = members.includes("bob") ? "Take Bob's right away" : "Give it back"
    all(".chair").forEach((element) => (element.hidden = !members.length))
  } catch {
    reload()
  }
}

function showTopics(topics) {
  const names = Object.keys(topics)
  const chosen = byId("write-topic").value
  byId("topics").replaceChildren(...names.map((topic) => choice(topic, topics[topic])))
  byId("write-topic").replaceChildren(...names.map((topic) => new Option(TOPICS[topic], topic)))
  if (chosen in topics) byId("write-topic").value = chosen
}

function choice(topic, followed) {
  const row = element("li")
  const label = element("label")
  const box = Object.assign(element("input"), { type: "checkbox", checked: followed })
  row.dataset.topic = box.dataset.follow = topic
  box.addEventListener("change", async () => {
    box.disabled = true
    await send(box.checked ? "PUT" : "DELETE", `topics/${topic}/followed`).catch(reload)
    box.disabled = false
  })
  label.append(box, element("span", "topic", TOPICS[topic]))
  if (topic === "board") label.append(element("small", "", "members only"))
  row.append(label)
  return row
}

// The room: who may enter is asked when we do.

let room = null

function enter() {
  room ??= comet.channel("room:board", { from: "last:1", onmessage, onfull: "resume", onclosed })

  function onmessage(cash) {
    const figure = byId("room-cash")
    byId("room").dataset.state = "open"
    byId("room-note").textContent = ""
    figure.textContent = `€ ${cash.toLocaleString("en")}`
    figure.dataset.count = Number(figure.dataset.count) + 1
  }

  function onclosed({ reason }) {
    room = null
    byId("room").dataset.state = reason
    byId("room-note").textContent =
      reason === "forbidden" ? "forbidden: you may not read this." : `It is ${reason}.`
  }
}

// Begin

function hear({ value: { seen, changed } }) {
  if (seen && notes.has(seen.number)) {
    notes.get(seen.number).seen_by = seen.by
    showNotes()
  }
  if (changed) {
    load()
    enter()
  }
}

function show({ value }) {
  add(value)
  showNotes()
}

const host = location.hostname === "localhost" ? "127.0.0.1" : "localhost"
const guest = user === "bob" ? "alice" : "bob"
byId("elsewhere").href = `//${host}:${location.port}${location.pathname}?guest=${guest}`
byId("elsewhere").textContent = `${NAMES[guest]}'s page`
byId("who-name").textContent = NAMES[user] ?? "a visitor"
for (const button of all("[data-become]")) {
  button.classList.toggle("is", user !== "" && button.dataset.become === user)
  button.addEventListener("click", () => become(button.dataset.become).catch(reload))
}

if (user) {
  all(".for-users").forEach((element) => (element.hidden = false))
  byId("write").addEventListener("submit", write)
  byId("bell").addEventListener("click", look)
  byId("right").addEventListener("click", () =>
    send(members.includes("bob") ? "DELETE" : "PUT", "members/bob").catch(reload),
  )
  comet.channel("messages", { onmessage: show, onerror: reload })
  comet.channel("told", { onmessage: hear, onerror: reload })
  enter()
  load()
} else {
  byId("logout").hidden = true
}
