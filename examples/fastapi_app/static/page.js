/* The live page: everything it shows comes through one `comet`, and so over one connection. */
import { connect } from "/comet/comet.js"

const TOKEN = document.querySelector("meta[name=admin-token]").content
const SVG = "http://www.w3.org/2000/svg"
const byId = (id) => document.getElementById(id)
const fill = (id, values) => Object.assign(byId(id).dataset, values)

const comet = connect()

// The banner: an element that the style sheet hides while it is empty, and three lines.
const WORDS = { offline: "No connection; we keep trying.", deactivated: "Push is switched off." }
const banner = document.getElementById("banner")
comet.addEventListener("status", () => (banner.textContent = WORDS[comet.status] ?? ""))

// The lamp, and what has to look as old as it is.
comet.addEventListener("status", () => {
  fill("state", { state: comet.status })
  byId("state-word").textContent = comet.status
  document.documentElement.dataset.state = comet.status
  operate.look()
})

const wall = new WallView(call)
const operate = new Operate(
  (what, done) => call({ ...what, token: TOKEN }, done),
  // The operator need not wait until the page looks again by itself.
  () => comet.status === "deactivated" && dispatchEvent(new Event("online")),
)

/* A request of the page's own, for the wall and the switches. */
async function call({ method, url, type, body, token }, done) {
  const headers = {}
  if (type) headers["Content-Type"] = type
  if (token) headers.Authorization = `Bearer ${token}`
  try {
    const answer = await fetch(url, { method, headers, body })
    done(answer.status, await answer.text())
  } catch {
    done(0)
  }
}

// For everyone. What the server still holds comes first, so the charts begin with a whole minute;
// a page that was away for longer than that begins again in the same way.
function follow(name, from, show, clear = () => {}) {
  const onfull = () => {
    clear()
    follow(name, from, show, clear)
  }
  comet.channel(name, { from, onmessage: show, onfull })
}

follow("cpu", "last:60", Figures.cpu)
follow("memory", "last:60", Figures.memory)
follow("network", "last:60", Figures.network)
follow("machine", "last:1", Figures.machine)
follow("wall", "last:50", (post) => wall.add(post), () => wall.replace([]))
comet.channel("lateness", { onmessage: showLateness, onfull: "resume" })

// For this tab alone. A client process that is gone takes its channels with it; by then the client
// has opened another one, which is introduced in the same way.
comet.channel("me", { onmessage: showMe, onerror: introduce })

async function introduce() {
  try {
    const answer = await comet.fetch("me", { method: "POST" })
    if (answer.ok) return comet.open(await answer.json(), { onmessage: showMe, onerror: introduce })
  } catch {
    // There is no server right now.
  }
  setTimeout(introduce, 1000 + 2000 * Math.random())
}

async function throwDarts() {
  byId("job-start").disabled = true
  byId("job-note").textContent = ""
  byId("darts").textContent = ""
  try {
    const answer = await comet.fetch("job", { method: "POST" })
    if (!answer.ok) throw new Error(`not started: ${answer.status}`)
    for await (const progress of comet.open(await answer.json())) showProgress(progress)
  } catch (error) {
    if (error.reason !== "ended") byId("job-note").textContent = error.message || "It is gone."
  }
  byId("job-start").disabled = false
}

function showMe({ session, process, tabs }) {
  fill("me", { session, process, tabs })
  byId("me-session").textContent = session
  byId("me-process").textContent = process
  byId("me-tabs").textContent = tabs === 1 ? "the only tab" : `${tabs} tabs`
}

function showProgress({ tab, percent, darts, pi, shown }) {
  fill("job-progress", { tab, value: percent })
  byId("job-progress").setAttribute("aria-valuenow", percent)
  byId("job-progress").firstElementChild.style.width = `${percent}%`
  byId("job-pi").textContent = pi.toFixed(4)
  byId("job-darts").textContent = `${darts.toLocaleString("en")} darts`
  shown.forEach(showDart)
}

function showDart([x, y]) {
  const dart = document.createElementNS(SVG, "circle")
  const where = { cx: x, cy: y, r: 0.025, class: x * x + y * y <= 1 ? "hit" : "miss" }
  for (const [name, value] of Object.entries(where)) dart.setAttribute(name, value)
  byId("darts").append(dart)
}

function showLateness(milliseconds) {
  // Logarithmic: 0.1, 1, 10 and 100 ms are a third of the half circle apart.
  const part = Math.min(Math.max((Math.log10(milliseconds) + 1) / 3, 0), 1)
  fill("gauge", { value: milliseconds })
  byId("gauge").setAttribute("aria-valuenow", milliseconds)
  byId("gauge-value").textContent = milliseconds.toFixed(milliseconds < 10 ? 2 : 0)
  byId("gauge-needle").style.transform = `rotate(${180 * part - 90}deg)`
}

byId("job-start").addEventListener("click", throwDarts)
