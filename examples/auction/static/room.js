/* The page of a room; `comet.script` in the page says which channels it follows. */
import { connect } from "/comet/comet.js"

const comet = connect()
const byId = (id) => document.getElementById(id)
const url = location.pathname // /rooms/1
const send = (path, value) =>
  comet.fetch(`${url}/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(value),
  })

// What was said and bid: first what the database has, then what the channel brings.

const shown = new Set()

function show(entry) {
  if (shown.has(entry.id)) return // it was committed before the history was read, and published after
  shown.add(entry.id)
  const words = { said: entry.text, bid: `bids ${entry.amount} €` }
  append("entries", entry.type, entry.user, words[entry.type])
  if (entry.type === "bid") showPrice(entry)
}

function showPrice({ amount }) {
  byId("price").value = Math.max(byId("price").value, amount)
}

function append(list, type, name, text) {
  const item = document.createElement("li")
  item.className = type
  const who = document.createElement("b")
  who.textContent = name
  item.append(who, " ", text)
  byId(list).append(item)
  byId(list).scrollTop = byId(list).scrollHeight
}

const { highest, entries } = await (await fetch(`${url}/history`)).json()
entries.forEach(show)
if (highest) showPrice(highest)

// A page that missed something, or was logged out in another tab, begins anew.
const anew = { onclosed: () => location.reload(), onerror: () => comet.reload() }

comet.channel("room", { ...anew, onmessage: show })
comet.channel("inbox", {
  ...anew,
  onmessage: ({ type, lot, amount }) => append("notices", type, lot, `You are outbid: ${amount} €`),
})
comet.channel("here", {
  ...anew,
  onmessage: ({ value }) => (byId("here").textContent = value.join(", ")),
})

// What this tab does.

byId("say").addEventListener("submit", async (event) => {
  event.preventDefault()
  const { ok } = await send("said", event.target.text.value)
  if (ok) event.target.reset()
})

byId("bid").addEventListener("submit", async (event) => {
  event.preventDefault()
  const answer = await send("bids", event.target.amount.valueAsNumber)
  byId("refused").textContent = answer.ok ? "" : (await answer.json()).detail
})

byId("appraise").addEventListener("click", async ({ target }) => {
  target.disabled = true
  const answer = await send("appraisal")
  for await (const percent of comet.open(await answer.json())) byId("progress").value = percent
  target.disabled = false
})
