// usage: node node_websocket.cjs URL CHANNEL...
require("./websocket.js")
const { WebSocket } = require("ws")

const [url, ...channels] = process.argv.slice(2)
globalThis.follow(WebSocket, url, channels, (line) => console.log(line))
