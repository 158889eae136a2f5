/* The cut: each message is a number, the next one of its source, so the page sees what is missing. */
import { byId, comet, fill } from "./connection.js"
import { Dots } from "./dots.js"

const HELD = 200 // messages that the server keeps
const GO = 25 // ms; the source's own messages are 50 ms apart
const dots = new Dots(byId("dots"))
const figures = { received: 0, missing: 0, caught: 0, round: 0 }
let next = null // the number that is due
let away = false // from a break of the connection until the first messages after it are here
let told = false // that messages are gone
let timer

// A page that is hidden goes on, or it would be away for longer than the server remembers.
comet.configure({ alwaysActive: true })
follow()

function follow() {
  comet.channel("pulse", { from: `last:${HELD}`, onmessage: count, onfull })
}

// The server no longer holds the message that is due, and says so. Read what it still holds.
function onfull() {
  told = true
  follow()
}

function count(number) {
  if (number < next) next = null // the server was started again, and counts from 1
  for (next ??= number; next < number; next++) miss()
  next++
  figures.received++
  if (away) figures.caught++
  dots.add(away ? "caught" : "live")
  if (away) rest()
  show()
}

function miss() {
  figures.missing++
  dots.add("missing")
}

comet.addEventListener("status", () => {
  if (away || comet.status === "online") return
  away = true
  told = false
  Object.assign(figures, { missing: 0, caught: 0 })
  show()
})

/* What comes at once after a break ends with the first pause. */
function rest() {
  clearTimeout(timer)
  timer = setTimeout(() => {
    away = false
    figures.round++
    say(verdict())
    show()
  }, GO)
}

function verdict() {
  const { missing, caught } = figures
  const came = `Back: ${caught} messages came at once`
  if (told) return `${came}. ${missing} were no longer held, and the page was told so.`
  return `${came}, and ${missing || "none"} are missing.`
}

function show() {
  fill("pulse", figures)
  byId("pulse-received").textContent = figures.received.toLocaleString("en")
  byId("pulse-missing").textContent = figures.missing.toLocaleString("en")
  byId("pulse-caught").textContent = figures.caught ? figures.caught.toLocaleString("en") : "–"
}

function say(text) {
  byId("pulse-says").textContent = text
}

async function cut(seconds) {
  const end = Date.now() + 1000 * seconds
  const clock = setInterval(() => {
    const left = Math.ceil((end - Date.now()) / 1000)
    say(left > 0 ? `Cut. The line is whole again in ${left} s.` : "Coming back …")
  }, 100)
  buttons.forEach((button) => (button.disabled = true))
  try {
    const answer = await comet.fetch(`cut?seconds=${seconds}`, { method: "POST" })
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
    dispatchEvent(new Event("online")) // as a browser says when its network is back
  } catch (error) {
    say(`Not cut: ${error.message}.`)
  }
  clearInterval(clock)
  buttons.forEach((button) => (button.disabled = false))
}

const buttons = [...document.querySelectorAll("[data-cut]")]
for (const button of buttons) {
  button.addEventListener("click", () => cut(Number(button.dataset.cut)))
}
