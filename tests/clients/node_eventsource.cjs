// usage: node node_eventsource.cjs URL CHANNEL...
require("./eventsource.js")
const { EventSource } = require("eventsource")

const [url, ...channels] = process.argv.slice(2)
globalThis.follow(new EventSource(url), channels, (line) => console.log(line))
