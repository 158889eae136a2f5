/* The live page: everything it shows comes through one `comet`, and so over one connection. */
import { byId, call, comet, fill, follow } from "./connection.js"
import "./pulse.js"
import "./tab.js"

const TOKEN = document.querySelector("meta[name=admin-token]").content

const operate = new Operate(
  (what, done) => call({ ...what, token: TOKEN }, done),
  // The operator need not wait until the page looks again by itself.
  () => comet.status === "deactivated" && dispatchEvent(new Event("online")),
)
comet.addEventListener("status", () => operate.look())

follow("cpu", "last:60", Figures.cpu)
follow("memory", "last:60", Figures.memory)
follow("network", "last:60", Figures.network)
follow("machine", "last:1", Figures.machine)
comet.channel("lateness", { onmessage: showLateness, onfull: "resume" })

function showLateness(milliseconds) {
  // Logarithmic: 0.1, 1, 10 and 100 ms are a third of the half circle apart.
  const part = Math.min(Math.max((Math.log10(milliseconds) + 1) / 3, 0), 1)
  fill("gauge", { value: milliseconds })
  byId("gauge").setAttribute("aria-valuenow", milliseconds)
  byId("gauge-value").textContent = milliseconds.toFixed(milliseconds < 10 ? 2 : 0)
  byId("gauge-needle").style.transform = `rotate(${180 * part - 90}deg)`
}
