/* What every visitor gets: the pulse, the figures and the wall. */
import { byId, comet, fill, follow } from "./connection.js"
import "./posts.js"
import "./pulse.js"

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
