/* The connection of a page: one, whatever the page follows; and how it is, for the visitor. */
import { connect } from "/comet/comet.js"

export const byId = (id) => document.getElementById(id)
export const fill = (id, values) => Object.assign(byId(id).dataset, values)

export const comet = connect()

// The banner: an element that the style sheet hides while it is empty, and three lines.
const WORDS = { offline: "No connection; we keep trying.", deactivated: "Push is switched off." }
const banner = document.getElementById("banner")
comet.addEventListener("status", () => (banner.textContent = WORDS[comet.status] ?? ""))

// The lamp, and what has to look as old as it is.
comet.addEventListener("status", () => {
  document.documentElement.dataset.state = comet.status
  if (!byId("state")) return
  fill("state", { state: comet.status })
  byId("state-word").textContent = comet.status
})

// What the server still holds comes first, so the charts begin with a whole minute; a page that was
// away for longer than that begins again in the same way.
export function follow(name, from, show, clear = () => {}) {
  const onfull = () => {
    clear()
    follow(name, from, show, clear)
  }
  comet.channel(name, { from, onmessage: show, onfull })
}

/* A request for the wall and the switches; then `done(status, answer)`, with 0 if there was no answer. */
export async function call({ method, url, type, body, token }, done) {
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
