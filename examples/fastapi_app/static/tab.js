/* What belongs to one tab, and the wall, which belongs to everyone. */
import { byId, call, comet, fill, follow } from "./connection.js"

const SVG = "http://www.w3.org/2000/svg"

const wall = new WallView(call)
follow("wall", "last:50", (post) => wall.add(post), () => wall.replace([]))

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
    byId("job-note").textContent = error.message || "It is gone."
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

byId("job-start").addEventListener("click", throwDarts)
