/* What belongs to this tab: who it is, its job, and the dial of the newest value.
 *
 * The page was served with a client process of its own. Follows its channels, and when that
 * process is gone opens another one: nothing here has to be rebuilt.
 */
import { Poll } from "./poll.js";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));

let tab = JSON.parse(byId("tab").textContent);
const poll = new Poll(tab.url, {
  message: (channel, data) => show[channel](data),
  missed: () => {}, // the newest value is all we show, and of its own channels nothing is dropped
  over: (channel, why) => channel === "~job" && jobOver(why),
  lost: open,
  state: (name) => byId("tab-card").setAttribute("data-state", name),
  asked: (exchange) => tell("asked", exchange),
  answered: (exchange) => tell("answered", exchange)
});

const show = {
  "~me": ({ session, process, tabs }) => {
    const tabsWord = tabs === 1 ? "the only tab" : `${tabs} tabs`;
    fill("me", { session, process, tabs });
    byId("me-session").textContent = session;
    byId("me-process").textContent = process;
    byId("me-tabs").textContent = tabsWord;
  },
  "~job": ({ tab: whose, percent, darts, pi, shown }) => {
    const progress = byId("job-progress");
    fill("job-progress", { value: percent, tab: whose });
    progress.setAttribute("aria-valuenow", percent);
    progress.firstElementChild.style.width = percent + "%";
    byId("job-pi").textContent = pi.toFixed(4);
    byId("job-darts").textContent = `${darts.toLocaleString("en")} darts`;
    shown.forEach(dart);
  },
  lateness: (milliseconds) => {
    // Logarithmic: 0.1, 1, 10 and 100 ms are a third of the half circle apart.
    const part = Math.min(Math.max((Math.log10(milliseconds) + 1) / 3, 0), 1);
    fill("gauge", { value: milliseconds });
    byId("gauge").setAttribute("aria-valuenow", milliseconds);
    byId("gauge-value").textContent = milliseconds.toFixed(milliseconds < 10 ? 2 : 0);
    byId("gauge-needle").style.transform = `rotate(${180 * part - 90}deg)`;
  }
};

function start() {
  poll.follow({ [tab.me.channel]: tab.me.position, [tab.late.channel]: tab.late.position });
}

/* The client process is gone: the server was started anew, or we were away for too long. */
async function open() {
  jobOver("gone with the process it belonged to");
  const answer = await ask("tab");
  if (answer.status === 201) {
    tab = await answer.json();
    poll.url = tab.url;
    start();
  } else {
    byId("tab-card").setAttribute("data-state", "offline");
    setTimeout(open, 3000 + 3000 * Math.random());
  }
}

async function startJob() {
  byId("job-start").disabled = true;
  byId("job-note").textContent = "";
  byId("darts").textContent = "";
  const answer = await ask("job");
  if (answer.status === 201) {
    const { channel, position } = await answer.json();
    poll.follow({ [channel]: position });
  } else if (answer.status !== 409) {
    jobOver(answer.status ? `not started: ${answer.status}` : "not started: no answer");
  }
}

function jobOver(why) {
  const running = byId("job-start").disabled;
  byId("job-start").disabled = false;
  byId("job-note").textContent = running && why !== "ended" ? why : "";
}

/* A request that says which tab it is from. */
async function ask(path) {
  const token = tab.url.split("/").pop();
  try {
    return await fetch(path, { method: "POST", headers: { "Comet-Process": token } });
  } catch {
    return { status: 0 };
  }
}

function dart([x, y]) {
  const circle = document.createElementNS(SVG, "circle");
  circle.setAttribute("cx", x);
  circle.setAttribute("cy", y);
  circle.setAttribute("r", 0.025);
  circle.setAttribute("class", x * x + y * y <= 1 ? "hit" : "miss");
  byId("darts").append(circle);
}

function fill(id, values) {
  Object.assign(byId(id).dataset, values);
}

byId("job-start").addEventListener("click", startJob);
document.addEventListener("operated", () => poll.wake());
window.addEventListener("online", () => poll.wake());
window.addEventListener("pagehide", () => {
  poll.stop();
  navigator.sendBeacon(tab.url + "/close"); // or the server would keep the tab for a while
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    open();
  }
});

start();
