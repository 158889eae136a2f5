/* The live page: everything it shows comes through one `comet`, and so over one connection. */
import { call, comet } from "./connection.js"
import "./site.js"
import "./tab.js"

const TOKEN = document.querySelector("meta[name=admin-token]").content

const operate = new Operate(
  (what, done) => call({ ...what, token: TOKEN }, done),
  // The operator need not wait until the page looks again by itself.
  () => comet.status === "deactivated" && dispatchEvent(new Event("online")),
)
comet.addEventListener("status", () => operate.look())
